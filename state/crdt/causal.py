"""What a replica has seen: dots, version vectors and causal contexts.

A *dot* names one event: (replica id, counter), with counters from 1 and without gaps. A version
vector says "everything of each replica up to here"; a causal context also holds single dots beyond
that, and absorbs them as soon as the gap closes.

Source: Almeida, Shoker, Baquero, "Delta state replicated data types", JPDC 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

Dot: TypeAlias = tuple[str, int]
MAX_COUNTER = (1 << 63) - 1


def replica_id(name: str, incarnation: int) -> str:
    """Return the id of one incarnation of a replica, which must never be used again.

    A replica that may have lost state comes back under its next incarnation.

    >>> replica_id("ann", 3)
    'ann#3'
    """
    if not name or incarnation < 0:
        raise ValueError("replica_id: a name and an incarnation from 0 are needed")
    return f"{name}#{incarnation}"


def check_replica(replica: Any) -> str:
    """Return `replica` if it can be a replica's id: a str that is not empty.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(replica, str) or not replica:
        raise ValueError("a replica's id must be a str that is not empty")
    return replica


def check_counter(counter: Any) -> int:
    """Return `counter` if it can be a dot's: 1 to 2**63 - 1.

    Raises:
        ValueError: it is not.
    """
    if type(counter) is not int or not 0 < counter <= MAX_COUNTER:
        raise ValueError("a dot's counter must be an int from 1 to 2**63 - 1")
    return counter


class VersionVector:
    """How far each replica's events are known: an immutable, hashable map to counters.

    A replica that is not there counts as 0. `a | b` knows what either does, `a & b` what both do.

    >>> seen = VersionVector({"ann": 3, "bob": 1})
    >>> seen["ann"], seen["eve"], ("ann", 2) in seen, ("bob", 2) in seen
    (3, 0, True, False)
    >>> seen | VersionVector({"bob": 5}), seen & VersionVector({"bob": 5})
    (VersionVector({'ann': 3, 'bob': 5}), VersionVector({'bob': 1}))
    """

    __slots__ = ("_counters",)

    def __init__(self, counters: Mapping[str, int] | None = None) -> None:
        known = sorted((counters or {}).items())
        self._counters = {check_replica(name): check_counter(at) for name, at in known if at != 0}

    def __getitem__(self, replica: str) -> int:
        return self._counters.get(replica, 0)

    def __contains__(self, dot: Dot) -> bool:
        return 0 < dot[1] <= self[dot[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counters)

    def __len__(self) -> int:
        return len(self._counters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionVector) and self._counters == other._counters

    def __hash__(self) -> int:
        return hash(tuple(self._counters.items()))

    def __or__(self, other: VersionVector) -> VersionVector:
        return VersionVector({name: max(self[name], other[name]) for name in {*self, *other}})

    def __and__(self, other: VersionVector) -> VersionVector:
        return VersionVector({name: min(at, other[name]) for name, at in self.items()})

    def __repr__(self) -> str:
        return f"VersionVector({self._counters!r})"

    def items(self) -> Iterable[tuple[str, int]]:
        """Return (replica, counter) in the order of the ids."""
        return self._counters.items()

    def covers(self, other: VersionVector) -> bool:
        """Return whether everything that `other` knows is known here."""
        return all(self[name] >= at for name, at in other.items())

    def to_plain(self) -> dict[str, int]:
        """Return a plain value for `state.crdt.values.encode`."""
        return dict(self._counters)

    @classmethod
    def from_plain(cls, value: Any) -> VersionVector:
        """Return what `to_plain` gave.

        Raises:
            ValueError: `value` is anything else.
        """
        if not isinstance(value, dict) or 0 in value.values():
            raise ValueError("a version vector must be a dict of counters from 1")
        return cls(value)


class CausalContext:
    """The set of all dots that were ever seen: a version vector and single dots beyond it.

    >>> seen = CausalContext([("ann", 1), ("ann", 3)])
    >>> seen.vector, ("ann", 3) in seen, seen.next("ann")
    (VersionVector({'ann': 1}), True, ('ann', 4))
    >>> seen.add(("ann", 2))
    >>> seen.vector
    VersionVector({'ann': 3})
    """

    __slots__ = ("_cloud", "_vector")

    def __init__(self, dots: Iterable[Dot] = ()) -> None:
        self._vector: dict[str, int] = {}
        self._cloud: dict[str, set[int]] = {}
        for dot in dots:
            self.add(dot)

    @classmethod
    def up_to(cls, version: VersionVector) -> CausalContext:
        """Return the context of everything up to `version`."""
        context = cls()
        context._vector = dict(version.items())
        return context

    @property
    def vector(self) -> VersionVector:
        """The part without gaps."""
        return VersionVector(self._vector)

    def __contains__(self, dot: Dot) -> bool:
        replica, counter = dot
        if counter <= self._vector.get(replica, 0):
            return counter > 0
        return counter in self._cloud.get(replica, ())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, CausalContext)
            and self._vector == other._vector
            and self._cloud == other._cloud
        )

    __hash__ = None  # type: ignore[assignment]  # a context changes

    def __len__(self) -> int:
        return min(sum(self._vector.values()) + sum(map(len, self._cloud.values())), MAX_COUNTER)

    def __iter__(self) -> Iterator[Dot]:
        """Yield every dot, which may be many: see `len` first."""
        for replica, last in self._vector.items():
            for counter in range(1, last + 1):
                yield replica, counter
        for replica, counters in self._cloud.items():
            for counter in counters:
                yield replica, counter

    def __repr__(self) -> str:
        cloud = {name: sorted(dots) for name, dots in sorted(self._cloud.items())}
        return f"CausalContext({self.vector.to_plain()!r}, beyond={cloud!r})"

    def next(self, replica: str) -> Dot:
        """Return the dot of the next event of `replica`, greater than all that are known.

        Raises:
            ValueError: `replica` is no id, or its counters are used up.
        """
        check_replica(replica)
        cloud = self._cloud.get(replica)
        last = max(cloud) if cloud else self._vector.get(replica, 0)
        return replica, check_counter(last + 1)

    def add(self, dot: Dot) -> None:
        """Add one dot."""
        replica, counter = dot
        check_replica(replica)
        check_counter(counter)
        last = self._vector.get(replica, 0)
        if counter > last:
            self._cloud.setdefault(replica, set()).add(counter)
            if counter == last + 1:
                self._close_gap(replica)

    def join(self, other: CausalContext) -> None:
        """Add all dots of `other`, in time proportional to its rows."""
        for replica, last in other._vector.items():
            if last > self._vector.get(replica, 0):
                self._vector[replica] = last
                if replica in self._cloud:
                    self._drop_known(replica)
                    self._close_gap(replica)
        for replica, counters in other._cloud.items():
            here = self._vector.get(replica, 0)
            beyond = {counter for counter in counters if counter > here}
            if beyond:
                self._cloud.setdefault(replica, set()).update(beyond)
                self._close_gap(replica)

    def covers(self, other: CausalContext) -> bool:
        """Return whether every dot of `other` is in here."""
        for replica, last in other._vector.items():
            here = self._vector.get(replica, 0)
            if last > here:  # a context keeps no dot of the cloud that the vector could hold
                return False
        return all(
            (replica, counter) in self
            for replica, counters in other._cloud.items()
            for counter in counters
        )

    def copy(self) -> CausalContext:
        """Return a context that changes on its own."""
        other = CausalContext()
        other._vector = dict(self._vector)
        other._cloud = {name: set(dots) for name, dots in self._cloud.items()}
        return other

    def to_plain(self) -> list[Any]:
        """Return [version vector, dict of replica -> sorted counters beyond it]."""
        return [dict(self._vector), {name: sorted(dots) for name, dots in self._cloud.items()}]

    @classmethod
    def from_plain(cls, value: Any) -> CausalContext:
        """Return what `to_plain` gave.

        Raises:
            ValueError: `value` is anything else, or not in its one form.
        """
        if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
            raise ValueError("a causal context must be a version vector and a dict")
        context = cls.up_to(VersionVector.from_plain(value[0]))
        for replica, counters in value[1].items():
            check_replica(replica)
            last = context._vector.get(replica, 0) + 1
            if not isinstance(counters, list) or not counters:
                raise ValueError("a causal context's dots must be a list that is not empty")
            for counter in counters:
                if check_counter(counter) <= last:
                    raise ValueError("a causal context's dots must be in order, after a gap")
                # The first must leave a gap after the vector; the others only grow.
                last = counter
            context._cloud[replica] = set(counters)
        return context

    def _drop_known(self, replica: str) -> None:
        last = self._vector[replica]
        kept = {counter for counter in self._cloud[replica] if counter > last}
        if kept:
            self._cloud[replica] = kept
        else:
            del self._cloud[replica]

    def _close_gap(self, replica: str) -> None:
        cloud = self._cloud.get(replica)
        if cloud is None:
            return
        last = self._vector.get(replica, 0)
        while last + 1 in cloud:
            last += 1
            cloud.remove(last)
        if last:
            self._vector[replica] = last
        if not cloud:
            del self._cloud[replica]
