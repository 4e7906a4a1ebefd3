"""The merge of a sliding run of panes, in amortised constant merges per pane.

Two stacks (K. Tangwongsan, M. Hirzel, S. Schneider, "Optimal and general out-of-order
sliding-window aggregation", VLDB 2019, section 2, for the classic): the older panes of the run
are kept as merges of every suffix, the newer ones as one merge. Sliding drops a suffix and merges
one pane; when the older ones run out, the newer ones become the older, once per run length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from state.mergeable import Mergeable

M = TypeVar("M", bound=Mergeable)


class TwoStacks(Generic[M]):
    """Merges over a window [low, high) of numbered panes that only moves up.

    It keeps no panes, only merges of them; panes are handed in with each query. What it returns
    depends on the panes and on :attr:`split` alone, to the last bit, so that a run resumed from
    the two gives the same floats. States are merged in the order of their panes: ordered states
    are welcome.

    Args:
        create: makes an empty state.
        split: where the newer panes start.
    """

    def __init__(self, create: Callable[[], M], split: int | None = None) -> None:
        self._create = create
        self.split = split
        """Number at which the newer panes start; None before the first query."""
        self._older: dict[int, M] = {}
        """Pane -> the merge of it and all later panes below the split."""
        self._newer: M | None = None
        self.end = -(2**62)
        """All panes that were merged have smaller numbers."""
        self._stale = split is not None

    def touched(self, pane: int) -> None:
        """Take note that rows were added to this pane, or also to later ones."""
        self._stale |= pane < self.end

    def query(self, low: int, high: int, panes: Mapping[int, M]) -> M:
        """Return a new state, the merge of the panes in [low, high) in order.

        Neither bound is below that of the query before. Absent panes are empty. Costs O(1)
        merges, amortised over a window length, unless panes were touched.
        """
        if self.split is None or low >= self.split:
            self.split, self._newer, self.end = high, None, high
            self._older = self._suffixes(low, high, panes)
        elif self._stale:
            self._newer, self.end = None, self.split
            self._older = self._suffixes(low, self.split, panes)
        self._stale = False
        if self.end < high:
            for pane in range(self.end, high):
                if pane in panes:
                    if self._newer is None:
                        self._newer = self._create()
                    self._newer.merge(panes[pane])
            self.end = high
        total = self._create()
        oldest = next((p for p in range(low, self.split) if p in self._older), None)
        if oldest is not None:
            total.merge(self._older[oldest])
        if self._newer is not None:
            total.merge(self._newer)
        return total

    def _suffixes(self, low: int, high: int, panes: Mapping[int, M]) -> dict[int, M]:
        suffixes: dict[int, M] = {}
        after: M | None = None
        for pane in range(high - 1, low - 1, -1):
            if pane in panes:
                suffix = self._create()
                suffix.merge(panes[pane])
                if after is not None:
                    suffix.merge(after)
                suffixes[pane] = after = suffix
        return suffixes
