"""How long a superstep of a loop takes: ``python -m benchmarks.loop``.

One token for each worker goes round and round, so that what is timed is the engine's barrier, the
votes and the queue. 1 worker, 2 workers in one process, and 2 processes take turns, each in three
variants: a bare flow without a loop, of as many epochs that emit one item each, which is the least
that a superstep can take, since it is an epoch; the loop; and the loop with a recovery store, to
which every superstep is then written.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import bytewax.operators as op
import numpy as np
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import KeyedStream
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, cluster_main, run_main

from connectors.loop import Loop, Place
from state.routing import worker_of

SUPERSTEPS = 2000
ROUNDS = 5
WARM = 200
AIM = 0.5e-3
VARIANTS = ("bare", "loop", "stored")
LAYOUTS = {"1 worker": (1, 1), "2 workers": (1, 2), "2 processes": (2, 1)}


def keys(workers: int) -> list[str]:
    """Return a key that each worker holds."""
    return [
        next(key for key in map(str, range(1000)) if worker_of(key, workers) == worker)
        for worker in range(workers)
    ]


class _Nowhere(DynamicSink[Any]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _NowherePartition:
        return _NowherePartition()


class _NowherePartition(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        """Drop them."""


class _Beat(DynamicSource[int]):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _BeatPartition:
        return _BeatPartition()


class _BeatPartition(StatelessSourcePartition[int]):
    def __init__(self) -> None:
        self._left = SUPERSTEPS

    def next_batch(self) -> list[int]:
        if not self._left:
            raise StopIteration
        self._left -= 1
        return [self._left]


def flow(place: Place, times: list[float], *, bare: bool = False) -> Dataflow:
    """Build a flow that notes when the first worker begins each superstep."""
    made = Dataflow("supersteps")
    first, *_ = held = keys(place.processes * place.workers)

    def note(item: Any) -> Any:
        if bare or item[0] == first:
            times.append(time.perf_counter())
        return item

    if bare:
        beats = op.input("beat", made, _Beat())
        op.output("out", op.map("note", beats, note), _Nowhere())
        return made
    loop = Loop("tokens", place=place, max_supersteps=SUPERSTEPS)
    back: KeyedStream[int] = loop.input("back", made)
    starts = [(key, 0) for key in held]
    outside = op.input("outside", made, TestingSource(starts, batch_size=len(starts)))
    every = op.map("note", op.merge("every", outside, back), note)
    loop.output("again", op.map_value("next", every, lambda n: n + 1), outside=outside)
    return made


def run(process: int, processes: int, workers: int, variant: str, shared: Path) -> list[float]:
    """Run one process; return the seconds of each superstep after the first ones."""
    times: list[float] = []
    made = flow(Place(process, processes, workers), times, bare=variant == "bare")
    recovery = RecoveryConfig(shared, timedelta(0)) if variant == "stored" else None
    if processes * workers == 1:
        run_main(made, epoch_interval=timedelta(0), recovery_config=recovery)
    else:
        cluster_main(
            made,
            (shared / "addresses").read_text().split() if processes > 1 else [],
            process,
            worker_count_per_proc=workers,
            epoch_interval=timedelta(0),
            recovery_config=recovery,
        )
    return [after - before for before, after in pairwise(times[WARM:])]


def measure(processes: int, workers: int, variant: str) -> list[float]:
    """Run a layout in processes of its own; return what the first one measured."""
    with tempfile.TemporaryDirectory() as shared:
        init_db_dir(Path(shared), processes * workers)
        (Path(shared) / "addresses").write_text("\n".join(_free(processes)))
        layout = (str(processes), str(workers), variant, shared)
        command = (sys.executable, "-m", "benchmarks.loop")
        running = [
            subprocess.Popen([*command, str(process), *layout], stdout=subprocess.PIPE)
            for process in range(processes)
        ]
        outputs = [process.communicate(timeout=300)[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError(f"a process of {processes} x {workers}, {variant}, failed")
    seconds: list[float] = json.loads(outputs[0].splitlines()[-1])
    return seconds


def _free(count: int) -> Iterator[str]:
    bound = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    for server in bound:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    for server in bound:
        server.close()


def main() -> None:
    """Measure all layouts in turn; print a table and the JSON line."""
    rounds: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: {variant: [] for variant in VARIANTS} for name in LAYOUTS
    }
    for _ in range(ROUNDS):
        for name, (processes, workers) in LAYOUTS.items():
            for variant in VARIANTS:
                seconds = np.percentile(measure(processes, workers, variant), [50, 99])
                rounds[name][variant].append((float(seconds[0]), float(seconds[1])))
    print(f"ms of a superstep, median of {ROUNDS} rounds of {SUPERSTEPS}; bare: epochs, no loop")
    print(" " * 12 + "".join(f"{v + ' p50':>12}{v + ' p99':>12}" for v in VARIANTS))
    layouts = {
        name: {
            variant: [statistics.median(each) for each in zip(*measured, strict=True)]
            for variant, measured in variants.items()
        }
        for name, variants in rounds.items()
    }
    for name, variants in layouts.items():
        print(
            f"{name:12}" + "".join(f"{x * 1e3:12.3f}" for both in variants.values() for x in both)
        )
    alone = rounds["1 worker"]
    ratios = [bare[0] / loop[0] for loop, bare in zip(alone["loop"], alone["bare"], strict=True)]
    ours, stored = layouts["1 worker"]["loop"][0], layouts["1 worker"]["stored"][0]
    line = {
        "name": "superstep on one worker, against a bare epoch",
        "ours": ours,
        "theirs": layouts["1 worker"]["bare"][0],
        "unit": "s",
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": ROUNDS,
        "target_seconds": AIM,
        "met": ours <= AIM,
        "met_stored": stored <= AIM,
        "p50_p99": layouts,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        index, count, threads = map(int, sys.argv[1:4])
        print(json.dumps(run(index, count, threads, sys.argv[4], Path(sys.argv[5]))))
    else:
        main()
