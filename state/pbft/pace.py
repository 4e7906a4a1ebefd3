"""How long something usually takes, so that it is not asked for again too soon."""

from __future__ import annotations

SHARE = 16
"""Of the time until a view is given up, what may at most seem usual: where much is lost, all that
was asked for again took long, and there must be time to ask more than once."""
_FACTOR = 1.2


class Pace:
    """A running median of durations: each moves it by a sixth, up or down.

    What was lost and took long does not count for more than anything else that took long; where
    everything takes long, because machines are busy, the median follows within a few dozen
    durations. (A mean of what was not sent again, which is TCP's, would never learn that.)

    Args:
        least: What it begins with, and never falls below; seconds.
        most: What it never exceeds.

    >>> pace = Pace(0.01, 1.0)
    >>> for seconds in [0.1, 0.1, 5.0, 0.1] * 20:
    ...     pace.add(seconds)
    >>> 0.08 < pace.median < 0.15
    True
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self.median = least

    def add(self, seconds: float) -> None:
        """Take a duration."""
        if seconds > self.median:
            self.median = min(self.median * _FACTOR, self._most)
        else:
            self.median = max(self.median / _FACTOR, self._least)
