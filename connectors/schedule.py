"""Ticks at the times of a cron expression, correct across changes to and from summer time.

Expressions and their meaning on days with a change of the clock are those of `cronsim`, which
follows Debian's cron: a job at a fixed hour that falls into the skipped hour runs right after it,
one that falls into the repeated hour runs the first time only; jobs every so many minutes, or
every hour, run evenly by the absolute time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from cronsim import CronSim, CronSimError

Missed = Literal["one", "all", "none"]

_BATCH = 1000


def ticks(expression: str, *, timezone: str = "UTC", start: datetime) -> Iterator[datetime]:
    """Return the times of a cron expression after `start`, in UTC and in order, without waiting.

    The times after any of the results are the results that follow it: a scheduler may begin again
    from the last one. The iterator ends where no time comes for fifty years.

    Args:
        expression: Five fields (minute, hour, day of month, month, day of week), or six with
            seconds first.
        timezone: The zone whose clock the expression speaks of, such as "Europe/Berlin".
        start: Times are strictly after this.

    Raises:
        ValueError: the expression is wrong, naming the field; the zone is unknown; or `start` has
            no time zone. Raised at once, not at the first result.

    The clock in Berlin skips from 02:00 to 03:00 on 30 March 2025, a day of 23 hours:

    >>> start = datetime(2025, 3, 29, tzinfo=UTC)
    >>> times = ticks("30 2 * * *", timezone="Europe/Berlin", start=start)
    >>> [f"{next(times):%d %H:%M}" for _ in range(3)]
    ['29 01:30', '30 01:00', '31 00:30']
    """
    if start.tzinfo is None:
        raise ValueError(f"start {start} has no time zone")
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"unknown time zone {timezone!r}: use a name like 'Europe/Berlin'"
        ) from None
    try:
        times = CronSim(expression, start.astimezone(zone))
    except CronSimError as error:
        raise ValueError(f"cron expression {expression!r}: {_explain(expression, error)}") from None
    return _after(times, start.astimezone(UTC))


def _explain(expression: str, error: CronSimError) -> str:
    fields = expression.split()
    names = ["second", "minute", "hour", "day-of-month", "month", "day-of-week"][-len(fields) :]
    for name, field in zip(names, fields, strict=False):
        if str(error) == f"Bad {name}":
            return f"bad {name} {field!r}"
    return f"{len(fields)} fields instead of 5 (or 6 with seconds)"


def _after(times: Iterator[datetime], last: datetime) -> Iterator[datetime]:
    for local in times:
        tick = local.astimezone(UTC)
        # In a repeated hour cronsim may answer with the first pass, which is over already.
        if tick > last:
            yield tick
            last = tick


class Handled(NamedTuple):
    """A schedule's snapshot: every tick up to a time is done with, and how many were emitted."""

    until: datetime
    emitted: int


class CronPartition(StatefulSourcePartition[datetime, Handled]):
    """The schedule of a :class:`CronSource`."""

    def __init__(self, source: CronSource, resume: Handled | None) -> None:
        self._source = source
        now = source.clock()
        self._until, self._emitted = resume or (source.start or now, 0)
        if source.missed == "none":
            self._until = max(self._until, now)
        self._next = next(source.after(self._until), None)

    @property
    def _done(self) -> bool:
        last, count = self._source.until, self._source.count
        return (
            self._next is None
            or (last is not None and self._next > last)
            or (count is not None and self._emitted >= count)
        )

    def next_batch(self) -> list[datetime]:
        """Return the ticks that are due."""
        if self._done:
            raise StopIteration
        assert self._next is not None
        now = self._source.clock()
        if self._next > now:
            return []
        if self._source.until is not None:
            now = min(now, self._source.until)
        if self._source.missed == "all":
            room = _BATCH
            if self._source.count is not None:
                room = min(room, self._source.count - self._emitted)
            due = [
                self._next,
                *islice(takewhile(lambda t: t <= now, self._source.after(self._next)), room - 1),
            ]
        else:
            due = [self._latest(now)]
        self._until = due[-1]
        self._emitted += len(due)
        self._next = next(self._source.after(self._until), None)
        return due

    def _latest(self, now: datetime) -> datetime:
        """Return the last tick up to `now`, at little cost even after a long time."""
        assert self._next is not None
        latest = self._next
        span = timedelta(minutes=1)
        while now - span > latest:
            found = list(takewhile(lambda t: t <= now, self._source.after(now - span)))
            if found:
                return found[-1]
            span *= 8
        return [latest, *takewhile(lambda t: t <= now, self._source.after(latest))][-1]

    def next_awake(self) -> datetime | None:
        """Return the time of the next tick."""
        return None if self._done else self._next

    def snapshot(self) -> Handled:
        """Return what is done with."""
        return Handled(self._until, self._emitted)


class CronSource(FixedPartitionedSource[datetime, Handled]):
    """Emit the time of each tick of a cron expression, when it is due.

    An item is the scheduled time, an aware ``datetime`` in UTC; a busy flow may get it later. The
    source sleeps in between. There is one partition.

    - *Restart*: no tick is emitted twice. Ticks that were missed while the flow was down are
      emitted at once or skipped, as `missed` says.
    - *Late*: if a flow is so busy that several ticks are due, only the newest is emitted, unless
      `missed` is "all".
    - *Empty*: the source ends after `until` or `count`, or if no tick ever comes.

    Args:
        expression: See :func:`ticks`.
        timezone: The zone whose clock the expression speaks of.
        start: Ticks are strictly after this. By default the time of the first start. Those
            between an earlier `start` and now count as missed.
        until: The last time at which a tick may be.
        count: How many ticks to emit, restarts included.
        missed: "one" emits the newest missed tick (a recompute catches up with one run), "all"
            each of them, oldest first, "none" none.
        clock: Returns the current time; tests pass their own.

    Raises:
        ValueError: naming what is wrong: the expression's field, the zone, a time without a
            zone, a count below 1, or an unknown policy.
    """

    def __init__(
        self,
        expression: str,
        *,
        timezone: str = "UTC",
        start: datetime | None = None,
        until: datetime | None = None,
        count: int | None = None,
        missed: Missed = "one",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if missed not in ("one", "all", "none"):
            raise ValueError(f"missed is 'one', 'all' or 'none', not {missed!r}")
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, not {count}")
        if until is not None and until.tzinfo is None:
            raise ValueError(f"until {until} has no time zone")
        ticks(expression, timezone=timezone, start=start or datetime.now(UTC))
        self._expression = expression
        self._timezone = timezone
        self.start = start.astimezone(UTC) if start else None
        self.until = until
        self.count = count
        self.missed = missed
        self.clock = clock

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Return the schedule's times after a moment."""
        return ticks(self._expression, timezone=self._timezone, start=moment)

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["ticks"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Handled | None
    ) -> CronPartition:
        """Start the schedule, or go on from a snapshot."""
        return CronPartition(self, resume_state)
