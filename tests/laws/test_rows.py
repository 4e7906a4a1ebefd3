import pyarrow as pa
from hypothesis import strategies as st

from state.rows import LwwRows, OrRows, lww_schema, or_schema
from state.testing import laws

# One value for each stamp and key, as honest replicas write them, and some of equal stamps.
writes = st.lists(
    st.tuples(
        st.sampled_from("wxyz"),
        st.sampled_from([None, b"\x01", b"\x02"]),
        st.integers(0, 3),
        st.integers(0, 1),
        st.sampled_from("ab"),
    ),
    max_size=12,
).map(
    lambda rows: pa.RecordBatch.from_pylist(
        [
            dict(zip(("key", "value", "wall_ms", "counter", "replica"), row, strict=True))
            for row in rows
        ],
        schema=lww_schema(pa.string()),
    )
)

TestLwwRows = laws(empty=lambda: LwwRows(pa.string()), update=LwwRows.update, chunks=writes)

# Each dot stands for one element: which one follows from its number.
dots = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 8), st.sampled_from([0, 1, 2])),
    max_size=8,
    unique_by=lambda row: row[:2],
).map(
    lambda rows: pa.RecordBatch.from_pylist(
        [
            {
                "element": "wxyz"[counter % 4] if kind == 0 else None,
                "replica": replica,
                "counter": counter,
                "dots": kind,
            }
            for replica, counter, kind in rows
        ],
        schema=or_schema(pa.string()),
    )
)

TestOrRows = laws(empty=lambda: OrRows(pa.string()), update=OrRows.update, chunks=dots)
