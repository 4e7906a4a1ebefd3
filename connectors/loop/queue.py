"""What is on its way in one partition of a loop, and what its sources have said."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

Item = tuple[str, Any]
"""A key, and a RecordBatch, bytes, or what msgspec encodes."""


class Vote(NamedTuple):
    """A source's word on one epoch.

    Args:
        epoch: which, counted from the begin of the flow's life.
        part: the source's partition.
        emitted: how many items it emitted.
        ended: whether the outside input had ended before.
    """

    epoch: int
    part: str
    emitted: int
    ended: bool


class Ended(NamedTuple):
    """The outside input has ended."""


class Queue:
    """The items of one partition.

    The sink's worker adds, and closes an epoch at its snapshot; the source's worker takes. They
    may be two threads. The source of an epoch runs when the sink has closed the one before, so
    only what is added and not closed is touched by both: a deque, item by item.

    >>> queue = Queue(["p"])
    >>> queue.add(("k", 1))
    >>> queue.take(), queue.close_epoch(), queue.take()
    ([], [('k', 1)], [('k', 1)])
    """

    def __init__(self, parts: Iterable[str]) -> None:
        self._parts = frozenset(parts)
        self._added: deque[Item] = deque()
        self._heard: list[Vote | Ended] = []
        self._ready: deque[Item] = deque()
        self.votes: list[Vote] = []
        """Those on epochs of which not all have been heard."""
        self.settled = -1
        """The first epoch of which not all votes have been heard."""
        self.ended = False
        """Whether the outside input ended in an epoch that is closed."""
        self.silent = False
        """Whether an epoch is known in which nothing was in the loop and nothing could come."""
        self.restored = False
        self.stopped = False

    def restore(self, items: Iterable[Item], votes: Iterable[Vote], settled: int) -> None:
        """Put back what a snapshot held.

        What was known of the end is forgotten: the outside input is read on, and may have grown.
        """
        self._ready = deque(items)
        self.votes = [vote._replace(ended=False) for vote in votes]
        self.settled, self.restored = settled, True

    def add(self, item: Item | Vote | Ended) -> None:
        """Put something in; after `stop`, drop it."""
        if isinstance(item, Vote | Ended):
            self._heard.append(item)
        elif not self.stopped:
            self._added.append(item)

    def close_epoch(self) -> list[Item]:
        """Let all that was added be read in the next epoch; return what is on its way."""
        self._ready += self._added
        self._added.clear()
        for word in self._heard:
            if isinstance(word, Vote):
                self.votes.append(word)
            else:
                self.ended = True
        self._heard.clear()
        while len(said := [vote for vote in self.votes if vote.epoch == self.settled]) >= len(
            self._parts
        ):
            self._settle(said)
        return list(self._ready)

    def _settle(self, said: list[Vote]) -> None:
        if {vote.part for vote in said} != self._parts or len(said) != len(self._parts):
            raise ValueError(
                f"partitions {sorted(vote.part for vote in said)} vote in a loop of "
                f"{sorted(self._parts)}: give Loop the place of each process in its cluster, and "
                "as many workers as when the flow began"
            )
        self.silent = self.silent or all(vote.ended and not vote.emitted for vote in said)
        self.votes = [vote for vote in self.votes if vote.epoch > self.settled]
        self.settled += 1

    def take(self) -> list[Item]:
        """Return what earlier epochs have added."""
        taken, self._ready = list(self._ready), deque()
        return taken

    def take_new(self) -> list[Item]:
        """Return what this epoch has added so far."""
        return [self._added.popleft() for _ in range(len(self._added))]

    def stop(self) -> None:
        """Drop what is on its way, now and later: nobody takes it."""
        self.stopped = True
        self._ready.clear()
        self._added.clear()
