"""HeavyHitters obeys the laws: to the last bit below its capacity, beyond it to its bounds."""

from functools import partial

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import HeavyHitters
from state.testing import laws

Chunk = tuple[pa.Array, np.ndarray | None]
DISTINCT = 12

chunks = st.lists(st.none() | st.integers(0, DISTINCT - 1), max_size=20).flatmap(
    lambda column: st.tuples(
        st.just(pa.array(column, pa.int64())),
        st.none()
        | st.lists(
            st.sampled_from([0, 1, 7, 2**33]), min_size=len(column), max_size=len(column)
        ).map(lambda w: np.array(w, np.int64)),
    )
)


def update(state: HeavyHitters, chunk: Chunk) -> None:
    state.add(*chunk)


def agree(a: HeavyHitters, b: HeavyHitters) -> bool:
    """Both state the same total, keep their stated error, and no intervals exclude each other."""
    everything = np.arange(DISTINCT)
    lower = np.maximum(a.lower_bound(everything), b.lower_bound(everything))
    upper = np.minimum(a.upper_bound(everything), b.upper_bound(everything))
    bounded = all(s.error * (s.capacity + 1) <= s.total for s in (a, b))
    return a.total == b.total and bounded and bool((lower <= upper).all())


TestExact = laws(empty=partial(HeavyHitters, capacity=DISTINCT), update=update, chunks=chunks)
TestBounded = laws(
    empty=partial(HeavyHitters, capacity=3), update=update, chunks=chunks, same=agree
)
