"""Polars tables as Arrow batches, and as canonical bytes: equal tables have equal ones.

Each column lies beside a 0/1 column that says where it is null: values under nulls and the padding
of bits are not defined in Arrow IPC, so there are none.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

_TEXT = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}


def record_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    """Return a table as one batch, its text and bytes of the usual types, not the large ones."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [f.with_type(_TEXT.get(f.type, f.type)) for f in table.schema]
    batches = table.cast(pa.schema(fields)).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=pa.schema(fields))


def table_bytes(table: pl.DataFrame) -> tuple[list[str], bytes]:
    """Return the names of a table's types, and its rows as bytes.

    >>> types, data = table_bytes(pl.DataFrame({"a": [1, None]}))
    >>> types, read_table("demo", data, ["a"], types).rows()
    (['Int64'], [(1,), (None,)])
    """
    return [str(dtype) for dtype in table.dtypes], _ipc(_without_nulls(table))


def read_table(kind: str, data: bytes, names: Sequence[str], types: Sequence[str]) -> pl.DataFrame:
    """Return the table that `table_bytes` wrote.

    Args:
        kind: what the bytes are of, for errors.
        data: the bytes.
        names: the columns that it must have.
        types: the names of their types.

    Raises:
        ValueError: the bytes are malformed, or of another table.
    """
    try:
        table = pa.ipc.open_stream(data).read_all()
        # Offsets that lie outside their buffers would crash whoever reads them.
        table.validate(full=True)
        stored = pl.DataFrame(table)
    except (pa.ArrowException, OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{kind}: {error}") from error
    if stored.columns != [column for name in names for column in (name, f"{name}?")]:
        raise ValueError(f"{kind}: the table has columns {stored.columns}, not {list(names)}")
    found = _with_nulls(stored, names, types)
    if [str(dtype) for dtype in found.dtypes] != list(types):
        raise ValueError(f"{kind}: the types of the table are not those of its header")
    return found


def _without_nulls(table: pl.DataFrame) -> pl.DataFrame:
    """Put each column beside a 0/1 column that says where it is null, and zeros there."""
    columns: list[pl.Expr] = []
    for name, dtype in table.schema.items():
        value = pl.col(name).fill_null(_zero(dtype))
        if dtype.is_float():
            value = pl.when(value != 0).then(value).otherwise(0.0)  # one zero, not two
        if dtype == pl.Boolean:
            value = value.cast(pl.UInt8)  # the padding of bits is not defined
        columns += [value.alias(name), pl.col(name).is_null().cast(pl.UInt8).alias(f"{name}?")]
    return table.select(columns)


def _with_nulls(stored: pl.DataFrame, names: Sequence[str], types: Sequence[str]) -> pl.DataFrame:
    columns = []
    for name, kind in zip(names, types, strict=True):
        value = pl.col(name) != 0 if kind == "Boolean" else pl.col(name)
        columns.append(pl.when(pl.col(f"{name}?") == 0).then(value).alias(name))
    return stored.select(columns)


def _zero(dtype: pl.DataType) -> Any:
    if dtype in (pl.String, pl.Binary):
        return pl.lit("").cast(dtype)
    return pl.lit(0).cast(dtype)


def _ipc(frame: pl.DataFrame) -> bytes:
    batch = record_batch(frame)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, batch.schema) as writer:
        writer.write_batch(batch)
    return out.getvalue()
