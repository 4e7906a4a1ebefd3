"""Falls within k steps against the definition on prices."""

import numpy as np
import pytest

from state.detectors import FallWithin


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_is_the_fall_from_the_highest_recent_price(steps: int) -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(0.0, 0.02, size=(500, 2))
    prices = np.exp(np.vstack([np.zeros(2), np.cumsum(returns, axis=0)]))
    highest = np.array([prices[max(t - steps, 0) : t + 1].max(axis=0) for t in range(1, 501)])
    u = (1.0 - prices[1:] / highest) / 0.05
    scores = FallWithin(0.05, steps, series=2).update(returns)
    np.testing.assert_allclose(scores, u / (1.0 + u), atol=1e-12)


def test_exactly_the_limit_fires() -> None:
    returns = np.log([[0.95], [1.0]])
    assert (FallWithin(0.05, 1, series=1).update(returns) >= 0.5).ravel().tolist() == [True, False]


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_wrong_limits(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        FallWithin(limit, 5)


def test_wrong_steps() -> None:
    with pytest.raises(ValueError, match="steps"):
        FallWithin(0.1, 0)
