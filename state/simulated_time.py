"""Time that passes only when it is told to, for networks that are not there."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable


class SimulatedTime:
    """What is to happen when; of what is due at the same time, what was scheduled first.

    >>> time, seen = SimulatedTime(), []
    >>> time.schedule(2.0, lambda: seen.append(time.now))
    >>> time.schedule(1.0, lambda: time.schedule(1.5, lambda: seen.append(time.now)))
    >>> time.run_until(lambda: len(seen) == 2, limit=10.0)
    True
    >>> seen
    [1.5, 2.0]
    """

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds since the beginning."""
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def schedule(self, at: float, action: Callable[[], object]) -> None:
        """Call `action` when the time is `at`, or next if that is over; never if it is infinite."""
        if at < math.inf:
            heapq.heappush(self._queue, (at, next(self._order), action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        queue = self._queue
        while queue and queue[0][0] <= end:
            at, _, action = heapq.heappop(queue)
            self.now = max(self.now, at)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], bool], *, limit: float, step: float = 0.05) -> bool:
        """Let time pass until `condition` holds, at most `limit` seconds; return whether it does.

        It is looked at every `step` seconds.
        """
        end = self.now + limit
        while not condition():
            if self.now >= end:
                return False
            self.run(step)
        return True
