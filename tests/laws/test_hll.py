"""Hll obeys the laws to the last bit on any column, on coupons and on registers."""

from functools import partial

import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import Hll
from state.testing import laws

columns = (
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=12).map(pa.array)
    | st.lists(st.none() | st.floats(), max_size=6).map(lambda v: pa.array(v, pa.float64()))
    | st.lists(st.none() | st.text(max_size=20), max_size=6).map(lambda v: pa.array(v, pa.string()))
)

# At lg_k 4 eight distinct values are registers; at 12 these columns stay coupons.
TestRegisters = laws(empty=partial(Hll, lg_k=4), update=Hll.add, chunks=columns)
TestCoupons = laws(empty=Hll, update=Hll.add, chunks=columns, max_examples=30)
