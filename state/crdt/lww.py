"""Last writer wins: maps and sets whose rows are ordered by stamp.

Of two rows of one key the greater wins, compared by stamp, then by whether the key is there (a
write beats a deletion), then by the SHA-256 of the value's encoding: a total order, so replicas
agree even on equal stamps. A deletion is a row without a value, kept until `compact`.

A write made in knowledge of a row must supersede it although clocks differ: stamp it with
`clock.tick(now_ms, after=map.stamp(key))`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Self

from state.crdt.clock import Stamp, check_stamp
from state.crdt.replica_state import ReplicaState, fields
from state.crdt.values import decode, decode_key, encode, encode_key

Row = tuple[Stamp, bytes | None]
"""When it was written, and the encoding of the value; None where the key is deleted."""


def wins(row: Row, over: Row | None) -> bool:
    """Return whether `row` replaces `over`."""
    if over is None or row[0] != over[0]:
        return over is None or row[0] > over[0]
    return row[1] != over[1] and _rank(row[1]) > _rank(over[1])


def _rank(value: bytes | None) -> tuple[bytes, bytes]:
    return (b"", b"") if value is None else (hashlib.sha256(value).digest(), value)


class _StampedRows(ReplicaState):
    """Rows by encoded key, and the cut below which deletions are forgotten."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Row] = {}
        self._floor: Stamp | None = None

    @property
    def compacted(self) -> Stamp | None:
        """The cut of the last compaction; rows from before it are taken from nobody."""
        return self._floor

    def __len__(self) -> int:
        return sum(row[1] is not None for row in self._rows.values())

    def __contains__(self, key: Any) -> bool:
        return self._rows.get(encode_key(key), (None, None))[1] is not None

    def stamp(self, key: Any) -> Stamp | None:
        """Return when `key` was last written or deleted, for `HybridClock.tick(after=...)`."""
        row = self._rows.get(encode_key(key))
        return row[0] if row else None

    def keys(self) -> Iterator[Any]:
        """Yield what is there in the order of the encodings; 1, 1.0 and True are three keys."""
        return (decode_key(key) for key, row in sorted(self._rows.items()) if row[1] is not None)

    def compact(self, stable: Stamp) -> None:
        """Forget the deletions stamped before `stable`.

        The caller guarantees that all writes stamped before `stable` are known here and at every
        other replica, and that no clock will stamp before it again (`HybridClock.observe` it).
        Rows from before the cut that still arrive are old news and are ignored, so replicas need
        not compact at the same time. A lower cut than the last changes nothing.
        """
        stable = check_stamp(stable)
        if self._floor is None or stable > self._floor:
            self._floor = stable
            self._rows = {k: r for k, r in self._rows.items() if r[1] is not None or r[0] >= stable}

    def _write(self, key: Any, value: bytes | None, stamp: Stamp) -> Self:
        stamp = check_stamp(stamp)
        if self._floor is not None and stamp < self._floor:
            raise ValueError(f"{self.kind}: a stamp from before the cut of the last compaction")
        delta = type(self)()
        delta._rows[encode_key(key)] = (stamp, value)
        return self._commit(delta)

    def _join(self, other: Self) -> None:
        mine, theirs = self._floor, other._floor
        if theirs is not None and (mine is None or theirs > mine):
            rows = other._rows
            # What they have forgotten or replaced; deletions that they need not keep.
            self._rows = {k: r for k, r in self._rows.items() if r[0] >= theirs or rows.get(k) == r}
            self._floor = theirs
        for key, row in other._rows.items():
            if (mine is None or row[0] >= mine) and wins(row, self._rows.get(key)):
                if row[1] is None and self._floor is not None and row[0] < self._floor:
                    self._rows.pop(key, None)
                else:
                    self._rows[key] = row

    def _touched(self, other: Self) -> Iterable[Any]:
        if other._floor is not None and (self._floor is None or other._floor > self._floor):
            return {*self._rows, *other._rows}
        return other._rows

    def _path(self, key: Any) -> tuple[Any, ...]:
        return (decode_key(key),)

    def _to_plain(self) -> Any:
        names = sorted({row[0].replica for row in self._rows.values()})
        number = {name: at for at, name in enumerate(names)}
        rows = [
            [key, stamp.wall_ms, stamp.counter, number[stamp.replica], value]
            for key, (stamp, value) in sorted(self._rows.items())
        ]
        return [list(self._floor) if self._floor else None, names, rows]

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        state = cls()
        floor, names, rows = fields(cls.kind, plain, 3)
        if not isinstance(names, list) or not isinstance(rows, list):
            raise ValueError(f"{cls.kind}: the rows are not a list")
        state._floor = check_stamp(floor) if floor is not None else None
        used = set()
        last = b""
        for row in rows:
            key, wall_ms, counter, at, value = fields(cls.kind, row, 5)
            if type(at) is not int or not 0 <= at < len(names):
                raise ValueError(f"{cls.kind}: a row of an unknown replica")
            used.add(at)
            stamp = check_stamp((wall_ms, counter, names[at]))
            if not isinstance(key, bytes) or key <= last:
                raise ValueError(f"{cls.kind}: the keys are not in order")
            if value is None and state._floor is not None and stamp < state._floor:
                raise ValueError(f"{cls.kind}: a deletion from before the cut")
            decode_key(key)
            cls._check_value(value)
            state._rows[key] = (stamp, value)
            last = key
        if len(used) != len(names) or any(a >= b for a, b in itertools.pairwise(names)):
            raise ValueError(f"{cls.kind}: the replicas are not in order, or not used")
        return state

    @classmethod
    def _check_value(cls, value: Any) -> None:
        if value is not None:
            if not isinstance(value, bytes):
                raise ValueError(f"{cls.kind}: a value that is not bytes")
            decode(value)


class LWWMap(_StampedRows):
    """A map whose keys hold plain values; of concurrent writes the last by stamp stays.

    >>> ann, bob = LWWMap(), LWWMap()
    >>> first = ann.put("a", 1, Stamp(5, 0, "ann"))
    >>> second = bob.put("a", 2, Stamp(5, 0, "bob"))
    >>> ann.merge(second); bob.merge(first); ann.value, bob.value
    ({'a': 2}, {'a': 2})
    >>> ann.remove("a", Stamp(6, 0, "ann")).to_bytes() == ann.to_bytes()
    True
    """

    kind = "lww-map"

    @property
    def value(self) -> dict[Any, Any]:
        """The map; of keys that Python holds equal, like 1 and True, one is in it: see `items`."""
        return dict(self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield (key, value) in the order of the keys' encodings."""
        for key, (_, value) in sorted(self._rows.items()):
            if value is not None:
                yield decode_key(key), decode(value)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value of `key`, a fresh copy, or `default` where it is not there."""
        value = self._rows.get(encode_key(key), (None, None))[1]
        return default if value is None else decode(value)

    def put(self, key: Any, value: Any, stamp: Stamp) -> Self:
        """Write `value` and return the delta; it has no effect where a later row is known.

        Raises:
            ValueError: no plain value, or a stamp from before the cut.
        """
        return self._write(key, encode(value), stamp)

    def remove(self, key: Any, stamp: Stamp) -> Self:
        """Delete `key`, whether it is there or not, and return the delta.

        Raises:
            ValueError: no hashable plain value, or a stamp from before the cut.
        """
        return self._write(key, None, stamp)

    def _look(self, key: Any) -> Any:
        value = self._rows.get(key, (None, None))[1]
        return None if value is None else decode(value)


_HERE = encode(True)


class LWWElementSet(_StampedRows):
    """A set whose elements are in or out by their last stamp; in wins on equal stamps.

    >>> tags = LWWElementSet()
    >>> tags.add("x", Stamp(5, 0, "ann")), tags.remove("x", Stamp(4, 0, "bob"))
    (LWWElementSet({'x'}), LWWElementSet(set()))
    >>> tags.value
    {'x'}
    """

    kind = "lww-element-set"

    @property
    def value(self) -> set[Any]:
        """The elements; of those that Python holds equal, like 1 and True, one: see `keys`."""
        return set(self.keys())

    def add(self, element: Any, stamp: Stamp) -> Self:
        """Put `element` in and return the delta.

        Raises:
            ValueError: no hashable plain value, or a stamp from before the cut.
        """
        return self._write(element, _HERE, stamp)

    def remove(self, element: Any, stamp: Stamp) -> Self:
        """Take `element` out, whether it is in or not, and return the delta.

        Raises:
            ValueError: no hashable plain value, or a stamp from before the cut.
        """
        return self._write(element, None, stamp)

    def _look(self, key: Any) -> Any:
        return self._rows.get(key, (None, None))[1] is not None

    @classmethod
    def _check_value(cls, value: Any) -> None:
        if value not in (None, _HERE):
            raise ValueError(f"{cls.kind}: an element that is neither in nor out")
