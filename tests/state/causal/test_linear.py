"""Against statsmodels, on rows that are random, fat-tailed, differently scaled and short."""

import itertools

import numpy as np
import pytest
from statsmodels.tsa.api import VAR
from statsmodels.tsa.stattools import grangercausalitytests

from state.causal import SingularSystemError, granger
from state.moments import LaggedMoments
from state.sliding_moments import SlidingMoments


def draw(kind, rows=250, series=3):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, series))
    if kind == "fat-tailed":
        x = rng.standard_t(2.5, (rows, series))
    for t in range(1, rows):
        x[t] += 0.4 * x[t - 1] + 0.3 * np.roll(x[t - 1], 1)
    if kind == "scaled":
        x = x * np.array([1e-3, 1.0, 1e3]) + np.array([1.0, 50.0, -1e4])
    if kind == "prices":
        x = np.cumsum(x, axis=0) + 1e3
    return x


INPUTS = [
    ("random", 250, 3),
    ("fat-tailed", 250, 3),
    ("scaled", 250, 3),
    ("prices", 400, 3),
    ("random", 3 * 3 + 6, 3),
]


def pairs(count):
    return itertools.permutations(range(count), 2)


@pytest.mark.parametrize(("kind", "rows", "lags"), INPUTS)
def test_pairwise_equals_statsmodels(kind, rows, lags):
    x = draw(kind, rows)
    result = granger(LaggedMoments.from_rows(x, lags), lags)
    for i, j in pairs(3):
        f, p, df_den, df_num = grangercausalitytests(x[:, [j, i]], [lags])[lags][0]["ssr_ftest"]
        assert result.f[i, j] == pytest.approx(f, rel=1e-9)
        assert result.p[i, j] == pytest.approx(p, rel=1e-9, abs=1e-300)
        assert (result.df_num[i, j], result.df_den[i, j]) == (df_num, df_den)
    assert np.isnan(np.diagonal(result.f)).all()
    assert np.isnan(np.diagonal(result.p)).all()
    assert not result.singular.any()


@pytest.mark.parametrize(("kind", "rows", "lags"), INPUTS)
def test_conditional_equals_the_wald_test_of_statsmodels(kind, rows, lags):
    x = draw(kind, rows)
    result = granger(LaggedMoments.from_rows(x, lags), lags, conditional=True)
    # With an intercept the test is the same; on raw prices statsmodels itself loses digits.
    model = VAR(x - x.mean(axis=0)).fit(lags, trend="c")
    for i, j in pairs(3):
        wald = model.test_causality(j, i, kind="wald").test_statistic
        assert result.f[i, j] == pytest.approx(wald / lags, rel=1e-9)
        assert result.df_den[i, j] == model.df_resid
    assert not result.singular.any()


@pytest.mark.parametrize("conditional", [False, True])
def test_units_do_not_matter(conditional):
    x = draw("random")
    plain = granger(LaggedMoments.from_rows(x, 2), 2, conditional=conditional)
    scaled = LaggedMoments.from_rows(x * [1e-9, 1.0, 1e9] + [1e-8, 1e6, 0.0], 2)
    assert np.allclose(
        granger(scaled, 2, conditional=conditional).f, plain.f, rtol=1e-8, equal_nan=True
    )


def test_moments_with_more_lags_use_the_rows_of_fewer():
    x = draw("random")
    few, many = LaggedMoments.from_rows(x, 2), LaggedMoments.from_rows(x, 6)
    assert np.allclose(granger(few, 2).f, granger(many, 2).f, rtol=1e-10, equal_nan=True)
    assert granger(many, 2).n == 248


def test_gaps_equal_a_fit_on_the_complete_rows():
    x = draw("random")
    x[[50, 51, 120]] = np.nan
    result = granger(LaggedMoments.from_rows(x, 1), 1)
    z = np.hstack([x[1:], x[:-1]])
    z = z[~np.isnan(z).any(axis=1)]
    for i, j in pairs(3):
        own = np.column_stack([np.ones(len(z)), z[:, 3 + j]])
        ssr = [
            np.linalg.lstsq(design, z[:, j], rcond=None)[1][0]
            for design in (own, np.column_stack([own, z[:, 3 + i]]))
        ]
        expected = (ssr[0] - ssr[1]) / (ssr[1] / (len(z) - 3))
        assert result.f[i, j] == pytest.approx(expected, rel=1e-9)


def test_a_sliding_window_is_tested_as_its_rows_are():
    x = draw("prices", 300)
    sliding = SlidingMoments(3, 2, 100)
    for row in x:
        sliding.push(row)
    fresh = granger(LaggedMoments.from_rows(x[-100:], 2), 2)
    assert np.allclose(granger(sliding, 2).f, fresh.f, rtol=1e-8, equal_nan=True)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("distance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_near_collinear_error_is_what_the_condition_explains(distance, conditional):
    x = draw("random")
    x[:, 2] = x[:, 1] + distance * np.random.default_rng(1).standard_normal(len(x))
    result = granger(LaggedMoments.from_rows(x, 2), 2, conditional=conditional)
    assert not result.singular.any()
    for i, j in pairs(3):
        chosen = [j, i, *({0, 1, 2} - {i, j} if conditional else ())]
        f, condition = by_qr(x[:, chosen], 2)
        assert abs(result.f[i, j] / f - 1) <= 100 * np.finfo(float).eps * condition**2
        # What the result says of itself bounds the true condition of the Gram matrix from below.
        assert result.condition[i, j] <= condition**2 * 1.001
        assert result.condition[i, j] >= 0.01 / distance**2 or {i, j} != {1, 2}


def by_qr(x, lags):
    """F of the second column in the fit of the first, by QR on the rows; condition of the rows."""
    now = x[lags:, 0] - x[lags:, 0].mean()
    past = np.concatenate([x[lags - k : len(x) - k] for k in range(1, lags + 1)], axis=1)
    past = past - past.mean(axis=0)
    past /= np.linalg.norm(past, axis=0)
    width = x.shape[1]
    without = np.delete(past, np.arange(1, past.shape[1], width), axis=1)
    ssr = []
    for design in (without, past):
        q, _ = np.linalg.qr(design)
        rest = now - q @ (q.T @ now)
        ssr.append(rest @ rest)
    f = (ssr[0] - ssr[1]) / lags / (ssr[1] / (len(now) - past.shape[1] - 1))
    return f, np.linalg.cond(past)


def test_copies_are_singular_where_they_meet():
    x = draw("random")
    x = np.column_stack([x, 3.0 * x[:, 0] + 5.0])
    result = granger(LaggedMoments.from_rows(x, 2), 2)
    expected = np.zeros((4, 4), dtype=bool)
    expected[0, 3] = expected[3, 0] = True
    assert (result.singular == expected).all()
    assert (np.isnan(result.f) == (expected | np.eye(4, dtype=bool))).all()
    assert np.isinf(result.condition[0, 3])
    given_all = granger(LaggedMoments.from_rows(x, 2), 2, conditional=True)
    assert (given_all.singular == ~np.eye(4, dtype=bool)).all()
    assert np.isnan(given_all.f).all()


def test_a_constant_series_has_no_links_and_hides_none():
    x = draw("random")
    with_constant = np.insert(x, 1, 0.1, axis=1)
    kept = np.ix_([0, 2, 3], [0, 2, 3])
    for conditional in (False, True):
        plain = granger(LaggedMoments.from_rows(x, 2), 2, conditional=conditional)
        result = granger(LaggedMoments.from_rows(with_constant, 2), 2, conditional=conditional)
        assert np.allclose(result.f[kept], plain.f, rtol=1e-10, equal_nan=True)
        assert (result.df_den[kept] == plain.df_den).all()
        assert result.singular[1, [0, 2, 3]].all()
        assert result.singular[[0, 2, 3], 1].all()
        assert not result.singular[kept].any()


def test_an_effect_that_its_cause_determines_is_singular():
    x = draw("random")
    x[1:, 1] = x[:-1, 0]
    for conditional in (False, True):
        result = granger(LaggedMoments.from_rows(x, 1), 1, conditional=conditional)
        assert result.singular[0, 1]
        assert np.isnan(result.f[0, 1])


def test_too_few_rows_and_bad_arguments():
    moments = LaggedMoments.from_rows(draw("random", 7), 2)
    with pytest.raises(SingularSystemError, match="5 complete rows of lags are too few"):
        granger(moments, 2)
    with pytest.raises(SingularSystemError, match="0 complete rows"):
        granger(LaggedMoments(3, 2), 2, conditional=True)
    for lags in (0, 3):
        with pytest.raises(ValueError, match="lags must be from 1 to 2"):
            granger(moments, lags)
