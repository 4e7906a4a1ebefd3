"""What sinks are told besides their items."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import run_main

from connectors import commits
from connectors.marks import KEY, Mark, output


class Holding(FixedPartitionedSink[Any, None]):
    """Lets items go once a snapshot that covers them is durable."""

    def __init__(self) -> None:
        self.complete = threading.Event()
        self.held: list[Any] = []
        self.covered = 0
        self.gone: list[Any] = []

    def list_parts(self) -> list[str]:
        return [KEY]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> HoldingPart:
        return HoldingPart(self)


class HoldingPart(StatefulSinkPartition[Any, None]):
    def __init__(self, sink: Holding) -> None:
        self._sink = sink
        commits.listen(self)

    def write_batch(self, values: list[Any]) -> None:
        sink = self._sink
        for value in values:
            if not isinstance(value, Mark):
                sink.held.append(value)
            elif value.total is not None:
                sink.complete.set()

    def committed(self) -> None:
        self._sink.gone = self._sink.held[: self._sink.covered]

    def snapshot(self) -> None:
        self._sink.covered = len(self._sink.held)


class OneThenQuiet(DynamicSource[Any]):
    """One item; then nothing until the sink has let it go."""

    def __init__(self, sink: Holding) -> None:
        self.sink = sink

    def build(self, step_id: str, worker_index: int, worker_count: int) -> QuietPart:
        return QuietPart(self.sink)


class QuietPart(StatelessSourcePartition[Any]):
    def __init__(self, sink: Holding) -> None:
        self._sink = sink
        self._until = 0.0

    def next_batch(self) -> list[Any]:
        if not self._until:
            self._until = time.monotonic() + 10
            return ["first"]
        if self._sink.gone or time.monotonic() > self._until:
            raise StopIteration
        return []


def test_what_a_sink_holds_may_go_though_no_item_follows() -> None:
    sink = Holding()
    flow = Dataflow("quiet")
    items = op.input("items", flow, OneThenQuiet(sink))
    output("out", op.key_on("key", items, lambda _: "k"), sink, sink.complete)
    run_main(flow, epoch_interval=timedelta(milliseconds=20))
    assert sink.gone == ["first"]
