import numpy as np
from hypothesis import strategies as st

from state.moments import LaggedMoments
from state.testing import laws

SERIES, LAGS = 2, 2

VALUES = st.floats(-4.0, 4.0).map(lambda v: round(v, 3)) | st.just(float("nan"))
BASE = np.array([1e9, 1e-3])
SCALE = np.array([1.0, 1e-6])
CHUNKS = st.lists(st.tuples(VALUES, VALUES), max_size=5).map(
    lambda rows: np.array(rows, dtype=np.float64).reshape(-1, SERIES) * SCALE + BASE
)


def same(a, b):
    """Equal counts, and scatters within 1e-9 of each series' own spread."""
    if (a.rows, a.gaps) != (b.rows, b.gaps):
        return False
    for lags in range(LAGS + 1):
        x, y = a.scatter(lags), b.scatter(lags)
        if x.n != y.n:
            return False
        # 1e-3 is the step of the values drawn; what varies less does so by rounding.
        spread = np.sqrt(np.maximum(np.diagonal(y.matrix), (1e-3 * np.tile(SCALE, lags + 1)) ** 2))
        if not np.allclose(x.matrix / np.outer(spread, spread), y.matrix / np.outer(spread, spread),
                           rtol=0, atol=1e-9):  # fmt: skip
            return False
        if not np.allclose(x.mean, y.mean, rtol=1e-12, atol=0, equal_nan=True):
            return False
    return True


TestLaggedMoments = laws(
    empty=lambda: LaggedMoments(SERIES, LAGS),
    update=LaggedMoments.append,
    chunks=CHUNKS,
    same=same,
    max_examples=40,
)
