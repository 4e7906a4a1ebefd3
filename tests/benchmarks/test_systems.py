import numpy as np
import pytest
from scipy import stats

from benchmarks.systems import Setting, generate

SETTINGS = [
    Setting(),
    Setting(noise="garch"),
    Setting(hidden=2, children=5),
    Setting(autocorrelation=0.9, rows=20_000),
    Setting(nonlinear=True),
    Setting(series=10, rows=500, effect=(0.05, 0.15)),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_seed_gives_one_system(setting):
    a, b, other = generate(setting, 3), generate(setting, 3), generate(setting, 4)
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.lag, b.lag)
    assert not np.array_equal(a.x, other.x)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_shape_links_and_order(setting):
    system = generate(setting, 0)
    assert system.x.shape == (setting.rows, setting.series)
    assert np.isfinite(system.x).all()
    assert system.truth.sum() == round(setting.links_per_series * setting.series)
    assert set(np.unique(system.lag)) <= set(range(setting.max_lag + 1))
    # Acyclic: a power of the link matrix is zero.
    power = np.linalg.matrix_power(system.truth.astype(int), setting.series)
    assert power.sum() == 0
    # The columns are not in causal order, which would give the answer away.
    assert np.tril(system.truth).any()


@pytest.mark.parametrize("setting", SETTINGS[:-1], ids=str)
def test_stationary(setting):
    # The second half has the spread of the first, as far as so dependent rows can tell.
    for seed in range(3):
        first, second = np.array_split(generate(setting, seed).x, 2)
        ratio = second.std(axis=0) / first.std(axis=0)
        assert np.abs(np.log(ratio)).max() < np.log(2.0)


def test_the_links_are_those_that_act():
    system = generate(Setting(rows=20_000, autocorrelation=0.0, effect=(0.3, 0.4)), 5)
    x, lag = system.x, system.lag
    n, rows, most = x.shape[1], len(x), 3
    past = np.column_stack([x[most - k : rows - k] for k in range(1, most + 1)])
    beta = np.linalg.lstsq(past, x[most:], rcond=None)[0].reshape(most, n, n)
    acting = np.zeros((most, n, n), bool)
    for k in range(1, most + 1):
        acting[k - 1] = lag == k
    assert np.abs(beta[acting]).min() > 0.25
    assert np.abs(beta[~acting]).max() < 0.1


def test_garch_noise_is_fat_tailed_and_bursty():
    # A series without causes is its noise: no links, no memory of its own.
    x = generate(Setting(links_per_series=0.0, noise="garch", autocorrelation=0.0), 1).x
    squares = x**2 - (x**2).mean(axis=0)
    burst = (squares[1:] * squares[:-1]).mean(axis=0) / squares.var(axis=0)
    assert np.median(stats.kurtosis(x, axis=0)) > 3
    assert np.median(burst) > 0.05
    assert np.median(x.std(axis=0)) == pytest.approx(1.0, abs=0.15)


def test_a_hidden_driver_correlates_what_has_no_link():
    setting = Setting(series=6, rows=20_000, links_per_series=0.0, hidden=1, children=4)
    system = generate(setting, 2)
    assert not system.truth.any()
    x = system.x
    strongest = max(
        abs(np.corrcoef(x[3:, i], x[3 - k : len(x) - k, j])[0, 1])
        for k in range(4)
        for i in range(6)
        for j in range(6)
        if i != j
    )
    assert strongest > 0.03


@pytest.mark.parametrize(
    "setting", [Setting(series=3, links_per_series=2.0), Setting(series=2, hidden=1)], ids=str
)
def test_too_many_links_are_refused(setting):
    with pytest.raises(ValueError, match="have room for"):
        generate(setting, 0)
