import itertools

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS

from state.causal import SingularSystemError, granger_robust


def draw(rows=200, series=3):
    """Fat tails, and a variance that follows the size of the last value."""
    rng = np.random.default_rng(9)
    x = rng.standard_t(4, (rows, series))
    for t in range(1, rows):
        x[t] *= np.sqrt(0.5 + 0.4 * x[t - 1] ** 2)
        x[t] += 0.2 * np.roll(x[t - 1], 1)
    return x * np.array([1.0, 1e3, 1e-3])[:series]


def expected(x, lags, cause, effect, others, kind):
    columns = [(s, k) for s in others for k in range(1, lags + 1)]
    z = np.column_stack([x[lags:, effect], *(x[lags - k : len(x) - k, s] for s, k in columns)])
    whole = ~np.isnan(np.column_stack([x[lags - k : len(x) - k] for k in range(lags + 1)])).any(1)
    z = z[whole]
    design = np.column_stack([np.ones(len(z)), z[:, 1:]])
    select = np.array([[0.0, *(c == (cause, k) for c in columns)] for k in range(1, lags + 1)])
    fit = OLS(z[:, 0], design).fit(cov_type=kind)
    return fit.wald_test(select, use_f=True, scalar=True)


@pytest.mark.parametrize("kind", ["HC0", "HC1", "HC3"])
@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("gaps", [False, True])
def test_equals_the_wald_test_of_statsmodels(kind, conditional, gaps):
    x = draw()
    if gaps:
        x[[30, 31, 100], [0, 1, 2]] = np.nan
    result = granger_robust(x, 2, conditional=conditional, kind=kind)
    for i, j in itertools.permutations(range(3), 2):
        test = expected(x, 2, i, j, range(3) if conditional else (i, j), kind)
        assert result.f[i, j] == pytest.approx(test.statistic, rel=1e-9)
        assert result.p[i, j] == pytest.approx(test.pvalue, rel=1e-8)
        assert (result.df_num[i, j], result.df_den[i, j]) == (test.df_num, test.df_denom)
    assert np.isnan(np.diagonal(result.f)).all()


def test_short_rows():
    x = draw(14)
    result = granger_robust(x, 2)
    assert result.f[0, 1] == pytest.approx(expected(x, 2, 0, 1, range(3), "HC3").statistic)


def test_changing_variance_does_not_look_like_a_link():
    """Two series that share only their volatility: the plain test rejects too often."""
    from state.causal import granger
    from state.moments import LaggedMoments

    rng = np.random.default_rng(17)
    plain, robust = [], []
    for _ in range(150):
        scale = np.exp(np.repeat(rng.standard_normal(20) * 1.2, 15))
        x = rng.standard_normal((300, 2))
        x[1:, 1] *= np.abs(x[:-1, 0])
        x *= scale[:, None]
        plain.append(granger(LaggedMoments.from_rows(x, 1), 1).p[0, 1] < 0.05)
        robust.append(granger_robust(x, 1).p[0, 1] < 0.05)
    assert np.mean(plain) > 0.2
    assert np.mean(robust) < 0.08


def test_singular_systems_are_named():
    x = draw()
    copies = np.column_stack([x, 2.0 * x[:, 0] - 1.0])
    assert granger_robust(copies, 1).singular.sum() == 12
    apart = granger_robust(copies, 1, conditional=False)
    assert np.argwhere(apart.singular).tolist() == [[0, 3], [3, 0]]

    constant = np.insert(x, 1, 0.1, axis=1)
    result = granger_robust(constant, 1)
    kept = np.ix_([0, 2, 3], [0, 2, 3])
    assert np.allclose(result.f[kept], granger_robust(x, 1).f, equal_nan=True)
    assert result.singular.sum() == 6

    determined = x.copy()
    determined[1:, 1] = determined[:-1, 0]
    result = granger_robust(determined, 1)
    assert result.singular[:, 1].tolist() == [True, False, True]


def test_a_row_that_alone_determines_a_coefficient_is_singular_under_hc3():
    x = draw(100, 2)
    x[:, 0] = 0.0
    x[50, 0] = 1.0
    assert granger_robust(x, 1).singular[0, 1]


@pytest.mark.parametrize("rows", range(5))
def test_too_few_rows(rows):
    with pytest.raises(SingularSystemError):
        granger_robust(draw(5)[:rows], 3)


def test_bad_arguments():
    x = draw()
    for bad in (
        lambda: granger_robust(x[:, 0], 1),
        lambda: granger_robust(x, 0),
        lambda: granger_robust(x, 1, kind="HC2"),
        lambda: granger_robust(np.where(x > 3, np.inf, x), 1),
    ):
        with pytest.raises(ValueError):
            bad()
