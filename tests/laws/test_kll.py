"""KLL obeys the laws within its rank error, and commutes to the last bit.

Small k and chunks of hundreds of rows make sure that levels are compacted.
"""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from state.sketches import Kll
from state.testing import laws

K = 64


def chunk(drawn: tuple[int, int, str]) -> pa.Array:
    rows, seed, shape = drawn
    rng = np.random.default_rng(seed)
    if shape == "few":
        values = rng.integers(0, 4, rows).astype(float)
    elif shape == "sorted":
        values = np.sort(rng.normal(size=rows))
    else:
        values = rng.standard_cauchy(rows)
    return pa.array([*values, None, float("nan"), float("-inf")][: rows + 3 * (seed % 2)])


chunks = st.tuples(
    st.sampled_from([0, 1, 7, 100, 700]),
    st.integers(0, 2**32),
    st.sampled_from(["few", "sorted", "heavy"]),
).map(chunk)


def same(a: Kll, b: Kll) -> bool:
    """Equal counts and ends, and ranks that agree within both errors at 1 - 1e-9."""
    if (a.count, a.nans) != (b.count, b.nans):
        return False
    if not a.count:
        return a.to_bytes() == b.to_bytes()
    if (a.minimum, a.maximum) != (b.minimum, b.maximum):
        return False
    q = np.linspace(0, 1, 41)
    at = np.concatenate([a.estimate(q), b.estimate(q)])
    allowed = a.rank_error(1 - 1e-9) + b.rank_error(1 - 1e-9) + 1e-12
    return bool((np.abs(a.rank(at) - b.rank(at)) <= allowed).all())


TestKll = laws(empty=lambda: Kll(k=K), update=Kll.add, chunks=chunks, same=same, max_examples=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(chunks, max_size=5), st.lists(chunks, max_size=5))
def test_merging_commutes_to_the_last_bit(xs: list[pa.Array], ys: list[pa.Array]) -> None:
    def build(parts: list[pa.Array]) -> Kll:
        sketch = Kll(k=K)
        for part in parts:
            sketch.add(part)
        return sketch

    left, right = build(xs), build(ys)
    left.merge(build(ys))
    right.merge(build(xs))
    assert left.to_bytes() == right.to_bytes()
