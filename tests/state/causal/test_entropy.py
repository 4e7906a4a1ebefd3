import itertools

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from state.causal import granger, transfer_entropy
from state.moments import LaggedMoments


def draw(rows=400):
    x = np.random.default_rng(2).standard_normal((rows, 3))
    for t in range(1, rows):
        x[t] += 0.4 * np.roll(x[t - 1], 1)
    return x


@pytest.mark.parametrize("conditional", [False, True])
def test_is_half_the_log_ratio_of_residual_sums(conditional):
    x, lags = draw(), 2
    moments = LaggedMoments.from_rows(x, lags)
    result = transfer_entropy(moments, lags, conditional=conditional)
    past = {s: np.column_stack([x[lags - k : len(x) - k, s] for k in (1, 2)]) for s in range(3)}
    one = np.ones((len(x) - lags, 1))
    for i, j in itertools.permutations(range(3), 2):
        given = {0, 1, 2} - {i} if conditional else {j}
        less = OLS(x[lags:, j], np.hstack([one, *(past[s] for s in given)])).fit().ssr
        more = OLS(x[lags:, j], np.hstack([one, *(past[s] for s in given | {i})])).fit().ssr
        assert result.nats[i, j] == pytest.approx(0.5 * np.log(less / more), rel=1e-9)
    test = granger(moments, lags, conditional=conditional)
    assert np.array_equal(result.p, test.p, equal_nan=True)
    assert result.n == len(x) - lags


def test_equals_the_closed_form_of_a_known_process():
    """y_t = b x_{t-1} + noise with white x: TE is half of log(1 + b^2)."""
    x = np.random.default_rng(4).standard_normal((200_000, 2))
    x[1:, 1] += 0.7 * x[:-1, 0]
    nats = transfer_entropy(LaggedMoments.from_rows(x, 1), 1).nats
    assert nats[0, 1] == pytest.approx(0.5 * np.log(1.49), abs=4e-3)
    assert nats[1, 0] == pytest.approx(0.0, abs=1e-4)


def test_singular_pairs_are_nan():
    x = draw()
    x[:, 2] = 2.0 * x[:, 0]
    result = transfer_entropy(LaggedMoments.from_rows(x, 1), 1)
    assert result.singular[0, 2]
    assert np.isnan(result.nats[0, 2])
