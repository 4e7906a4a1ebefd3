"""What flows for `killed_flow.run_until_done` share: a source that kills, files, a run."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import KeyedStream
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main

from connectors.files import NdjsonSink
from connectors.marks import output
from connectors.recovery import forget_unfinished

_PLACE = Path(os.environ.get("PLACE", "."))


class Items(FixedPartitionedSource[Any, int]):
    """What is made of the numbers below `count`; before those in KILL_AT it kills itself, once."""

    def __init__(self, count: int, make: Callable[[int], Any]) -> None:
        self._count, self._make = count, make

    def list_parts(self) -> list[str]:
        return ["items"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Part":
        return _Part(self._count, self._make, resume_state or 0)


class _Part(StatefulSourcePartition[Any, int]):
    def __init__(self, count: int, make: Callable[[int], Any], at: int) -> None:
        self._count, self._make, self._at = count, make, at

    def next_batch(self) -> list[Any]:
        if self._at == self._count:
            raise StopIteration
        _die_once(self._at)
        self._at += 1
        return [self._make(self._at - 1)]

    def snapshot(self) -> int:
        return self._at


def _die_once(at: int) -> None:
    done = _PLACE / "killed"
    killed = done.read_text().split() if done.exists() else []
    if str(at) in os.environ["KILL_AT"].split(",") and str(at) not in killed:
        with done.open("a") as file:
            file.write(f"{at} ")
        os.kill(os.getpid(), signal.SIGKILL)


def keep(name: str, rows: KeyedStream[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write a stream to PLACE/NAME.ndjson."""
    output(f"{name}_file", rows, NdjsonSink(_PLACE / f"{name}.ndjson", schema))


def run(flow: Dataflow) -> None:
    """Run a flow with a snapshot after each item, from the last one on."""
    forget_unfinished(_PLACE / "recovery")
    recovery = RecoveryConfig(_PLACE / "recovery", backup_interval=timedelta(0))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
