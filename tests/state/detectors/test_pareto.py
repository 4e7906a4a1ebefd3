"""The generalised Pareto fit against scipy's maximum likelihood."""

import numpy as np
import pytest
from scipy.stats import genpareto

from state.detectors.pareto import SHAPES, fit_pareto


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("n", [30, 200, 2000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_likelihood_is_scipys_or_better(shape: float, n: int, scale: float) -> None:
    y = genpareto.rvs(shape, scale=scale, size=n, random_state=n)
    ours = fit_pareto(y)
    # scipy's optimiser starts from, and stops at, steps of unit size: give it unit data.
    theirs, _, sigma = genpareto.fit(y / scale, floc=0)
    reached = genpareto.logpdf(y, ours[0], scale=ours[1]).sum()
    if SHAPES[0] <= theirs <= SHAPES[1]:
        assert reached >= genpareto.logpdf(y, theirs, scale=sigma * scale).sum() - 1e-3
        if n == 2000:
            assert ours[0] == pytest.approx(theirs, abs=0.01)
            assert ours[1] == pytest.approx(sigma * scale, rel=0.01)
    else:
        assert SHAPES[0] <= ours[0] <= SHAPES[1]


def test_the_truth_is_found() -> None:
    y = genpareto.rvs(0.25, scale=3.0, size=50_000, random_state=0)
    assert fit_pareto(y) == pytest.approx((0.25, 3.0), rel=0.05)


@pytest.mark.parametrize("y", [[2.0], [1.0, 2.0, 3.0, 2.0], [5.0] * 40])
def test_too_little_for_a_likelihood_is_exponential(y: list[float]) -> None:
    assert fit_pareto(np.array(y)) == (0.0, pytest.approx(np.mean(y)))
