"""CountMin obeys the laws to the last bit, with and without weights."""

from functools import partial

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import CountMin
from state.testing import laws

Chunk = tuple[pa.Array, np.ndarray | None]

values = st.lists(st.none() | st.integers(0, 9), max_size=6).map(
    lambda v: pa.array(v, pa.int64())
) | st.lists(st.text(max_size=20), max_size=6).map(lambda v: pa.array(v, pa.string()))
weights = st.sampled_from([0, 1, 300, 70_000, 2**33])
chunks = values.flatmap(
    lambda column: st.tuples(
        st.just(column),
        st.none()
        | st.lists(weights, min_size=len(column), max_size=len(column)).map(
            lambda w: np.array(w, np.int64)
        ),
    )
)


def update(state: CountMin, chunk: Chunk) -> None:
    state.add(*chunk)


TestNarrow = laws(empty=partial(CountMin, rows=2, buckets=5), update=update, chunks=chunks)
TestWide = laws(empty=CountMin, update=update, chunks=chunks, max_examples=30)
