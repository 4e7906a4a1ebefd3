import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from state.causal import benjamini_hochberg


@pytest.mark.parametrize("size", [1, 2, 50])
def test_equals_statsmodels(size):
    p = np.random.default_rng(size).random(size) ** 3
    p[: size // 3] = p[0]
    assert np.allclose(
        benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-14, atol=0
    )


def test_nan_is_not_a_test_and_the_shape_stays():
    p = np.array([[np.nan, 0.01, 0.04], [0.03, np.nan, 1.0]])
    q = benjamini_hochberg(p)
    assert (np.isnan(q) == np.isnan(p)).all()
    tested = ~np.isnan(p)
    assert np.allclose(q[tested], multipletests(p[tested], method="fdr_bh")[1])


def test_nothing_tested():
    assert benjamini_hochberg([]).shape == (0,)
    assert np.isnan(benjamini_hochberg([np.nan])).all()


@pytest.mark.parametrize("bad", [-0.1, 1.1])
def test_what_is_not_a_p_value(bad):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        benjamini_hochberg([0.5, bad])
