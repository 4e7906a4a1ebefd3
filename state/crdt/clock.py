"""A hybrid logical clock: stamps that follow the wall clock and never contradict causality.

Source: Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical physical clocks", OPODIS 2014.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from state.crdt.causal import check_replica

MAX_TIME = (1 << 63) - 1
_SEQUENCES = (list, tuple)


class ClockDrift(ValueError):
    """A stamp lies further ahead of the wall clock than the bound allows."""


class Stamp(NamedTuple):
    """When a write happened: totally ordered, later writes of one replica are greater."""

    wall_ms: int
    counter: int
    replica: str


def check_stamp(value: Any) -> Stamp:
    """Return `value`, a sequence of a stamp's three fields, as a `Stamp`.

    Raises:
        ValueError: it is anything else.
    """
    if not isinstance(value, _SEQUENCES) or len(value) != 3:
        raise ValueError("a stamp must be (wall_ms, counter, replica)")
    wall_ms, counter, replica = value
    for number in (wall_ms, counter):
        if type(number) is not int or not 0 <= number <= MAX_TIME:
            raise ValueError("a stamp's wall_ms and counter must be ints from 0 to 2**63 - 1")
    return Stamp(wall_ms, counter, check_replica(replica))


class HybridClock:
    """One replica's source of stamps; the wall clock's time is an argument.

    A clock that restarts and may reuse an id must first `observe` the stamps in its state; a new
    incarnation's id needs nothing.

    Args:
        replica: the id that goes into the stamps.
        max_drift_ms: how far ahead of this wall clock an observed stamp may be.

    >>> clock = HybridClock("ann")
    >>> clock.tick(1000)
    Stamp(wall_ms=1000, counter=0, replica='ann')
    >>> clock.tick(900, after=Stamp(5000, 7, "bob"))
    Stamp(wall_ms=5000, counter=8, replica='ann')
    """

    def __init__(self, replica: str, max_drift_ms: int = 86_400_000) -> None:
        if max_drift_ms < 0:
            raise ValueError("clock: max_drift_ms must not be negative")
        self.replica = check_replica(replica)
        self.max_drift_ms = max_drift_ms
        self._last = (0, -1)

    def tick(self, now_ms: int, after: Stamp | None = None) -> Stamp:
        """Return a stamp greater than every one given or observed, and than `after`.

        A wall clock that stands still or goes back is made up for by the counter.

        Raises:
            ClockDrift: `after` is more than `max_drift_ms` ahead; nothing changes.
        """
        if after is not None:
            self.observe(after, now_ms)
        wall, counter = self._last
        stamp = (now_ms, 0) if now_ms > wall else (wall, counter + 1)
        result = check_stamp((*stamp, self.replica))
        self._last = stamp
        return result

    def observe(self, stamp: Stamp, now_ms: int) -> None:
        """Take note of another's stamp, so that later ticks are greater.

        Raises:
            ClockDrift: it is more than `max_drift_ms` ahead of `now_ms`; nothing changes.
        """
        if stamp.wall_ms > now_ms + self.max_drift_ms:
            raise ClockDrift(
                f"clock: a stamp of {stamp.replica!r} is {stamp.wall_ms - now_ms} ms ahead, "
                f"more than {self.max_drift_ms}"
            )
        self._last = max(self._last, (stamp.wall_ms, stamp.counter))
