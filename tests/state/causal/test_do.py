import numpy as np
import pytest
from statsmodels.tsa.api import VAR

from state.causal import SingularSystemError, intervene
from state.moments import LaggedMoments


def chain(rows=1500, seed=8):
    """x -> y -> z, one step each."""
    x = np.random.default_rng(seed).standard_normal((rows, 3))
    for t in range(1, rows):
        x[t, 1] += 0.6 * x[t - 1, 0]
        x[t, 2] += 0.5 * x[t - 1, 1] + 0.3 * x[t - 1, 2]
    return x


@pytest.mark.parametrize("lags", [1, 3])
@pytest.mark.parametrize("scale", [1.0, np.array([1e-2, 1.0, 1e2])])
def test_equals_the_impulse_responses_of_statsmodels(lags, scale):
    x = chain(300) * scale
    responses = VAR(x).fit(lags, trend="c").irf(6)
    errors = responses.stderr(orth=False)
    for cause in range(3):
        told = intervene(
            LaggedMoments.from_rows(x, lags), lags, cause=cause, value=2.0, horizon=6, level=0.9
        )
        shock = 2.0 - x[lags:, cause].mean()
        assert told.shock == pytest.approx(shock, rel=1e-12)
        size = abs(shock) * np.asarray(scale) / np.broadcast_to(scale, 3)[cause]
        assert (np.abs(told.effect - shock * responses.irfs[:, :, cause]) <= 1e-9 * size).all()
        half = 1.6448536269514722 * abs(shock) * errors[:, :, cause]
        assert (np.abs(told.high - told.effect - half) <= 1e-7 * size).all()
        assert (np.abs(told.effect - told.low - half) <= 1e-7 * size).all()
    assert told.stable
    assert told.n == 300 - lags


def test_effects_of_a_chain_arrive_one_after_the_other():
    told = intervene(LaggedMoments.from_rows(chain(), 1), 1, cause=0, value=2.0, horizon=3)
    assert told.effect[0] == pytest.approx([told.shock, 0.0, 0.0])
    assert told.effect[1, 1] == pytest.approx(1.2, abs=0.25)
    assert told.effect[2, 2] == pytest.approx(0.6, abs=0.25)
    assert told.beyond_placebo[1, 1]
    assert told.beyond_placebo[2, 2]
    assert "no unobserved series" in told.assumption


def test_the_placebo_is_the_effect_in_reversed_rows():
    x = chain()
    told = intervene(LaggedMoments.from_rows(x, 2), 2, cause=0, value=2.0, horizon=4)
    back = intervene(LaggedMoments.from_rows(x[::-1], 2), 2, cause=0, value=2.0, horizon=4)
    ratio = told.shock / back.shock
    assert np.allclose(told.placebo, back.effect * ratio, rtol=1e-8, atol=1e-10)
    assert np.allclose(told.placebo_high, back.high * ratio, rtol=1e-8, atol=1e-10)


def test_correlation_at_one_time_is_not_beyond_the_placebo():
    """Autocorrelated, correlated, but nothing acts on anything: hardly anything passes."""
    passed = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 400)
        for t in range(1, 400):
            x[t] += 0.7 * x[t - 1]
        told = intervene(LaggedMoments.from_rows(x, 1), 1, cause=0, value=3.0, horizon=2)
        passed.append(told.beyond_placebo[1:, 1].any())
    assert np.mean(passed) <= 0.05


def test_the_interval_covers_the_true_effect():
    """An effect of 0.6 per unit, over 300 histories: 95 % within sampling error."""
    inside = []
    for seed in range(300):
        told = intervene(
            LaggedMoments.from_rows(chain(200, seed), 1), 1, cause=0, value=2.0, horizon=1
        )
        inside.append(told.low[1, 1] <= 0.6 * told.shock <= told.high[1, 1])
    assert 0.91 <= np.mean(inside) <= 0.98


def test_a_growing_model_is_said_to_be_unstable():
    x = np.random.default_rng(0).standard_normal((200, 2))
    for t in range(1, 200):
        x[t] += 1.05 * x[t - 1]
    assert not intervene(LaggedMoments.from_rows(x, 1), 1, cause=0, value=1.0, horizon=1).stable


def test_what_cannot_be_fitted_raises():
    x = chain(100)
    options = {"cause": 0, "value": 1.0, "horizon": 2}
    for bad, match in (
        (x[:5], "too few"),
        (np.insert(x, 0, 3.0, axis=1), "constant"),
        (np.column_stack([x, x[:, 0] + 1.0]), "linearly dependent"),
    ):
        with pytest.raises(SingularSystemError, match=match):
            intervene(LaggedMoments.from_rows(bad, 2), 2, **options)


@pytest.mark.parametrize(
    "change",
    [{"cause": 3}, {"cause": -1}, {"value": np.nan}, {"horizon": -1}, {"level": 1.0}],
)
def test_bad_arguments(change):
    options = {"cause": 0, "value": 1.0, "horizon": 2} | change
    with pytest.raises(ValueError, match=next(iter(change))):
        intervene(LaggedMoments.from_rows(chain(50), 1), 1, **options)
