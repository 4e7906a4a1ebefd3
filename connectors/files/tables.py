"""What a result table is, apart from the format of its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

Position = tuple[int, int]
"""How much of a table is in its file: (rows, bytes); bytes are 0 where rows suffice."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The schema of a result table, and the order of rows in its finished file.

    Args:
        schema: Column names and types; its metadata go into Parquet files.
        sort_by: Columns to sort by, ascending, nulls last. Rows equal in all of them keep the
            order in which they came, so only a key that tells all rows apart makes a file that
            does not depend on the number of workers. None keeps the order of arrival.
            Sorting happens in memory, at the end. It loses the order of arrival, which a restart
            may need as long as recovery data exist, so a sorted table leaves its rows as they
            came beside it, in `<name>.spool`: remove that together with the recovery data.
        newest: Whether each batch is the whole table, in the place of the rows before it. The file
            is replaced at one stroke. Only NDJSON tables can be such.

    Raises:
        ValueError: a sort column is not in the schema, or has no order, or only the newest rows
            are to be sorted.

    >>> TableSpec(pa.schema({"a": pa.int64()}), sort_by="b")
    Traceback (most recent call last):
    ValueError: cannot sort by 'b': the columns are ['a']
    """

    schema: pa.Schema
    sort_by: str | Sequence[str] | None = None
    newest: bool = False

    def __post_init__(self) -> None:
        if self.newest and self.sort_by:
            raise ValueError(f"a table of the newest rows is not sorted by {self.sort_by!r}")
        for name in self.sort_columns:
            if name not in self.schema.names:
                raise ValueError(f"cannot sort by {name!r}: the columns are {self.schema.names}")
            if pa.types.is_nested(self.schema.field(name).type):
                raise ValueError(f"cannot sort by {name!r}: {self.schema.field(name).type}")

    @property
    def sort_columns(self) -> list[str]:
        """The columns to sort by."""
        if isinstance(self.sort_by, str):
            return [self.sort_by]
        return list(self.sort_by or ())

    def order(self, keys: pa.Table) -> pa.Array:
        """Return the indices that sort rows with these keys; the sort is stable."""
        # The index is a key too, so that stability needs no promise of the sort's.
        numbered = keys.append_column("", pa.array(range(keys.num_rows), pa.int64()))
        return pc.sort_indices(numbered, [(name, "ascending") for name in numbered.column_names])

    def conform(self, batch: pa.RecordBatch, path: Path) -> pa.RecordBatch:
        """Return the batch under the table's own schema.

        Raises:
            ValueError: a column is missing, unknown, of another type, or has a null where the
                schema has none; the message names file and column.
        """
        if not isinstance(batch, pa.RecordBatch):
            raise ValueError(f"{path}: a {type(batch).__name__} came instead of a RecordBatch")
        if batch.schema.names != self.schema.names:
            raise ValueError(
                f"{path}: columns {batch.schema.names} came instead of {self.schema.names}"
            )
        for field, column in zip(self.schema, batch.columns, strict=True):
            if column.type != field.type:
                raise ValueError(
                    f"{path}: column {field.name!r} came as {column.type}, not {field.type}"
                )
            if column.null_count and not field.nullable:
                raise ValueError(f"{path}: column {field.name!r} has a null")
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


class TableWriter(Protocol):
    """One table on its way into one file."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            ValueError: the batch has another schema.
            OSError: the file cannot be written; the error names it.
        """

    def snapshot(self) -> Position:
        """Return the position after the last row, when everything before it is on the disk."""

    def finish(self) -> None:
        """Make the finished file; more rows may follow, and then this is called again."""

    def close(self) -> None:
        """Let go of the open file, finished or not."""
