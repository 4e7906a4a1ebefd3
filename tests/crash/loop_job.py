"""Tokens that hop from place to place, for tests that kill it: ``loop_job.py DIRECTORY``.

Each token hops a number of times, in batches; every place sums what has come by, which shows a hop
too few as well as one too many. With CLUSTER=address,address it is process
``loop_job.py DIRECTORY INDEX`` of a cluster. With KILL_AT=n a process kills itself at the n-th
thing that happens to it; one that lives to the end tells how many there were.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSource, cluster_main, run_main

from connectors.files import NdjsonSink
from connectors.loop import Loop, Place
from connectors.loop.ends import LoopSinkPartition, LoopSourcePartition
from connectors.marks import output
from connectors.recovery import forget_unfinished

PLACES = 6
TOKENS = pa.schema({"token": pa.int64(), "hops": pa.int64()})
SUMS = pa.schema({"place": pa.string(), "count": pa.int64(), "sum": pa.int64()})
EPOCH = timedelta(milliseconds=float(os.environ.get("EPOCH_MS", "0")))

happened = 0


def dying(call: Callable[..., Any]) -> Callable[..., Any]:
    """Count a call, and die in it before or after when its time has come."""
    at = int(os.environ.get("KILL_AT", "-1"))

    def dies(*arguments: Any) -> Any:
        global happened
        happened += 1
        if happened == at:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments)
        happened += 1
        if happened == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return dies


class Sums(op.StatefulBatchLogic[pa.RecordBatch, pa.RecordBatch, list[int]]):
    """What has come by one place, which sends the tokens on."""

    def __init__(self, resume: list[int] | None) -> None:
        self._count, self._sum = resume or [0, 0]

    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], bool]:
        batch = pa.concat_batches(values)
        tokens, hops = batch["token"].to_numpy(), batch["hops"].to_numpy()
        self._count += len(tokens)
        self._sum += int(np.sum((tokens * 1_000_003 + hops * 7919) % 10_007))
        on = hops > 0
        return [pa.record_batch([tokens[on], hops[on] - 1], schema=TOKENS)], False

    def on_eof(self) -> tuple[list[pa.RecordBatch], bool]:
        return [pa.record_batch([[self._count], [self._sum]], schema=SUMS.remove(0))], False

    def snapshot(self) -> list[int]:
        return [self._count, self._sum]


def split(batch: pa.RecordBatch) -> list[tuple[str, pa.RecordBatch]]:
    """Send each token to a place that follows from where it is in its life."""
    tokens, hops = batch["token"].to_numpy(), batch["hops"].to_numpy()
    places = (tokens * 31 + hops * 17 + (tokens ^ hops) // 3) % PLACES
    return [
        (f"place {place}", batch.take(pa.array(np.flatnonzero(places == place))))
        for place in np.unique(places).tolist()
    ]


def flow(directory: Path, where: Place) -> Dataflow:
    made = Dataflow("hops")
    loop = Loop("tokens", mode=os.environ["MODE"], place=where)  # type: ignore[arg-type]
    starts = [
        pa.record_batch([[3 * i, 3 * i + 1, 3 * i + 2], [5 + i, 11, 2 * i]], schema=TOKENS)
        for i in range(8)
    ]
    outside = op.flat_map("start", op.input("in", made, TestingSource(starts)), split)
    every = op.merge("every", outside, loop.input("back", made))
    sums = op.stateful_batch("sums", every, Sums)
    words = op.branch("last", sums, lambda word: word[1].schema != TOKENS)
    on = op.filter("some", op.key_rm("on", words.falses), lambda batch: batch.num_rows > 0)
    loop.output("again", op.flat_map("split", on, split), outside=outside)

    def row(word: tuple[str, pa.RecordBatch]) -> tuple[str, pa.RecordBatch]:
        place, last = word
        return place, pa.record_batch([[place], *last.columns], schema=SUMS)

    output("file", op.map("row", words.trues, row), NdjsonSink(directory / "sums.ndjson", SUMS))
    return made


if __name__ == "__main__":
    for owner in (LoopSourcePartition, LoopSinkPartition, Sums):
        for name in ("next_batch", "write_batch", "on_batch", "snapshot"):
            if name in vars(owner):
                setattr(owner, name, dying(vars(owner)[name]))
    place = Path(sys.argv[1])
    forget_unfinished(place / "recovery")
    recovery = RecoveryConfig(place / "recovery", backup_interval=timedelta(0))
    if "CLUSTER" in os.environ:
        addresses = os.environ["CLUSTER"].split(",")
        index = int(sys.argv[2])
        made = flow(place, Place(index, len(addresses)))
        cluster_main(made, addresses, index, epoch_interval=EPOCH, recovery_config=recovery)
    else:
        run_main(flow(place, Place()), epoch_interval=EPOCH, recovery_config=recovery)
    print(happened)
