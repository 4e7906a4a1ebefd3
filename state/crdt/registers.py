"""Registers: one value, of which concurrent assignments leave the last, or all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from state.crdt.causal_state import CausalState
from state.crdt.clock import Stamp, check_stamp
from state.crdt.dots import Entry, Path
from state.crdt.lww import Row, wins
from state.crdt.places import ValuesPlace, check_payload
from state.crdt.replica_state import ReplicaState, fields
from state.crdt.values import decode, encode


class LWWRegister(ReplicaState):
    """A value whose last assignment by stamp stays; equal stamps go by the digest of the value.

    >>> ann, bob = LWWRegister(), LWWRegister()
    >>> ann.merge(bob.assign("old", Stamp(1, 0, "bob")))
    >>> ann.assign("new", Stamp(2, 0, "ann")), ann.stamp
    (LWWRegister('new'), Stamp(wall_ms=2, counter=0, replica='ann'))
    """

    kind = "lww-register"

    def __init__(self) -> None:
        self._row: Row | None = None

    @property
    def value(self) -> Any:
        """The value, a fresh copy; None before the first assignment."""
        return decode(self._row[1]) if self._row and self._row[1] is not None else None

    @property
    def stamp(self) -> Stamp | None:
        """When it was last assigned, for `HybridClock.tick(after=...)`."""
        return self._row[0] if self._row else None

    def assign(self, value: Any, stamp: Stamp) -> Self:
        """Assign and return the delta; it has no effect where a later assignment is known.

        Raises:
            ValueError: `value` is no plain value, or `stamp` malformed.
        """
        delta = type(self)()
        delta._row = (check_stamp(stamp), encode(value))
        return self._commit(delta)

    def _join(self, other: Self) -> None:
        if other._row is not None and wins(other._row, self._row):
            self._row = other._row

    def _touched(self, other: Self) -> Iterable[Any]:
        return [()]

    def _look(self, key: Any) -> Any:
        return self.value

    def _path(self, key: Any) -> tuple[Any, ...]:
        return ()

    def _to_plain(self) -> Any:
        return None if self._row is None else [self._row[0], self._row[1]]

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        state = cls()
        if plain is not None:
            stamp, value = fields(cls.kind, plain, 2)
            if not isinstance(value, bytes):
                raise ValueError("lww-register: a value that is not bytes")
            decode(value)
            state._row = (check_stamp(stamp), value)
        return state


class MVRegister(CausalState, ValuesPlace["MVRegister"]):
    """A value that an assignment replaces where it is known; concurrent ones are all kept.

    >>> ann, bob = MVRegister(), MVRegister()
    >>> ann.merge(bob.assign("b", "bob")) or ann.value
    ['b']
    >>> one, other = ann.assign("x", "ann"), bob.assign("y", "bob")
    >>> ann.merge(other), ann.value, ann.assign("z", "ann").value
    (None, ['x', 'y'], ['z'])
    """

    kind = "mv-register"

    def _look(self, key: Path) -> list[Any] | None:
        return self.value or None

    def _path(self, key: Path) -> tuple[Any, ...]:
        return ()

    @classmethod
    def _check_entry(cls, entry: Entry) -> None:
        if entry[0]:
            raise ValueError("mv-register: an entry with a path")
        check_payload(cls.leaf, entry[1])
