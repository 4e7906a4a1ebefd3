"""Histograms obey the laws to the last bit on any floats."""

import pyarrow as pa
from hypothesis import strategies as st

from state.sketches import Histogram
from state.testing import laws

edges = st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 2.3e-308, 1.7976931348623157e308, -1e-310])
chunks = st.lists(st.none() | st.floats() | edges, max_size=8).map(
    lambda values: pa.array(values, pa.float64())
)

TestHistogram = laws(empty=Histogram, update=Histogram.add, chunks=chunks)
TestFineHistogram = laws(
    empty=lambda: Histogram(relative_error=1e-5),
    update=Histogram.add,
    chunks=chunks,
    max_examples=20,
)
