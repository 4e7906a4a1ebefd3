"""Exact moments obey the laws to the last bit on any floats, and integers of any size."""

import math

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import Moments
from state.testing import laws

floats = st.lists(st.none() | st.floats(), max_size=6).map(lambda v: pa.array(v, pa.float64()))
integers = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=6).map(
    lambda v: pa.array(v, pa.int64())
)
unsigned = st.lists(st.integers(0, 2**64 - 1), max_size=6).map(lambda v: np.array(v, np.uint64))

TestExactMoments = laws(empty=Moments, update=Moments.add, chunks=floats | integers | unsigned)


def test_both_zeros_and_all_nans_are_one() -> None:
    nans = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], dtype=np.uint64)
    states = []
    for values in ([0.0, -0.0, math.nan], [-0.0, -0.0, nans.view(np.float64)[1]]):
        state = Moments()
        state.add(np.array(values))
        states.append(state.to_bytes())
    assert states[0] == states[1]
