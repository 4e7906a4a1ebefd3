"""Show a running group: a live table on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import atexit
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

Standing = Mapping[str, Any]
"""The fields of `state.pbft.Standing`."""

_WINDOW = 2.0
"""Seconds over which requests are counted for their rate."""
_SAY = 1.0
"""Seconds between two plain lines."""
_NOTES = 4
"""What happened last, in lines under the table."""
_STYLE = {"active": "green", "down": "red", "changing": "yellow", "transferring": "yellow"}


class Latencies:
    """How long requests took, and how many are answered in a second."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._lately: deque[float] = deque()

    def add(self, seconds: float, now: float) -> None:
        """Count an answer that has just come."""
        self.seconds.append(seconds)
        self._lately.append(now)

    def rate(self, now: float) -> float:
        """Return answers in a second, over the last two."""
        while self._lately and self._lately[0] < now - _WINDOW:
            self._lately.popleft()
        return len(self._lately) / _WINDOW

    def percentile(self, share: float) -> float:
        """Return the seconds within which a share of all was answered; NaN if none was.

        >>> latencies = Latencies()
        >>> for i in range(100):
        ...     latencies.add(i / 1000, now=0.0)
        >>> latencies.percentile(0.5), latencies.percentile(0.99)
        (0.05, 0.099)
        """
        ordered = sorted(self.seconds)
        return (
            ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")
        )


class Board:
    """What is known of a group while it runs, on standard error.

    Args:
        names: The replicas that are shown.
        total: Requests expected; None where there are no clients here.
        stream: A terminal gets the table, anything else lines.
    """

    def __init__(
        self, names: Sequence[str], total: int | None = None, stream: TextIO = sys.stderr
    ) -> None:
        self.latencies = Latencies()
        self._names = names
        self._total = total
        self._stream = stream
        self._standings: dict[str, Standing] = {}
        self._down: set[str] = set()
        self._marks: dict[str, str] = {}
        self._notes: deque[str] = deque(maxlen=_NOTES)
        self._hint = ""
        self._said = time.monotonic()
        self._live: Live | None = None
        if stream.isatty():
            self._live = Live(
                console=Console(file=stream), refresh_per_second=4, get_renderable=self.table
            )
            atexit.register(self.close)
            self._live.start()

    def mark(self, name: str, text: str) -> None:
        """Say of a replica what it is known for."""
        self._marks[name] = text

    def hint(self, text: str) -> None:
        """Say once what people can do, and leave it below the table."""
        self._hint = text
        if self._live is None:
            print(f"replica: {text}", file=self._stream, flush=True)

    def stands(self, name: str, standing: Standing) -> None:
        """Show how far a replica is."""
        self._standings[name] = standing
        self._down.discard(name)

    def down(self, name: str) -> None:
        """Show that a replica does not run; its next standing says that it does."""
        self._down.add(name)

    def answered(self, seconds: float) -> None:
        """Count an answer."""
        self.latencies.add(seconds, time.monotonic())

    def note(self, text: str) -> None:
        """Show what happened: below the table, or as a line."""
        self._notes.append(text)
        if self._live is None:
            print(f"replica: {text}", file=self._stream, flush=True)

    def say(self) -> None:
        """Print a line if it is time for one, and there is no table."""
        now = time.monotonic()
        if self._live is None and now - self._said >= _SAY:
            self._said = now
            print(f"replica: {self._counts()}", file=self._stream, flush=True)

    def close(self) -> None:
        """Leave what is shown, and stop."""
        if self._live is not None and self._live.is_started:
            self._live.stop()
            atexit.unregister(self.close)

    def table(self) -> Group:
        """Return what is shown."""
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for title in ("replica", "state", "view", "stable", "final", "executed", "waiting"):
            table.add_column(title, justify="left" if title in ("replica", "state") else "right")
        table.add_column("evidence", justify="right")
        lead = self._primary()
        for name in self._names:
            standing = self._standings.get(name)
            state = self._state(name)
            mark = f" {self._marks[name]}" if name in self._marks else ""
            cells = [Text(f"{'*' if name == lead else ' '}{name}{mark}")]
            cells.append(Text(state, style=_STYLE.get(state, "")))
            for field in ("view", "stable", "final", "executed", "waiting", "evidence"):
                cells.append(Text("" if standing is None else f"{standing[field]:,}"))
            table.add_row(*cells)
        below = [*self._notes, self._hint] if self._hint else self._notes
        lines = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in below]
        return Group(Text(self._counts()), table, *lines)

    def _state(self, name: str) -> str:
        standing = self._standings.get(name)
        if name in self._down or standing is None:
            return "down" if name in self._down else "starting"
        if standing["transferring"]:
            return "transferring"
        return "active" if standing["active"] else "changing"

    def _primary(self) -> str | None:
        """Return who leads the greatest view that a replica is in."""
        up = [s for name, s in self._standings.items() if name not in self._down]
        return max(up, key=lambda s: (s["view"], s["active"]))["primary"] if up else None

    def _counts(self) -> str:
        if not self._standings:
            return "starting"
        view, batch = (
            max(s[field] for s in self._standings.values()) for field in ("view", "final")
        )
        text = f"view {view} ({self._primary() or 'nobody'}), batch {batch:,}"
        if self._total is None:
            return text
        latencies, now = self.latencies, time.monotonic()
        text += f": {len(latencies.seconds):,}/{self._total:,} answered"
        if latencies.seconds:
            half, most = (1e3 * latencies.percentile(share) for share in (0.5, 0.99))
            text += f", {latencies.rate(now):,.0f}/s, p50 {half:.1f} ms, p99 {most:.1f} ms"
        return text


def event_text(row: Mapping[str, Any]) -> str | None:
    """Return in words what happened to a replica, or None if people need not know.

    >>> event_text({"event": "ViewEntered", "view": 1, "primary": "r2"})
    'view 1 begins, r2 leads'
    """
    kind = row["event"]
    if kind == "ViewEntered":
        return f"view {row['view']} begins, {row['primary']} leads"
    if kind == "ViewAbandoned":
        return f"wants view {row['view']}: {row['reason']}"
    if kind == "Evidence":
        where = f"view {row['view']}" + (f", batch {row['seq']}" if row["seq"] else "")
        return f"evidence: {row['accused']} signed two of {row['kind']} in {where}"
    if kind == "Transferred":
        return f"was sent the state after batch {row['seq']}"
    if kind == "Diverged":
        return f"its state after batch {row['seq']} differs from a quorum's"
    return None
