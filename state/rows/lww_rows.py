"""A last-writer-wins map as columns."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from state.mergeable import Algebra, seal, unseal
from state.murmur import compiled
from state.rows.key_index import KeyIndex
from state.rows.replicas import Replicas

I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_KIND = "lww-rows"
_REPLICA = pa.dictionary(pa.int32(), pa.string())


def lww_schema(key: pa.DataType) -> pa.Schema:
    """Return the schema of the rows of a map whose keys are of type `key`.

    `value` holds a plain value as `state.crdt.values.encode` writes it; null is a deletion.
    `wall_ms`, `counter` and `replica` are the stamp of the write.
    """
    return pa.schema(
        [
            pa.field("key", key, nullable=False),
            pa.field("value", pa.large_binary()),
            pa.field("wall_ms", pa.int64(), nullable=False),
            pa.field("counter", pa.int64(), nullable=False),
            pa.field("replica", _REPLICA, nullable=False),
        ]
    )


class LwwRows:
    """The newest write of each key, as `state.crdt.LWWMap` has it.

    Of two writes of a key the one with the greater stamp stays: wall clock, then counter, then
    replica id; of equal stamps a write beats a deletion, and of two writes the one with the greater
    SHA-256 of its value stays. Rows may come in any order and any number of times.

    Args:
        key: Arrow type of the keys: signed integers, strings or binary.

    >>> rows = LwwRows(pa.string())
    >>> batch = pa.RecordBatch.from_pylist(
    ...     [
    ...         {"key": "a", "value": b"1", "wall_ms": 5, "counter": 0, "replica": "x"},
    ...         {"key": "a", "value": None, "wall_ms": 4, "counter": 9, "replica": "x"},
    ...     ],
    ...     schema=lww_schema(pa.string()),
    ... )
    >>> rows.fold(batch).num_rows, rows.fold(batch).num_rows
    (1, 0)
    >>> rows.rows().column("value").to_pylist()
    [b'1']
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, key: pa.DataType) -> None:
        self._index = KeyIndex(key)
        self._replicas = Replicas()
        self._wall = self._counter = self._code = self._at = np.empty(0, np.int64)
        self._values: list[pa.Array] = []
        self._written = 0

    @property
    def key(self) -> pa.DataType:
        """The type of the keys."""
        return self._index.kind

    def __len__(self) -> int:
        return len(self._index)

    def update(self, batch: pa.RecordBatch) -> None:
        """Merge rows of `lww_schema`."""
        self.fold(batch)

    def fold(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Merge rows and return those that are new here, the newest of each key, in their order.

        Raises:
            ValueError: a column is missing, of another type, or null where it may not be, or a
                clock is negative; nothing has changed.
        """
        wall, counter, codes, values = self._read(batch)
        rows = self._index.rows(batch.column("key"))
        count = len(self._index)
        self._grow(count)
        # For each row of the state, the row of the batch that it is now, or -1.
        taken = np.full(count, -1, np.int64)
        ties = np.empty(len(rows), np.int64)
        tied = _write(
            rows,
            wall,
            counter,
            codes,
            self._replicas.ranks(),
            self._wall,
            self._counter,
            self._code,
            taken,
            ties,
        )
        ties = ties[:tied]
        at = rows[ties]
        # A newer write may have come after the tie.
        still = (self._wall[at] == wall[ties]) & (self._counter[at] == counter[ties])
        ties = ties[still & (self._code[at] == codes[ties])]
        for i in self._unequal(ties, rows, values, taken).tolist():
            self._settle(int(rows[i]), i, values, taken)
        positions = np.empty(len(rows), np.int64)
        news = _place(rows, taken, self._at, self._written, positions)
        chosen = pa.array(positions[:news])
        values = values.take(chosen)
        if news:
            self._values.append(values)
            self._written += news
            self._compact()
        columns = {"value": values} if batch.column("value").type == values.type else {}
        return pa.RecordBatch.from_arrays(
            [
                columns[name] if name in columns else column.take(chosen)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ],
            schema=batch.schema,
        )

    def merge(self, other: Self) -> None:
        """Join another map's rows.

        Raises:
            ValueError: its keys are of another type.
        """
        if self.key != other.key:
            raise ValueError(f"{_KIND}: keys of {other.key} among those of {self.key}")
        self.fold(other.rows())

    def rows(self) -> pa.RecordBatch:
        """Return all rows, deletions too, in the order in which their keys came."""
        return pa.RecordBatch.from_arrays(
            [
                self._index.keys(),
                self._all_values().take(pa.array(self._at[: len(self)])),
                pa.array(self._wall[: len(self)].copy()),
                pa.array(self._counter[: len(self)].copy()),
                self._replicas.column(self._code[: len(self)]),
            ],
            schema=lww_schema(self.key),
        )

    def to_bytes(self) -> bytes:
        """Return the rows by key, equal bytes for equal maps."""
        rows = self.rows()
        names = sorted(self._replicas.names)
        found = Replicas(names)
        replica = found.column(found.codes(rows.column("replica")))
        rows = rows.set_column(4, rows.schema.field(4), replica).sort_by("key")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        return seal(_KIND, 1, sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the map that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged, or hold other columns, or a key twice.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            with pa.ipc.open_stream(payload) as reader:
                table = reader.read_all()
            table.validate(full=True)
            state = cls(table.schema.field("key").type)
            if table.schema != lww_schema(state.key):
                raise ValueError(f"{_KIND}: other columns")
            for batch in table.to_batches():
                if state.fold(batch).num_rows != batch.num_rows:
                    raise ValueError(f"{_KIND}: a key comes twice")
        except (pa.ArrowException, KeyError, TypeError, OSError) as error:
            raise ValueError(f"{_KIND}: {error}") from error
        return state

    def _read(self, batch: pa.RecordBatch) -> tuple[I64, I64, I64, pa.Array]:
        numbers = []
        try:
            for name in ("wall_ms", "counter"):
                column = batch.column(name)
                if column.type != pa.int64() or column.null_count:
                    raise ValueError(f"{_KIND}: {name!r} must be int64 without nulls")
                numbers.append(column.to_numpy())
                if len(column) and numbers[-1].min() < 0:
                    raise ValueError(f"{_KIND}: {name!r} is negative")
            values = batch.column("value")
            if values.type != pa.large_binary():
                values = values.cast(pa.large_binary())
            key = batch.column("key")
            if key.type != self.key or key.null_count:
                raise ValueError(f"{_KIND}: 'key' must be {self.key} without nulls")
            codes = self._replicas.codes(batch.column("replica"))
        except (KeyError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"{_KIND}: {error}") from None
        return numbers[0], numbers[1], codes, values

    def _grow(self, count: int) -> None:
        if count > len(self._wall):
            size = max(count, 2 * len(self._wall), 1024)
            for name in ("_wall", "_counter", "_code", "_at"):
                old = getattr(self, name)
                # What was not written yet loses against any stamp.
                made = np.full(size, -1, np.int64)
                made[: len(old)] = old
                setattr(self, name, made)

    def _unequal(self, ties: I64, rows: I64, values: pa.Array, taken: I64) -> I64:
        """Return those ties in which another value is there: a row that comes again is none."""
        if not len(ties):
            return ties
        now = taken[rows[ties]]
        own = self._all_values().take(pa.array(self._at[rows[ties]], mask=now >= 0))
        new = values.take(pa.array(now, mask=now < 0))
        there = pc.if_else(pa.array(now >= 0), new, own)
        come = values.take(pa.array(ties))
        same = pc.fill_null(pc.equal(there, come), False)
        both = pc.and_(pc.is_null(there), pc.is_null(come))
        equal: Flags = pc.or_(same, both).to_numpy(zero_copy_only=False)
        return ties[~equal]

    def _settle(self, row: int, i: int, values: pa.Array, taken: I64) -> None:
        """Choose between two writes of one stamp: the row's own, or what it has become."""
        now = taken[row]
        mine = values[int(now)] if now >= 0 else self._value(int(self._at[row]))
        if _order(values[i]) > _order(mine):
            taken[row] = i

    def _value(self, at: int) -> pa.Scalar:
        for values in self._values:
            if at < len(values):
                return values[at]
            at -= len(values)
        raise IndexError(at)

    def _all_values(self) -> pa.Array:
        if len(self._values) != 1:
            self._values = [pa.concat_arrays([pa.nulls(0, pa.large_binary()), *self._values])]
        return self._values[0]

    def _compact(self) -> None:
        """Forget values that have been overwritten, when they are half of all."""
        if self._written > 2 * len(self) + 1024:
            self._values = [self._all_values().take(pa.array(self._at[: len(self)]))]
            self._at[: len(self)] = np.arange(len(self))
            self._written = len(self)


def _order(value: pa.Scalar) -> tuple[bool, bytes]:
    found = value.as_py()
    return found is not None, b"" if found is None else hashlib.sha256(found).digest()


@compiled
def _write(
    rows: I64,
    wall: I64,
    counter: I64,
    codes: I64,
    ranks: I64,
    own_wall: I64,
    own_counter: I64,
    own_code: I64,
    taken: I64,
    ties: I64,
) -> int:
    """Let newer stamps replace older ones; note rows whose stamp is the one that is there."""
    tied = 0
    for i in range(rows.size):
        row = rows[i]
        # Not by their difference: a clock may be anything up to 2^63 - 1.
        if wall[i] != own_wall[row]:
            newer = 1 if wall[i] > own_wall[row] else -1
        elif counter[i] != own_counter[row]:
            newer = 1 if counter[i] > own_counter[row] else -1
        else:
            newer = ranks[codes[i]] - ranks[own_code[row]]
        if newer > 0:
            own_wall[row] = wall[i]
            own_counter[row] = counter[i]
            own_code[row] = codes[i]
            taken[row] = i
        elif newer == 0:
            ties[tied] = i
            tied += 1
    return tied


@compiled
def _place(rows: I64, taken: I64, at: I64, written: int, positions: I64) -> int:
    """Write which rows of the batch are the state's now, and where their values will be."""
    count = 0
    for i in range(rows.size):
        if taken[rows[i]] == i:
            at[rows[i]] = written + count
            positions[count] = i
            count += 1
    return count
