"""End a source only when all it gave is safe, for flows whose end others must be able to trust."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.quic import commits

X = TypeVar("X")
S = TypeVar("S")

_POLL = timedelta(milliseconds=5)


class Settled(FixedPartitionedSource[X, S]):
    """Let a source end when a snapshot that covers its last item has been stored.

    Between that snapshot and the end the flow has nothing left to do that could turn out
    otherwise after a restart: not the order in which partitions were read, not the time at which
    something was emitted, not what a live input gave. So a `QuicSink` may say that the stream has
    ended. The price is up to one epoch. Without recovery the end of an epoch counts as stored.

    It also reports, as `QuicSource` does, that epochs are stored, so that a sink that holds its
    frames until then lets them go at once.

    Args:
        source: what to read.
    """

    def __init__(self, source: FixedPartitionedSource[X, S]) -> None:
        self._source = source

    def list_parts(self) -> list[str]:
        """Name the source's partitions."""
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: S | None) -> _Partition:
        """Build the source's partition."""
        return _Partition(self._source.build_part(step_id, for_part, resume_state))


class _Partition(StatefulSourcePartition[Any, Any]):
    def __init__(self, part: StatefulSourcePartition[Any, Any]) -> None:
        self._part = part
        self._ended = False
        self._snapshotted = False
        self._covered = False

    def next_batch(self) -> Iterable[Any]:
        if self._snapshotted:
            # The engine asks again only when the epoch of the snapshot has been stored.
            self._snapshotted = False
            commits.observed()
            if self._covered:
                raise StopIteration
        if not self._ended:
            try:
                return self._part.next_batch()
            except StopIteration:
                self._ended = True
        return []

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + _POLL if self._ended else self._part.next_awake()

    def snapshot(self) -> Any:
        self._snapshotted = True
        self._covered = self._ended
        return self._part.snapshot()

    def close(self) -> None:
        self._part.close()
