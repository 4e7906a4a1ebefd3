"""Tell a sink when its input begins, when it is complete, and when all of it is durable.

Bytewax builds a sink at its first item and closes it after failures as it does at the end, so a
sink alone knows neither an empty stream nor a complete one. :func:`output` sends a :class:`Mark`
before the items, and another with their number once no worker has any left. A sink that may let
nothing go before a snapshot covers it asks for a third one, in an epoch of its own: the engine
begins an epoch only when the one before has been stored.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow, Stream, operator
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import KeyedStream, StatefulLogic
from bytewax.outputs import FixedPartitionedSink

from connectors import commits

_LOOK = timedelta(milliseconds=10)
"""How often a closing source looks whether the others have ended."""

KEY = "run"
"""The one partition of a sink that takes marks."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What :func:`output` tells a sink besides its items.

    Args:
        total: None at the begin; at the end, the number of items that were sent.
        settled: All items came in epochs whose snapshots are durable.
    """

    total: int | None = None
    settled: bool = False


def check_opened(opened: bool, place: object) -> None:
    """Check at the end of an epoch that a sink has seen the mark at the begin.

    Within an epoch items of other sources may overtake it.

    Raises:
        ValueError: it has not.
    """
    if not opened:
        raise ValueError(
            f"{place}: connect the stream with connectors.marks.output (or connectors.quic.send); "
            "bytewax.operators.output does not tell a sink that its input is complete"
        )


class _Opening(FixedPartitionedSource[Mark, bool]):
    """One mark, so that a stream without items builds its sink too."""

    def list_parts(self) -> list[str]:
        return [KEY]

    def build_part(
        self, step_id: str, for_part: str, resume_state: bool | None
    ) -> StatefulSourcePartition[Mark, bool]:
        return _OpeningPartition(bool(resume_state))


class _OpeningPartition(StatefulSourcePartition[Mark, bool]):
    def __init__(self, sent: bool) -> None:
        self._sent = sent

    def next_batch(self) -> Iterable[Mark]:
        if self._sent:
            raise StopIteration
        self._sent = True
        return [Mark()]

    def snapshot(self) -> bool:
        return self._sent


def opening(step_id: str, flow: Dataflow) -> Stream[Mark]:
    """Return a stream of one mark, once in a flow's life: a seed for states that wait for an end.

    A stateful step is told that its input has ended only if it ever had any.
    """
    return op.input(step_id, flow, _Opening())


class _Counter(StatefulLogic[int, Mark, int]):
    """Count items, and tell the count when there are no more anywhere in the cluster."""

    def __init__(self, resume: int | None) -> None:
        self._total = resume or 0

    def on_item(self, value: int) -> tuple[list[Mark], bool]:
        self._total += value
        return [], False

    def on_eof(self) -> tuple[list[Mark], bool]:
        return [Mark(self._total)], False

    def snapshot(self) -> int:
        return self._total


class _Closing(FixedPartitionedSource[Mark, None]):
    """One mark, in the epoch after the one in which `complete` was set.

    Until then it tells the sinks of its process, once an epoch, that the one before is durable.
    Its partition has the sink's name, so the engine puts both on one worker.
    """

    def __init__(self, complete: threading.Event) -> None:
        self._complete = complete

    def list_parts(self) -> list[str]:
        return [KEY]

    def build_part(
        self, step_id: str, for_part: str, resume_state: None
    ) -> StatefulSourcePartition[Mark, None]:
        return _ClosingPartition(self._complete)


class _ClosingPartition(StatefulSourcePartition[Mark, None]):
    def __init__(self, complete: threading.Event) -> None:
        self._complete = complete
        self._seen = False
        self._snapshotted = False
        self._next_epoch = False
        self._sent = False

    def next_batch(self) -> Iterable[Mark]:
        if self._snapshotted:
            self._snapshotted = False
            commits.observed()
        if self._sent:
            raise StopIteration
        if not self._next_epoch:
            self._seen = self._complete.is_set()
            return []
        self._sent = True
        return [Mark(settled=True)]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + _LOOK

    def snapshot(self) -> None:
        # The other sources have ended in this epoch: this one cannot be ahead of them.
        self._next_epoch = self._seen
        self._snapshotted = True


@operator
def output(
    step_id: str,
    up: KeyedStream[Any],
    sink: FixedPartitionedSink[Any, Any],
    complete: threading.Event | None = None,
) -> None:
    """Write a stream to a sink that takes marks: those of `connectors.files` and `QuicSink`.

    Use it in place of ``bytewax.operators.output``. All items go to the sink's one partition,
    whatever their key.

    Args:
        step_id: unique name of the step.
        up: what to write.
        sink: where to.
        complete: set by the sink once it has all items; the mark that says that their snapshots
            are durable follows then, and the flow ends one epoch later.
    """
    begin = opening("open", up.flow())
    zero = op.map("begin", begin, lambda _: (KEY, 0))
    ones = op.flat_map_batch("one", up, lambda batch: [(KEY, len(batch))])
    end = op.stateful("count", op.merge("counted", zero, ones), _Counter)
    marks: list[KeyedStream[Any]] = [op.key_on("begin_key", begin, lambda _: KEY), end]
    if complete is not None:
        closing = op.input("close", up.flow(), _Closing(complete))
        marks.append(op.key_on("close_key", closing, lambda _: KEY))
    op.output("write", op.merge("all", up, *marks), sink)
