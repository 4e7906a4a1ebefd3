"""A product of exact states obeys the laws to the last bit."""

import pyarrow as pa
from hypothesis import strategies as st

from state.product import Product
from state.sketches import Histogram, Moments
from state.testing import laws

rows = st.tuples(st.none() | st.floats(), st.none() | st.integers(-(2**40), 2**40))
batches = st.lists(rows, max_size=6).map(
    lambda chunk: pa.record_batch(
        {
            "x": pa.array([x for x, _ in chunk], pa.float64()),
            "n": pa.array([n for _, n in chunk], pa.int64()),
        }
    )
)

TestProduct = laws(
    empty=lambda: Product({"n": Moments("n"), "x": Moments("x"), "spread": Histogram("x")}),
    update=Product.update,
    chunks=batches,
    max_examples=40,
)
