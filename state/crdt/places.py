"""What can be at a place in a store of dots: a set, values, the latest value, a count, a map.

The types at the root (`ORSet`, `MVRegister`, `ORMap`) and what is nested in an `ORMap` share these
classes: the root's place is the empty path. Each mutator changes the owner in place and returns a
delta of the owner's class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

from state.crdt.clock import Stamp, check_stamp
from state.crdt.dots import DotStore, Path
from state.crdt.lww import wins
from state.crdt.values import decode, decode_key, encode, encode_key

Owner = TypeVar("Owner")


class Place(Generic[Owner]):
    """A path in an owner's store."""

    leaf: ClassVar[bytes]
    _store: DotStore
    _prefix: Path

    def _edit(self, delta: DotStore) -> Owner:
        raise NotImplementedError

    def _clear(self) -> Owner:
        return self._edit(self._store.without(self._store.under(self._prefix)))


class SetPlace(Place[Owner]):
    """A set that an element is in as long as one of the additions of it is not removed."""

    leaf = b"or-set"

    @property
    def value(self) -> set[Any]:
        """The elements; of those that Python holds equal, like 1 and True, one: see `elements`."""
        return set(self.elements())

    def elements(self) -> Iterator[Any]:
        """Yield the elements in the order of their encodings; 1, 1.0 and True are three."""
        return map(decode_key, self._store.children(self._prefix))

    def __len__(self) -> int:
        return self._store.count(self._prefix)

    def __contains__(self, element: Any) -> bool:
        return self._store.has((*self._prefix, encode_key(element)))

    def add(self, element: Any, replica: str) -> Owner:
        """Add `element` and return the delta; it replaces the additions known here.

        Raises:
            ValueError: `element` is no hashable plain value, or `replica` no id.
        """
        path = (*self._prefix, encode_key(element))
        known = [dot for dot, _ in self._store.at(path)]
        return self._edit(self._store.write(path, b"", replica, known))

    def remove(self, element: Any) -> Owner:
        """Remove the additions of `element` that are known here and return the delta.

        Additions that are not known here stay: concurrent additions win. An element that is not
        in gives an empty delta.

        Raises:
            ValueError: `element` is no hashable plain value.
        """
        path = (*self._prefix, encode_key(element))
        return self._edit(self._store.without([dot for dot, _ in self._store.at(path)]))

    def clear(self) -> Owner:
        """Remove all elements that are known here and return the delta."""
        return self._clear()


class ValuesPlace(Place[Owner]):
    """A register that keeps all values of concurrent assignments."""

    leaf = b"mv-register"

    @property
    def value(self) -> list[Any]:
        """The values that no known assignment replaced, each once, in encoding order."""
        return [decode(data) for data in sorted({data for _, data in self._store.at(self._prefix)})]

    def assign(self, value: Any, replica: str) -> Owner:
        """Replace all values that are known here and return the delta.

        Raises:
            ValueError: `value` is no plain value, or `replica` no id.
        """
        known = [dot for dot, _ in self._store.at(self._prefix)]
        return self._edit(self._store.write(self._prefix, encode(value), replica, known))

    def clear(self) -> Owner:
        """Remove the values that are known here and return the delta."""
        return self._clear()


class LatestPlace(Place[Owner]):
    """A register that shows the concurrent assignment with the last stamp.

    An assignment replaces all that are known here even where their stamps are later.
    """

    leaf = b"lww-register"

    @property
    def value(self) -> Any:
        """The value, or None where there is none."""
        row = self._row()
        return None if row is None or row[1] is None else decode(row[1])

    @property
    def stamp(self) -> Stamp | None:
        """When the value was written."""
        row = self._row()
        return row[0] if row else None

    def assign(self, value: Any, stamp: Stamp) -> Owner:
        """Replace what is known here and return the delta; the stamp's replica writes it.

        Raises:
            ValueError: `value` is no plain value, or `stamp` malformed.
        """
        stamp = check_stamp(stamp)
        known = [dot for dot, _ in self._store.at(self._prefix)]
        payload = encode([stamp, encode(value)])
        return self._edit(self._store.write(self._prefix, payload, stamp.replica, known))

    def _row(self) -> tuple[Stamp, bytes | None] | None:
        best = None
        for _, payload in self._store.at(self._prefix):
            stamp, value = decode(payload)
            row = (check_stamp(stamp), value)
            best = row if wins(row, best) else best
        return best


class CountPlace(Place[Owner]):
    """A counter with one row for each replica, which its next count replaces.

    Removing it removes the rows that are known where it is removed. A replica that counts
    concurrently keeps its *whole* row, not only what it added meanwhile; the other replicas' rows
    go. This is what bounds a counter to one entry for each replica.
    """

    leaf = b"pn-counter"

    @property
    def value(self) -> int:
        """The sum of all rows."""
        return sum(decode(payload) for _, payload in self._store.at(self._prefix))

    def increment(self, replica: str, by: int = 1) -> Owner:
        """Count up and return the delta.

        Raises:
            ValueError: `by` is negative or no int.
        """
        return self._count(replica, by, 1)

    def decrement(self, replica: str, by: int = 1) -> Owner:
        """Count down and return the delta.

        Raises:
            ValueError: `by` is negative or no int.
        """
        return self._count(replica, by, -1)

    def _count(self, replica: str, by: int, sign: int) -> Owner:
        if type(by) is not int or by < 0:
            raise ValueError(f"pn-counter: counts by an int from 0, not {by!r}")
        own = [(dot, row) for dot, row in self._store.at(self._prefix) if dot[0] == replica]
        total = sum(decode(row) for _, row in own) + sign * by
        over = [dot for dot, _ in own]
        return self._edit(self._store.write(self._prefix, encode(total), replica, over))


def check_payload(leaf: bytes, payload: bytes) -> None:
    """Check what an entry of a kind of leaf holds.

    Raises:
        ValueError: it cannot be written by this kind.
    """
    if leaf == SetPlace.leaf:
        if payload:
            raise ValueError("or-set: an element with a payload")
        return
    value = decode(payload)
    if leaf == CountPlace.leaf and type(value) is not int:
        raise ValueError("pn-counter: a row that is no int")
    if leaf == LatestPlace.leaf:
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], bytes):
            raise ValueError("lww-register: a row that is no stamp and value")
        check_stamp(value[0])
        decode(value[1])
