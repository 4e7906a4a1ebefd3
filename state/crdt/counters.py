"""Counters: each replica owns one row of totals, and merging takes the larger of two rows.

Rows travel, never increments, so duplicates count once. Source: Shapiro, Preguiça, Baquero,
Zawirski, "A comprehensive study of convergent and commutative replicated data types", 2011.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self

from state.crdt.causal import VersionVector, check_replica
from state.crdt.replica_state import ReplicaState, fields

Row = tuple[int, ...]


class _Rows(ReplicaState):
    """Totals by replica, and sums of the rows of incarnations that will not come back."""

    width: ClassVar[int]

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._folded: dict[str, tuple[int, Row]] = {}  # name -> last incarnation, sums

    @property
    def value(self) -> int:
        """The count."""
        totals = [row for _, row in self._folded.values()]
        totals += self._rows.values()
        return sum(row[0] for row in totals) - sum(sum(row[1:]) for row in totals)

    @property
    def version(self) -> VersionVector:
        """The sum of each replica's row: how much it has counted, whatever the sign."""
        return VersionVector({name: sum(row) for name, row in self._rows.items()})

    def delta_since(self, version: VersionVector) -> Self:
        """Return what a replica lacks whose `version` is given: the rows that have grown."""
        delta = type(self)()
        delta._rows = {n: row for n, row in self._rows.items() if sum(row) > version[n]}
        delta._folded = dict(self._folded)
        return delta

    def compact(self, stable: VersionVector) -> None:
        """Fold the rows of retired incarnations into one row for each name.

        `stable` has the final `version` of each retired id made by `replica_id(name, n)`. The
        caller guarantees that these ids never count again. Replicas may fold at different times,
        or not at all: merging a state that has folded with one that has not counts once. Of a
        name all incarnations up to the last folded must be in `stable`, or folding stops before
        the first that is not. Other ids stay as they are.

        Raises:
            ValueError: `stable` is ahead of what is known here, or behind it.
        """
        names: dict[str, list[tuple[int, str]]] = {}
        for replica in self._rows:
            name, incarnation = _incarnation(replica)
            if name:
                names.setdefault(name, []).append((incarnation, replica))
        for replica, final in stable.items():
            folded = _is_folded(self._folded, replica)
            if not folded and sum(self._rows.get(replica, ())) != final:
                raise ValueError(f"{self.kind}: {final} is not the final version of {replica!r}")
        for name, found in names.items():
            for incarnation, replica in sorted(found):
                if not stable[replica]:
                    break
                before = self._folded.get(name, (0, (0,) * self.width))[1]
                row = self._rows.pop(replica)
                sums = tuple(map(sum, zip(before, row, strict=True)))
                self._folded[name] = (incarnation, sums)

    def _count(self, replica: str, column: int, by: int) -> Self:
        check_replica(replica)
        if type(by) is not int or by < 0:
            raise ValueError(f"{self.kind}: counts by an int from 0, not {by!r}")
        if _is_folded(self._folded, replica):
            raise ValueError(f"{self.kind}: {replica!r} is retired; count under a new id")
        delta = type(self)()
        if by:
            row = list(self._rows.get(replica, (0,) * self.width))
            row[column] += by
            delta._rows[replica] = tuple(row)
        return self._commit(delta)

    def _join(self, other: Self) -> None:
        grown = False
        for name, folded in other._folded.items():
            if folded > self._folded.get(name, (-1, ())):
                self._folded[name] = folded
                grown = True
        if grown:
            self._rows = {n: r for n, r in self._rows.items() if not _is_folded(self._folded, n)}
        for replica, row in other._rows.items():
            if not _is_folded(self._folded, replica):
                mine = self._rows.get(replica)
                self._rows[replica] = row if mine is None else tuple(map(max, mine, row))

    def _touched(self, other: Self) -> Iterable[Any]:
        return [()]

    def _look(self, key: Any) -> Any:
        return self.value

    def _path(self, key: Any) -> tuple[Any, ...]:
        return ()

    def _to_plain(self) -> Any:
        folded = {name: [last, *sums] for name, (last, sums) in self._folded.items()}
        return [{name: list(row) for name, row in self._rows.items()}, folded]

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        state = cls()
        for table in fields(cls.kind, plain, 2):
            if not isinstance(table, dict):
                raise ValueError(f"{cls.kind}: the rows are not a dict")
        for name, row in plain[1].items():
            last, *sums = cls._numbers(row, cls.width + 1)
            state._folded[check_replica(name)] = (last, tuple(sums))
        for replica, row in plain[0].items():
            if _is_folded(state._folded, check_replica(replica)):
                raise ValueError(f"{cls.kind}: a row of {replica!r}, which is folded")
            state._rows[replica] = tuple(cls._numbers(row, cls.width))
            if not any(row):
                raise ValueError(f"{cls.kind}: a row of zeros")
        return state

    @classmethod
    def _numbers(cls, row: Any, n: int) -> list[int]:
        for number in fields(cls.kind, row, n):
            if type(number) is not int or number < 0:
                raise ValueError(f"{cls.kind}: a count must be an int from 0")
        return list(row)


def _incarnation(replica: str) -> tuple[str, int]:
    """Return the name and number in an id of `replica_id`, or ("", 0)."""
    name, _, number = replica.rpartition("#")
    plain = number.isascii() and number.isdigit() and len(number) < 20
    return (name, int(number)) if plain and str(int(number)) == number else ("", 0)


def _is_folded(folded: dict[str, tuple[int, Row]], replica: str) -> bool:
    if not folded:
        return False
    name, incarnation = _incarnation(replica)
    return name in folded and incarnation <= folded[name][0]


class GCounter(_Rows):
    """A count that only grows.

    >>> ann, bob = GCounter(), GCounter()
    >>> delta = ann.increment("ann#1", 2)
    >>> bob.increment("bob#1")
    GCounter(1)
    >>> bob.merge(delta), bob.merge(delta), bob.value
    (None, None, 3)
    """

    kind = "g-counter"
    width = 1

    def increment(self, replica: str, by: int = 1) -> Self:
        """Count up and return the delta: the row of `replica`.

        Raises:
            ValueError: `by` is negative or no int, or `replica` is retired.
        """
        return self._count(replica, 0, by)


class PNCounter(_Rows):
    """A count that goes up and down.

    >>> stock = PNCounter()
    >>> stock.increment("ann#1", 5), stock.decrement("ann#1", 7)
    (PNCounter(5), PNCounter(-2))
    """

    kind = "pn-counter"
    width = 2

    def increment(self, replica: str, by: int = 1) -> Self:
        """Count up and return the delta: the row of `replica`.

        Raises:
            ValueError: `by` is negative or no int, or `replica` is retired.
        """
        return self._count(replica, 0, by)

    def decrement(self, replica: str, by: int = 1) -> Self:
        """Count down and return the delta: the row of `replica`.

        Raises:
            ValueError: `by` is negative or no int, or `replica` is retired.
        """
        return self._count(replica, 1, by)
