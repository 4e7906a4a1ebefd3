"""Rows of any columns in one plain form, so that rows of different batches fit together."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from state.arrow_ipc import WRITTEN_OUT, has_dictionary, read_stream, refusal

_VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


def plain_rows(batch: pa.RecordBatch, columns: Sequence[str] | None) -> pa.RecordBatch:
    """Return the named columns (None: all) as plain arrays, without metadata.

    Dictionaries are decoded, views of text or binary are copied, and all columns are nullable.

    Raises:
        KeyError: a column is missing.
        ValueError: a column is of a type that is not sent (see :func:`state.arrow_ipc.refusal`).
    """
    if columns is not None:
        missing = sorted(set(columns).difference(batch.schema.names))
        if missing:
            raise KeyError(f"no column {', '.join(missing)} in the batch")
        batch = batch.select(columns)
    fields, plain = [], []
    for part, column in zip(batch.schema, batch.columns, strict=True):
        if part.type.id not in WRITTEN_OUT:
            column = _plain(part, column)
        plain.append(column)
        fields.append(pa.field(part.name, column.type))
    return pa.RecordBatch.from_arrays(plain, schema=pa.schema(fields))


def _plain(part: pa.Field, column: pa.Array) -> pa.Array:
    reason = refusal(part.type)
    if reason:
        raise ValueError(f"column {part.name!r}: {reason}")
    if pa.types.is_dictionary(part.type):
        return column.dictionary_decode()
    if part.type in _VIEWS:
        # Views of a few values keep the text of all values of their batch.
        return column.cast(_VIEWS[part.type])
    if has_dictionary(part.type):
        raise ValueError(f"column {part.name!r}: dictionaries within {part.type}")
    return column


def check_same_columns(rows: pa.RecordBatch, others: pa.RecordBatch) -> None:
    """Raise ValueError if two batches of plain rows differ in names or types of columns."""
    if not rows.schema.equals(others.schema):
        raise ValueError(
            f"rows of {_brief(rows.schema)} do not fit rows of {_brief(others.schema)}"
        )


def rows_bytes(rows: pa.RecordBatch) -> bytes:
    """Return plain rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def read_rows(data: bytes, columns: Sequence[str] | None) -> pa.RecordBatch:
    """Return the rows that :func:`rows_bytes` wrote, fully validated.

    Raises:
        ValueError: the bytes are damaged, or the columns are not plain or not those named.
    """
    rows = read_stream(data)
    if columns is not None and rows.schema.names != list(columns):
        raise ValueError(f"rows with columns {rows.schema.names}, not {list(columns)}")
    if rows.schema.metadata or any(
        has_dictionary(part.type) or part.type in _VIEWS or part.metadata or not part.nullable
        for part in rows.schema
    ):
        raise ValueError(f"rows that are not plain: {rows.schema}")
    return rows


def _brief(schema: pa.Schema) -> str:
    return "{" + ", ".join(f"{part.name}: {part.type}" for part in schema) + "}"
