"""Know when a snapshot is durable, which Bytewax tells nobody.

A source is asked for items of an epoch only when the epoch before has been stored everywhere in
the cluster. So what a sink has snapshotted is durable once a source of the same process is asked
again after its own snapshot. `QuicSource` and the source of a sink's last mark report this here,
and sinks that hold what they got until then listen.
"""

from __future__ import annotations

import weakref
from typing import Protocol


class Holder(Protocol):
    """A sink that waits for its snapshot to be durable."""

    def committed(self) -> None:
        """Let go what the last snapshot covers."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()


def listen(holder: Holder) -> None:
    """Tell `holder` of every commit that is observed in this process."""
    _holders.add(holder)


def observed() -> None:
    """Report that every snapshot made so far in this process is durable."""
    for holder in list(_holders):
        holder.committed()
