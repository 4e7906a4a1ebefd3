"""An add-wins set as columns."""

from __future__ import annotations

import enum
from typing import ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from state.mergeable import Algebra, seal, unseal
from state.murmur import compiled
from state.rows.key_index import KeyIndex
from state.rows.replicas import Replicas

S = TypeVar("S", bound=np.generic)
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_KIND = "or-rows"
_REPLICA = pa.dictionary(pa.int32(), pa.string())
_COUNTER_BITS = 40
_MOST_COUNTER = (1 << _COUNTER_BITS) - 1
_MOST_REPLICAS = 1 << (63 - _COUNTER_BITS)

# What a batch says of a dot that is in the state or came to it.
_NEW, _STAYS, _LEFT = np.uint8(1), np.uint8(2), np.uint8(4)


class Dots(enum.IntEnum):
    """What a row of `or_schema` says of its dot (replica, counter)."""

    THERE = 0
    """An addition of the element, which is in the set."""
    SEEN = 1
    """All dots of this replica up to this counter are known; `element` is null."""
    GONE = 2
    """This dot is known, and its element is not there by it (any more)."""


_THERE = np.uint8(Dots.THERE)


def or_schema(element: pa.DataType) -> pa.Schema:
    """Return the schema of the rows of a set whose elements are of type `element`.

    A batch is one delta or state: its `THERE` rows are its dots, and all its rows together are its
    causal context. `dots` are those of `Dots`.
    """
    return pa.schema(
        [
            pa.field("element", element),
            pa.field("replica", _REPLICA, nullable=False),
            pa.field("counter", pa.int64(), nullable=False),
            pa.field("dots", pa.uint8(), nullable=False),
        ]
    )


class OrRows:
    """A set in which a concurrent addition wins over a removal, as `state.crdt.ORSet` has it.

    An element is in the set as long as one of its dots is. A dot stays if both sides have it, or
    one has it and the other does not know it. Removed dots are forgotten: what is kept of them is
    the context, a version vector and what lies beyond its gaps. Batches may come in any order and
    any number of times.

    Args:
        element: Arrow type of the elements: signed integers, strings or binary.

    >>> rows, schema = OrRows(pa.string()), or_schema(pa.string())
    >>> def said(element, counter, dots):
    ...     row = {"element": element, "replica": "x", "counter": counter, "dots": dots}
    ...     return pa.RecordBatch.from_pylist([row], schema=schema)
    >>> rows.update(said("a", 1, Dots.THERE))
    >>> rows.update(said("b", 2, Dots.THERE))
    >>> rows.update(said("a", 1, Dots.GONE))
    >>> rows.elements().to_pylist(), rows.vector()
    (['b'], {'x': 2})
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, element: pa.DataType) -> None:
        self._elements = KeyIndex(element)
        self._replicas = Replicas()
        self._dots = KeyIndex(pa.int64())
        self._element: I64 = np.empty(0, np.int64)
        self._there: Flags = np.empty(0, np.bool_)
        self._vector: I64 = np.zeros(0, np.int64)
        self._beyond: I64 = np.empty(0, np.int64)  # rows of dots above the vector

    @property
    def element(self) -> pa.DataType:
        """The type of the elements."""
        return self._elements.kind

    def __len__(self) -> int:
        """Return how many dots are there; elements may have several."""
        return int(self._there.sum())

    def vector(self) -> dict[str, int]:
        """Return up to which counter all dots of each replica are known."""
        known = zip(self._replicas.names, self._vector.tolist(), strict=True)
        return {name: counter for name, counter in known if counter}

    def elements(self) -> pa.Array:
        """Return the elements of the set, each once."""
        return self._elements.keys(np.unique(self._element[self._there]))

    def update(self, batch: pa.RecordBatch) -> None:
        """Merge one delta or state as rows of `or_schema`."""
        self.fold(batch)

    def fold(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Merge a delta or a state and return the dots that came (`THERE`) and went (`GONE`).

        What is returned is a delta too.

        Raises:
            ValueError: a column is missing, of another type, or null where it may not be, or a dot
                is impossible; nothing has changed.
        """
        packed, said, elements = self._read(batch)
        self._vector = _longer(self._vector, len(self._replicas.names), 0)
        given = np.zeros(len(self._vector), np.int64)
        seen = said == Dots.SEEN
        if seen.any():
            np.maximum.at(given, packed[seen] >> _COUNTER_BITS, packed[seen] & _MOST_COUNTER)
            packed, said, elements = packed[~seen], said[~seen], elements[~seen]
        before = len(self._dots)
        rows = self._dots.rows(pa.array(packed))
        self._grow(len(self._dots))
        marks = np.zeros(len(self._dots), np.uint8)
        if given.any():
            _mark_covered(self._packed[:before], given, marks)
        _mark(rows, packed, said, elements, before, self._vector, self._element, marks)
        there = self._there[: len(marks)]
        came = (marks & _NEW) != 0
        went = (marks & (_LEFT | _STAYS) == _LEFT) & there
        there |= came
        there &= ~went
        self._vector = np.maximum(self._vector, given)
        self._advance(np.arange(before, len(self._dots)))
        changes = self._changes(np.flatnonzero(came), np.flatnonzero(went))
        self._compact()
        return changes

    def merge(self, other: Self) -> None:
        """Join another set's rows.

        Raises:
            ValueError: its elements are of another type.
        """
        if self.element != other.element:
            raise ValueError(f"{_KIND}: elements of {other.element} among those of {self.element}")
        self.fold(other.rows())

    def rows(self) -> pa.RecordBatch:
        """Return the whole set: its dots, and its causal context."""
        there = np.flatnonzero(self._there)
        gone = self._beyond[~self._there[self._beyond]]
        codes = np.flatnonzero(self._vector)
        dots, vector = self._packed, codes << _COUNTER_BITS | self._vector[codes]
        packed = np.concatenate([dots[there], vector, dots[gone]])
        elements = pa.concat_arrays(
            [
                self._elements.keys(self._element[there]),
                pa.nulls(len(codes) + len(gone), self.element),
            ]
        )
        kinds = np.repeat([Dots.THERE, Dots.SEEN, Dots.GONE], [len(there), len(codes), len(gone)])
        return self._batch(elements, packed, kinds)

    def to_bytes(self) -> bytes:
        """Return the rows in order, equal bytes for equal sets."""
        rows = self.rows()
        found = Replicas(sorted(set(rows.column("replica").to_pylist())))
        replica = found.column(found.codes(rows.column("replica").dictionary_decode()))
        rows = rows.set_column(1, rows.schema.field(1), replica)
        keys = pa.table({"d": rows.column("dots"), "r": replica.indices, "c": rows.column(2)})
        order = keys.append_column("i", pa.array(np.arange(rows.num_rows))).sort_by(
            [("d", "ascending"), ("r", "ascending"), ("c", "ascending")]
        )
        rows = rows.take(order.column("i").combine_chunks())
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_batch(rows)
        return seal(_KIND, 1, sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the set that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged, or hold other columns.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            with pa.ipc.open_stream(payload) as reader:
                table = reader.read_all()
            table.validate(full=True)
            state = cls(table.schema.field("element").type)
            if table.schema != or_schema(state.element):
                raise ValueError(f"{_KIND}: other columns")
            for batch in table.combine_chunks().to_batches():
                state.fold(batch)
        except (pa.ArrowException, KeyError, TypeError, OSError) as error:
            raise ValueError(f"{_KIND}: {error}") from error
        return state

    def _read(self, batch: pa.RecordBatch) -> tuple[I64, npt.NDArray[np.uint8], I64]:
        """Return the dots as one number each, what is said of them, and the elements' numbers."""
        try:
            counter, dots, element = (batch.column(n) for n in ("counter", "dots", "element"))
            if counter.type != pa.int64() or counter.null_count:
                raise ValueError(f"{_KIND}: 'counter' must be int64 without nulls")
            if dots.type != pa.uint8() or dots.null_count:
                raise ValueError(f"{_KIND}: 'dots' must be uint8 without nulls")
            if element.type != self.element:
                raise ValueError(f"{_KIND}: 'element' must be {self.element}")
            counters, said = counter.to_numpy(), dots.to_numpy()
            if len(counters) and not (counters.min() >= 1 and counters.max() <= _MOST_COUNTER):
                raise ValueError(f"{_KIND}: a counter is not in 1 to 2**{_COUNTER_BITS} - 1")
            if len(said) and said.max() > Dots.GONE:
                raise ValueError(f"{_KIND}: 'dots' is not one of 0, 1, 2")
            there = said == Dots.THERE
            valid = element.is_valid().to_numpy(zero_copy_only=False)
            if not valid[there].all():
                raise ValueError(f"{_KIND}: a dot is there without its element")
            codes = self._replicas.codes(batch.column("replica"))
            if len(self._replicas.names) > _MOST_REPLICAS:
                raise ValueError(f"{_KIND}: more than {_MOST_REPLICAS} replicas")
            numbers = np.full(len(element), -1, np.int64)
            named = element if there.all() else element.filter(pa.array(there))
            numbers[there] = self._elements.rows(named)
        except (KeyError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"{_KIND}: {error}") from None
        return codes << _COUNTER_BITS | counters, said, numbers

    @property
    def _packed(self) -> I64:
        """The dot of each row."""
        packed: I64 = self._dots.keys().to_numpy()
        return packed

    def _grow(self, count: int) -> None:
        if count > len(self._element):
            size = max(count, 2 * len(self._element), 1024)
            self._element = _longer(self._element, size, -1)
            self._there = _longer(self._there, size, 0)

    def _advance(self, fresh: I64) -> None:
        """Let the vector take in the dots that follow it without a gap."""
        rows, packed = np.concatenate([self._beyond, fresh]), self._packed
        # Dots mostly come in order; what is left over then goes once more, sorted.
        for _ in range(2):
            left = np.empty(len(rows), np.int64)
            count = _take_in(packed[rows], self._vector, left)
            rows = rows[left[:count]]
            rows = rows[np.argsort(packed[rows])]
        self._beyond = rows

    def _changes(self, came: I64, went: I64) -> pa.RecordBatch:
        rows = np.concatenate([came, went])
        kinds = np.repeat([Dots.THERE, Dots.GONE], [len(came), len(went)])
        return self._batch(self._elements.keys(self._element[rows]), self._packed[rows], kinds)

    def _batch(self, elements: pa.Array, packed: I64, kinds: I64) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [
                elements,
                self._replicas.column(packed >> _COUNTER_BITS),
                pa.array(packed & _MOST_COUNTER),
                pa.array(kinds.astype(np.uint8)),
            ],
            schema=or_schema(self.element),
        )

    def _compact(self) -> None:
        """Forget dots that are gone and below the vector, when they are most of all."""
        count = len(self._dots)
        needed = self._there[:count].copy()
        needed[self._beyond] = True
        if count <= 2 * int(needed.sum()) + 1024:
            return
        kept = np.flatnonzero(needed)
        beyond = np.zeros(count, np.bool_)
        beyond[self._beyond] = True
        elements = self._element[kept]
        used = np.unique(elements[elements >= 0])
        names = KeyIndex(self.element)
        renamed = np.full(len(self._elements) + 1, -1, np.int64)
        renamed[used] = names.rows(self._elements.keys(used))
        self._elements = names
        dots = KeyIndex(pa.int64())
        dots.rows(pa.array(self._packed[kept]))
        self._dots, self._there = dots, self._there[kept]
        self._element = renamed[elements]
        self._beyond = np.flatnonzero(beyond[kept])


def _longer(array: npt.NDArray[S], size: int, fill: int) -> npt.NDArray[S]:
    if size <= len(array):
        return array
    made = np.full(size, fill, array.dtype)
    made[: len(array)] = array
    return made


@compiled
def _mark_covered(packed: I64, given: I64, marks: npt.NDArray[np.uint8]) -> None:
    """Mark dots that the sender knows."""
    for row in range(packed.size):
        if packed[row] & _MOST_COUNTER <= given[packed[row] >> _COUNTER_BITS]:
            marks[row] |= _LEFT


@compiled
def _mark(
    rows: I64,
    packed: I64,
    said: npt.NDArray[np.uint8],
    elements: I64,
    before: int,
    vector: I64,
    own_elements: I64,
    marks: npt.NDArray[np.uint8],
) -> None:
    """Mark what a batch says of its dots; what a dot stands for is noted once."""
    for i in range(rows.size):
        row = rows[i]
        if said[i] != _THERE:
            marks[row] |= _LEFT
            continue
        marks[row] |= _STAYS
        if row >= before:
            own_elements[row] = elements[i]
            if packed[i] & _MOST_COUNTER > vector[packed[i] >> _COUNTER_BITS]:
                marks[row] |= _NEW


@compiled
def _take_in(packed: I64, vector: I64, left: I64) -> int:
    """Advance the vector over dots that follow it; return how many are left beyond it."""
    count = 0
    for i in range(packed.size):
        code = packed[i] >> _COUNTER_BITS
        counter = packed[i] & _MOST_COUNTER
        if counter == vector[code] + 1:
            vector[code] = counter
        elif counter > vector[code]:
            left[count] = i
            count += 1
    return count
