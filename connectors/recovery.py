"""What a run that was killed leaves in Bytewax's recovery store, and the next must not go on from.

A run writes snapshots of an epoch before the epoch is finished. When it is killed then, the next
run resumes before that epoch, and its own epochs have the same numbers. It writes over what it
snapshots again; but a key that it does not touch until it is killed too, past that number, is then
resumed from the snapshot of the first run, which had seen items that are to come again. So what
lies at or after the epoch to resume from is to be deleted before a flow is run:

    forget_unfinished(directory)
    run_main(flow, recovery_config=RecoveryConfig(directory))

The epoch is found as Bytewax 0.21 finds it: the least that any worker of the last run has reached.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_BUSY = 30.0
"""Seconds to wait for another process of a cluster that does the same."""


def forget_unfinished(directory: Path) -> int:
    """Delete the snapshots of epochs that were not finished; return how many there were.

    Nothing is deleted where not all partitions of the store are in the directory, for the others
    may know of later epochs. No flow may be running on it.

    Raises:
        sqlite3.Error: a file is no recovery partition, or cannot be written.
    """
    files = sorted(directory.glob("part-*.sqlite3"))
    parts: set[int] = set()
    counts: set[int] = set()
    runs: dict[int, tuple[int, int]] = {}
    reached: dict[int, dict[int, int]] = {}
    for file in files:
        with closing(_open(file)) as store:
            for part, count in store.execute("SELECT part_index, part_count FROM parts"):
                parts.add(part)
                counts.add(count)
            for run, workers, epoch in store.execute(
                "SELECT ex_num, worker_count, resume_epoch FROM exs"
            ):
                runs[run] = workers, epoch
            for run, worker, epoch in store.execute(
                "SELECT ex_num, worker_index, worker_frontier FROM fronts"
            ):
                known = reached.setdefault(run, {})
                known[worker] = max(known.get(worker, 0), epoch)
    if not runs or counts != {len(parts)}:
        return 0
    last = max(runs)
    workers, begun = runs[last]
    resume = min(reached.get(last, {}).get(worker, begun) for worker in range(workers))
    deleted = 0
    for file in files:
        with closing(_open(file)) as store, store:
            deleted += store.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (resume,)).rowcount
    return deleted


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=_BUSY)
