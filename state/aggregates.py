"""Keyed aggregates in columns: one table instead of one object per key.

Rows of a batch are folded at once: over dense codes (:mod:`state.dense_groups`) where keys and
values allow it, else grouped with Polars. The table holds mergeable parts
(:mod:`state.aggregations`), so that merging two tables is stacking them and grouping again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from state.aggregations import Aggregation
from state.dense_groups import DenseGroups
from state.mergeable import Algebra, seal, unseal
from state.panes import I64
from state.polars_bytes import read_table, record_batch, table_bytes

_KIND = "aggregates"
_PANE = "pane."
_FEW = 10_000


class Aggregates:
    """Aggregates of rows, grouped by key columns: a commutative monoid.

    *Duplicate* rows count twice; *late* rows count like any other; null is a key of its own.
    *Empty* states are the identity, whatever types they will see. All rows must have the same
    column types. Integer, minimum, maximum, first and last parts are exact; sums of floats are
    independent of batching and merging up to rounding.

    >>> from state.aggregations import Count, Mean
    >>> trades = Aggregates("series", {"trades": Count(), "vwap": Mean("price", weight="size")})
    >>> trades.update(pa.record_batch(
    ...     {"series": ["A", "B", "A"], "price": [10.0, 5.0, 13.0], "size": [2.0, 1.0, 1.0]}))
    >>> trades.table().to_pylist()
    [{'series': 'A', 'trades': 2, 'vwap': 11.0}, {'series': 'B', 'trades': 1, 'vwap': 5.0}]

    Args:
        by: the key column or columns; dictionary-encoded ones become text.
        values: the aggregation behind each name of the result.

    Raises:
        ValueError: two columns of the result or of the parts would have the same name.
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    def __init__(self, by: str | Sequence[str], values: Mapping[str, Aggregation]) -> None:
        self.by = (by,) if isinstance(by, str) else tuple(by)
        self.values = dict(values)
        if not self.by:
            raise ValueError("aggregates need at least one key column")
        names = [*self.by, *self.values, *self._parts()]
        if len(set(names)) != len(names):
            raise ValueError(f"aggregates: two columns have one name among {names}")
        self._inputs = sorted({*self.by, *(i for v in self.values.values() for i in v.inputs())})
        self._fold = [
            expr.alias(f"{name}.{part}")
            for name, value in self.values.items()
            for part, expr in value.fold().items()
        ]
        self._join = [
            expr.alias(f"{name}.{part}")
            for name, value in self.values.items()
            for part, expr in value.join(name).items()
        ]
        self._table: pl.DataFrame | None = None

    def __len__(self) -> int:
        return 0 if self._table is None else len(self._table)

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold rows in.

        Raises:
            KeyError: a column is missing.
            ValueError: a column has another type than before.
        """
        self._update(_selected(batch, self._inputs))

    def merge(self, other: Self) -> None:
        """Join the groups of `other`.

        Raises:
            ValueError: keys, aggregations or column types differ.
        """
        if (self.by, self.values) != (other.by, other.values):
            raise ValueError("aggregates of different keys or values do not merge")
        if other._table is not None:
            self._take(other._table)

    def table(self) -> pa.RecordBatch:
        """Return keys and values, one row per group, sorted by key.

        Without rows the result has no columns, because their types are not known yet.
        """
        return record_batch(self._read() if self._table is not None else pl.DataFrame())

    def panes(self) -> AggregatePanes:
        """Return empty panes that hold the groups of all panes in one table."""
        return AggregatePanes(self)

    def to_bytes(self) -> bytes:
        """Return canonical bytes: the parts sorted by key as Arrow IPC, behind a header.

        Values under nulls and padding are zeroed: equal states have equal bytes.
        """
        header = _Header(self.by, self.values, None)
        body = b""
        if self._table is not None:
            header.types, body = table_bytes(self._sorted())
        head = msgspec.msgpack.encode(header)
        return seal(_KIND, 1, len(head).to_bytes(4, "little") + head + body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are malformed, or the table is not one of such aggregates.
        """
        _, payload = unseal(_KIND, data, versions={1})
        size = int.from_bytes(payload[:4], "little")
        try:
            header = msgspec.msgpack.decode(payload[4 : 4 + size], type=_Header)
            state = cls(header.by, header.values)
            if header.types is None:
                if len(payload) != 4 + size:
                    raise ValueError("a table without types")
                return state
        except msgspec.MsgspecError as error:
            raise ValueError(f"{_KIND}: {error}") from error
        names = [*state.by, *state._parts()]
        table = read_table(_KIND, payload[4 + size :], names, header.types)
        keys = table.select(state.by)
        if not len(table) or keys.is_duplicated().any() or not keys.equals(keys.sort(state.by)):
            raise ValueError(f"{_KIND}: the table is empty, or its keys are not sorted and unique")
        state._table = table
        return state

    def _parts(self) -> Iterable[str]:
        for name, value in self.values.items():
            yield from (f"{name}.{part}" for part in value.fold())

    def _update(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            parts = self._fold_dense(batch)
            self._take(self._fold_any(batch) if parts is None else parts)

    def _fold_dense(self, batch: pa.RecordBatch) -> pl.DataFrame | None:
        """Return the parts of rows, or None where keys or values are not for dense groups."""
        groups = DenseGroups.of(batch, self.by)
        if groups is None:
            return None
        columns = groups.keys()
        # As Polars: what is too large for a float is infinite, without a word.
        with np.errstate(over="ignore", invalid="ignore"):
            for name, value in self.values.items():
                parts = value.dense(groups)
                if parts is None:
                    return None
                columns.update((f"{name}.{part}", column) for part, column in parts.items())
        return pl.DataFrame(pa.table(columns))

    def _fold_any(self, batch: pa.RecordBatch) -> pl.DataFrame:
        """Return the parts of any rows."""
        frame = pl.DataFrame(batch)
        frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
        return _group(frame, self.by, self._fold)

    def _take(self, parts: pl.DataFrame) -> None:
        if self._table is None:
            self._table = parts
            return
        if self._table.schema != parts.schema:
            raise ValueError(
                f"aggregates have columns {dict(self._table.schema)}, got {dict(parts.schema)}"
            )
        self._table = self._joined(self._table, parts)

    def _joined(self, a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
        return _group(pl.concat([a, b]), self.by, self._join)

    def _sorted(self) -> pl.DataFrame:
        assert self._table is not None
        return self._table.sort(self.by)

    def _read(self) -> pl.DataFrame:
        read = [value.read(name).alias(name) for name, value in self.values.items()]
        return self._sorted().select(*map(pl.col, self.by), *read)


class AggregatePanes:
    """Panes of aggregates in one table: the pane number is the first key."""

    def __init__(self, like: Aggregates) -> None:
        self._like = like
        self._all = _ByPane((_PANE, *like.by), like.values)
        self._inputs = like._inputs

    def update(self, batch: pa.RecordBatch, panes: I64) -> None:
        """Fold each row of `batch` into its pane."""
        rows = _selected(batch, self._inputs)
        self._all._update(rows.append_column(_PANE, pa.array(panes)))

    def numbers(self) -> I64:
        """Return the numbers of the panes that hold rows, ascending."""
        if self._all._table is None:
            return np.empty(0, np.int64)
        panes = _panes(self._all._table)
        first: I64 = panes[np.diff(panes, prepend=panes[0] - 1) != 0]
        return first

    def states(self, numbers: I64) -> list[Aggregates]:
        """Return the states of these panes, which are there."""
        if self._all._table is None or not len(numbers):
            return []
        wanted = _between(self._all._table, int(numbers[0]), int(numbers[-1]) + 1)
        groups = wanted.partition_by(_PANE, as_dict=True, include_key=False)
        out = []
        for pane in numbers.tolist():
            state = Aggregates(self._like.by, self._like.values)
            state._table = groups[(pane,)]
            out.append(state)
        return out

    def table(self, before: int) -> pa.RecordBatch:
        """Return pane, keys and values of the panes with smaller numbers, sorted.

        The first column is the number of the pane. Without rows there are no columns.
        """
        closed = _ByPane(self._all.by, self._all.values)
        if self._all._table is not None:
            closed._table = _between(self._all._table, None, before)
        return closed.table() if len(closed) else record_batch(pl.DataFrame())

    def discard(self, before: int) -> None:
        """Forget all panes with smaller numbers."""
        if self._all._table is not None:
            left = _between(self._all._table, before, None)
            self._all._table = left if len(left) else None

    def to_bytes(self) -> bytes:
        """Return all panes as the bytes of `Aggregates` with the pane as a key."""
        return self._all.to_bytes()

    def load(self, data: bytes) -> None:
        """Replace the content by what `to_bytes` returned.

        Raises:
            ValueError: `data` is malformed, or of other aggregates.
        """
        loaded = _ByPane.from_bytes(data)
        if (loaded.by, loaded.values) != (self._all.by, self._all.values):
            raise ValueError(f"{_KIND}: the panes were saved by other aggregates")
        self._all = loaded


class _ByPane(Aggregates):
    """Aggregates whose table stays sorted by its keys, the pane first.

    What comes in touches few of the open panes and mostly opens new ones, so that a merge groups
    the panes that both sides have and puts the others before and behind.
    """

    def _fold_any(self, batch: pa.RecordBatch) -> pl.DataFrame:
        return super()._fold_any(batch).sort(self.by)

    def _joined(self, a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
        if _panes(b)[0] < _panes(a)[0]:
            a, b = b, a
        low = int(_panes(b)[0])
        high = max(low, min(int(_panes(a)[-1]), int(_panes(b)[-1])) + 1)
        pieces = [_between(a, None, low)]
        if low < high:
            both = super()._joined(_between(a, low, high), _between(b, low, high))
            pieces.append(both.sort(self.by))
        pieces += [_between(piece, high, None) for piece in (a, b)]
        # In one piece, slices do not keep alive what they were cut from.
        return pl.concat(pieces, rechunk=True)

    def _sorted(self) -> pl.DataFrame:
        assert self._table is not None
        return self._table


def _panes(table: pl.DataFrame) -> I64:
    return table[_PANE].to_numpy()


def _between(table: pl.DataFrame, low: int | None, high: int | None) -> pl.DataFrame:
    """Cut the panes in [low, high) out of a table in the order of panes, without copying."""
    panes = _panes(table)
    start = 0 if low is None else int(np.searchsorted(panes, low))
    end = len(panes) if high is None else int(np.searchsorted(panes, high))
    return table.slice(start, end - start)


class _Header(msgspec.Struct, array_like=True):
    by: tuple[str, ...]
    values: dict[str, Aggregation]
    types: list[str] | None


def _group(frame: pl.DataFrame, by: Sequence[str], parts: Sequence[pl.Expr]) -> pl.DataFrame:
    """Group by several keys as if they were one integer: many rows by a pair cost three times."""
    code = _code(frame, by) if len(by) > 1 and len(frame) > _FEW else None
    if code is None:
        return frame.group_by(by).agg(parts)
    keys = [pl.col(name).first() for name in by]
    return frame.with_columns(code).group_by(code.name).agg(*keys, *parts).drop(code.name)


def _code(frame: pl.DataFrame, by: Sequence[str]) -> pl.Series | None:
    """Return one integer per row, equal where all keys are, or None where there is none."""
    code, size = pl.Series("code.", [0], pl.Int64), 1
    for name in by:
        key = frame[name]
        if key.dtype == pl.String:
            # Categories of its own: the global ones would remember every key for ever.
            key = key.cast(pl.Categorical(pl.Categories.random())).to_physical()
        if not key.dtype.is_integer() or key.dtype == pl.UInt64 or key.null_count():
            return None
        key = key.cast(pl.Int64)
        low, high = int(key.min()), int(key.max())  # type: ignore[arg-type]
        size *= high - low + 1
        if size >= 2**62:
            return None
        code = code * (high - low + 1) + (key - low)
    return code.alias("code.")


def _selected(batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    for name in columns:
        if name not in batch.schema.names:
            raise KeyError(f"aggregates need a column {name!r}, the batch has {batch.schema.names}")
    return batch.select(columns)
