import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from state.causal import partial
from state.causal.parcorr import Status, pcmci
from state.moments import LaggedMoments


def draw(kind, rows, series, seed=0):
    """Autocorrelated series with random links at lags 1 and 2."""
    rng = np.random.default_rng(seed)
    if kind == "fat tails":
        x = rng.standard_t(2.5, (rows, series))
    else:
        x = rng.standard_normal((rows, series))
    own = 0.9 if kind == "autocorrelated" else 0.4
    size = np.triu(rng.uniform(-0.3, 0.3, (series, series)), 1)
    size *= rng.random(size.shape) < 0.3
    lag = rng.integers(1, 3, size.shape)
    if kind != "independent":
        for t in range(2, rows):
            x[t] += own * x[t - 1]
            for i, j in np.argwhere(size):
                x[t, j] += size[i, j] * x[t - lag[i, j], i]
    if kind == "scaled":
        x = x * 10.0 ** rng.integers(-6, 7, series) + rng.uniform(-100, 100, series)
    return x


def reference(x, max_lag, *, min_lag=1, alpha=0.05, **limits):
    with warnings.catch_warnings():
        # It correlates residuals of 0 where a short series leaves no degree of freedom.
        for kind in (stats.ConstantInputWarning, stats.NearConstantInputWarning):
            warnings.simplefilter("ignore", kind)
        from tigramite.data_processing import DataFrame
        from tigramite.independence_tests.parcorr import ParCorr
        from tigramite.pcmci import PCMCI

        model = PCMCI(dataframe=DataFrame(x), cond_ind_test=ParCorr(), verbosity=0)
        found = model.run_pcmci(
            tau_min=min_lag, tau_max=max_lag, pc_alpha=alpha, fdr_method="none", **limits
        )
    found["parents"] = tuple(
        tuple((i, -lag) for i, lag in model.all_parents[j]) for j in range(x.shape[1])
    )
    found["correct"] = lambda p, **options: model.get_corrected_pvalues(
        p, tau_min=min_lag, tau_max=max_lag, **options
    )
    return found


def ours(x, max_lag, **options):
    return pcmci(LaggedMoments.from_rows(x, 2 * max_lag), max_lag, **options)


def assert_equal(found, expected):
    assert found.parents == expected["parents"]
    np.testing.assert_allclose(found.value, expected["val_matrix"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.p, expected["p_matrix"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "rows", "series", "max_lag", "alpha"),
    [
        ("independent", 200, 4, 2, 0.3),
        ("linked", 300, 5, 3, 0.05),
        ("fat tails", 300, 5, 2, 0.2),
        ("scaled", 300, 5, 2, 0.05),
        ("autocorrelated", 300, 4, 3, 0.2),
        ("autocorrelated", 40, 5, 3, 0.2),
        ("independent", 16, 3, 3, 0.5),
        ("linked", 100, 1, 3, 0.2),
    ],
)
def test_equals_tigramite(kind, rows, series, max_lag, alpha):
    x = draw(kind, rows, series)
    expected = reference(x, max_lag, alpha=alpha)
    found = ours(x, max_lag, alpha=alpha)
    assert_equal(found, expected)
    assert found.rows == rows - 2 * max_lag


@pytest.mark.parametrize(
    "options",
    [
        {"min_lag": 0},
        {"min_lag": 2},
        {"alpha": None},
        {"alpha": [0.01, 0.4]},
        {"alpha": 0.4, "max_combinations": 3},
        {"alpha": 0.4, "max_combinations": 100},
        {"alpha": 0.4, "max_conds_dim": 1},
        {"alpha": 0.4, "max_conds_dim": 0},
        {"alpha": 0.4, "max_conds_py": 1, "max_conds_px": 0},
        {"alpha": 0.4, "max_conds_py": 0, "max_conds_px": 1, "min_lag": 0},
        {"alpha": 0.0},
        {"alpha": 1.0, "max_conds_dim": 3},
    ],
    ids=str,
)
def test_options_equal_tigramites(options):
    x = draw("autocorrelated", 150, 4, seed=3)
    assert_equal(ours(x, 3, **options), reference(x, 3, **options))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(12, 60),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0.05, 0.3, 0.8]),
)
def test_equals_tigramite_on_short_series(seed, rows, series, max_lag, alpha):
    x = draw("linked", rows, series, seed)
    expected, found = reference(x, max_lag, alpha=alpha), ours(x, max_lag, alpha=alpha)
    assert found.parents == expected["parents"]
    # tigramite gives no p-value without a degree of freedom, yet a value; ours has neither.
    short = found.status == Status.SHORT
    np.testing.assert_array_equal(short, np.isnan(expected["p_matrix"]))
    np.testing.assert_allclose(found.p, expected["p_matrix"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.value[~short], expected["val_matrix"][~short], atol=1e-9)
    assert np.isnan(found.value[short]).all()


def test_correction_equals_tigramites():
    x = draw("linked", 200, 4)
    expected = reference(x, 2, min_lag=0)
    lagged = ours(x, 2, min_lag=0).q
    np.testing.assert_allclose(
        lagged[:, :, 1:], expected["correct"](expected["p_matrix"])[:, :, 1:], atol=1e-9
    )
    assert np.isnan(lagged[:, :, 0]).all()
    every = ours(x, 2, min_lag=0, family="all")
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(
        every.q[off],
        expected["correct"](expected["p_matrix"], exclude_contemporaneous=False)[off],
        atol=1e-9,
    )
    cross = ours(x, 2, family="cross")
    assert np.isnan(cross.q[np.arange(4), np.arange(4)]).all()
    assert (cross.q[off][:, 1:] >= cross.p[off][:, 1:]).all()
    assert cross.links(0.0).sum() == 0


def test_stacks_of_any_size_give_the_same(monkeypatch):
    x = draw("autocorrelated", 200, 4)
    whole = ours(x, 2, alpha=0.4)
    monkeypatch.setattr(partial, "STACK", 50)
    np.testing.assert_array_equal(ours(x, 2, alpha=0.4).p, whole.p)


def test_degrees_of_freedom_count_the_conditions():
    x = draw("linked", 200, 3)
    found = ours(x, 1, alpha=1.0, max_conds_dim=0)
    # Every candidate is kept: 3 conditions at lag 1, 3 more at lag 2, without the cause itself.
    assert set(found.df[:, :, 1].ravel()) == {198 - 2 - 5}
    assert (found.status[:, :, 0] == Status.NOT_TESTED).all()


def test_a_split_stream_gives_the_same_graph():
    x = draw("fat tails", 300, 4)
    whole = ours(x, 2)
    total = LaggedMoments.from_rows(x[:100], 4)
    total.merge(LaggedMoments.from_rows(x[100:102], 4))
    total.merge(LaggedMoments.from_rows(x[102:], 4))
    parts = pcmci(total, 2)
    assert parts.parents == whole.parents
    np.testing.assert_allclose(parts.p, whole.p, atol=1e-9)


def test_moments_that_reach_further_back_use_the_same_rows():
    x = draw("linked", 100, 3)
    found = pcmci(LaggedMoments.from_rows(x, 6), 2)
    np.testing.assert_allclose(found.p, ours(x, 2).p, atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 7.3, 1e6])
def test_a_constant_series_is_named_and_the_others_stand(level):
    x = draw("linked", 200, 4)
    x[:, 2] = level
    found, expected = ours(x, 2, alpha=0.3), reference(x, 2, alpha=0.3)
    touched = np.zeros((4, 4), bool)
    touched[2], touched[:, 2] = True, True
    assert (found.status[touched][:, 1:] == Status.CONSTANT).all()
    assert np.isnan(found.value[touched][:, 1:]).all()
    assert found.singular[:, :, 1:].sum() == 2 * touched.sum()
    np.testing.assert_allclose(found.p[~touched], expected["p_matrix"][~touched], atol=1e-9)
    assert not found.links(1.0)[touched].any()


def test_a_duplicated_series_is_named_and_the_others_stand():
    x = draw("autocorrelated", 300, 4)
    double = np.column_stack([x, 3 * x[:, 3] + 5])
    found = ours(double, 2)
    touched = np.zeros((5, 5), bool)
    touched[[3, 4]], touched[:, [3, 4]] = True, True
    assert (found.status[touched][:, 1:] == Status.COLLINEAR).all()
    assert np.isnan(found.p[touched][:, 1:]).all()
    assert found.parents[3] == found.parents[4] == ()
    clear = ~touched & (found.status[:, :, 1] == Status.TESTED)
    assert clear.sum() == 9


def test_a_deterministic_target_has_one_cause_and_the_rest_is_named():
    x = draw("independent", 200, 3, seed=2)
    x[1:, 2] = x[:-1, 0]
    found = ours(x, 2)
    assert found.parents[2] == ((0, 1),)
    assert found.value[0, 2, 1] == pytest.approx(1.0, abs=1e-12)
    assert found.p[0, 2, 1] == 0.0
    # Given its one cause nothing of the target is left to test.
    assert (found.status[:, 2, 1:] == Status.COLLINEAR).sum() == 5
    assert (found.status[:2, :2, 1:] == Status.TESTED).all()


@pytest.mark.parametrize("rows", [0, 3, 4, 5, 6])
def test_too_few_rows_are_named(rows):
    found = ours(draw("independent", rows, 2), 2)
    assert (found.status[:, :, 1:] == Status.SHORT).all()
    assert np.isnan(found.value[:, :, 1:]).all()
    assert not found.links(1.0).any()


@pytest.mark.parametrize("apart", [1e-2, 1e-4])
def test_near_collinear_error_is_within_the_condition_number(apart):
    x = draw("linked", 300, 3)
    rng = np.random.default_rng(5)
    x = np.column_stack([x, x[:, 0] + apart * rng.standard_normal(300)])
    found, expected = ours(x, 2, alpha=0.9), reference(x, 2, alpha=0.9)
    assert not found.singular.any()
    # The correlation matrix has the square of the rows' condition number.
    bound = 1e3 * np.finfo(float).eps / apart**2
    np.testing.assert_allclose(found.value, expected["val_matrix"], rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_lag": 3}, "need moments up to lag 6"),
        ({"max_lag": 0}, "lags must be"),
        ({"min_lag": 3}, "lags must be"),
        ({"alpha": 1.5}, "alpha must be"),
        ({"alpha": []}, "alpha must be"),
        ({"max_combinations": 0}, "max_combinations must be at least 1"),
        ({"max_conds_py": -1}, "max_conds_py must be at least 0"),
        ({"family": "none"}, "family must be"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(options, says):
    moments = LaggedMoments.from_rows(draw("linked", 50, 2), 4)
    with pytest.raises(ValueError, match=says):
        pcmci(moments, **{"max_lag": 2, **options})
