"""This machine's processes as events, read from Linux' /proc.

A reading of a process is an event when the process ran since the reading before:

    agent        the machine's name
    user         the process: its id and start time, so that an id used again is another
    endpoint     the command's name
    latency_ms   how long it had waited for a CPU, in the mean of its time slices

So "distinct users" counts processes that ran, the heavy hitters are the commands found running
most often, and the latency is the scheduler's: its quantiles tell how loaded the machine is. The
numbers are those of ``/proc/PID/schedstat`` (kernel documentation, scheduler/sched-stats).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from state.schemas import EVENTS

_PROC = Path("/proc")
_LOOK = timedelta(milliseconds=500)
"""How often it is asked whether to stop."""


class _Reading(NamedTuple):
    waited_ns: int
    slices: int


class HostSource(FixedPartitionedSource[pa.RecordBatch, int]):
    """Sample the processes of this machine at a fixed distance of time.

    An item is a ``RecordBatch`` of ``state.schemas.EVENTS``, of one sample, all rows at its time;
    samples in which nothing ran emit nothing. The first sample is a reading to compare with and
    emits nothing either. Processes that may not be read, or end meanwhile, are left out.

    - *Restart*: what passed meanwhile is lost; the number of samples taken is kept.
    - *End*: after `limit` samples, or within half a second of `stopped`.

    Args:
        limit: How many samples to take; None for no end.
        every: Time between them.
        stopped: Says whether to end now, such as `is_set` of an event.
        proc: Where the kernel's files are.
        clock: Returns the current time; tests pass their own.

    Raises:
        ValueError: there is no `/proc` with scheduler statistics, or `every` is not positive.
    """

    def __init__(
        self,
        limit: int | None,
        *,
        every: timedelta = timedelta(seconds=1),
        stopped: Callable[[], bool] | None = None,
        proc: Path = _PROC,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if every <= timedelta(0):
            raise ValueError(f"time between samples must be positive, not {every}")
        if not (proc / "self" / "schedstat").exists():
            raise ValueError(f"{proc}/self/schedstat: not there; host metrics need Linux")
        self._limit = limit
        self._every = every
        self._stopped = stopped
        self._proc = proc
        self._clock = clock

    def list_parts(self) -> list[str]:
        """Name this machine, so that each process of a cluster samples its own."""
        return [platform.node() or "localhost"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _HostPartition:
        """Take the first reading."""
        return _HostPartition(
            for_part,
            self._limit,
            self._every,
            self._stopped,
            self._proc,
            self._clock,
            resume_state or 0,
        )


class _HostPartition(StatefulSourcePartition[pa.RecordBatch, int]):
    def __init__(
        self,
        name: str,
        limit: int | None,
        every: timedelta,
        stopped: Callable[[], bool] | None,
        proc: Path,
        clock: Callable[[], datetime],
        taken: int,
    ) -> None:
        self._name = name
        self._limit = limit
        self._every = every
        self._stopped = stopped
        self._proc = proc
        self._clock = clock
        self._taken = taken
        self._before = self._read()
        self._due = clock() + every

    def next_batch(self) -> list[pa.RecordBatch]:
        if self._ended():
            raise StopIteration
        now = self._clock()
        if now < self._due:
            return []
        # Samples that a busy flow has missed are not made up for.
        self._due = max(self._due + self._every, now)
        self._taken += 1
        after = self._read()
        rows = [
            {
                "time": now,
                "agent": self._name,
                "user": process,
                "endpoint": command,
                "latency_ms": (reading.waited_ns - before.waited_ns)
                / (reading.slices - before.slices)
                / 1e6,
            }
            for (process, command), reading in after.items()
            if (before := self._before.get((process, command), _Reading(0, 0))).slices
            < reading.slices
            and before.waited_ns <= reading.waited_ns
        ]
        self._before = after
        return [pa.RecordBatch.from_pylist(rows, EVENTS)] if rows else []

    def next_awake(self) -> datetime | None:
        if self._ended():
            return None
        return min(self._due, self._clock() + _LOOK) if self._stopped else self._due

    def _ended(self) -> bool:
        stopped = self._stopped is not None and self._stopped()
        return stopped or (self._limit is not None and self._taken >= self._limit)

    def snapshot(self) -> int:
        return self._taken

    def _read(self) -> dict[tuple[str, str], _Reading]:
        found = {}
        for directory in self._proc.iterdir():
            if not directory.name.isdigit():
                continue
            try:
                stat = (directory / "stat").read_text(errors="replace")
                _, waited, slices = (directory / "schedstat").read_text().split()
            except (OSError, ValueError):
                continue  # it has ended, or is not ours to read
            # The name is in brackets and may hold brackets and blanks itself.
            command, _, rest = stat.partition("(")[2].rpartition(") ")
            started = rest.split()[19]
            found[f"{directory.name}@{started}", command] = _Reading(int(waited), int(slices))
        return found
