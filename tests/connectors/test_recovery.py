"""What a killed run left is not found by the one after the next; the engine is the judge."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main

from connectors.recovery import forget_unfinished

STEP = "flow.count.stateful_batch"


def run(directory: Path, inputs: list[object]) -> list[tuple[str, int]]:
    """Count items by their key, with a snapshot after each."""
    found: list[tuple[str, int]] = []
    flow = Dataflow("flow")
    keyed = op.key_on("key", op.input("in", flow, TestingSource(inputs)), lambda key: key)
    counted = op.stateful_map("count", keyed, lambda n, _: ((n or 0) + 1, (n or 0) + 1))
    op.output("out", counted, TestingSink(found))
    cluster_main(
        flow,
        [],
        0,
        epoch_interval=timedelta(0),
        recovery_config=RecoveryConfig(directory, backup_interval=timedelta(0)),
    )
    return found


def rows(directory: Path, query: str) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    for file in sorted(directory.glob("*.sqlite3")):
        with closing(sqlite3.connect(file)) as store:
            found += store.execute(query).fetchall()
    return found


def leave(directory: Path, *epochs: int) -> None:
    """Write snapshots of a key as a run does that is killed before it has finished an epoch."""
    with closing(sqlite3.connect(directory / "part-0.sqlite3")) as store, store:
        for epoch in epochs:
            store.execute(
                "INSERT OR REPLACE INTO snaps (step_id, state_key, snap_epoch, ser_change) "
                "VALUES ('left', 'k', ?, NULL)",
                (epoch,),
            )


@pytest.mark.parametrize("parts", [1, 3])
def test_the_epoch_is_the_one_from_which_the_engine_resumes(parts: int, tmp_path: Path) -> None:
    init_db_dir(tmp_path, parts)
    inputs: list[object] = ["a", "b", "a", TestingSource.ABORT(), "c", TestingSource.ABORT(), "a"]
    for _ in range(3):
        runs = rows(tmp_path, "SELECT ex_num, resume_epoch FROM exs")
        leave(tmp_path, *range(1, 40))
        forget_unfinished(tmp_path)
        left = rows(tmp_path, "SELECT MAX(snap_epoch) FROM snaps WHERE step_id = 'left'")
        run(tmp_path, inputs)
        ((number, resumed),) = set(rows(tmp_path, "SELECT ex_num, resume_epoch FROM exs")) - set(
            runs
        )
        assert number == len(set(runs))
        if runs:
            assert max(epoch for (epoch,) in left if epoch) == resumed - 1


@pytest.mark.parametrize("forget", [False, True])
def test_a_key_is_not_resumed_from_what_a_killed_run_left(forget: bool, tmp_path: Path) -> None:
    """Without it the engine takes the state of a time that has not been, three items too far."""
    init_db_dir(tmp_path, 1)
    inputs: list[object] = ["a", TestingSource.ABORT(), *"bbbbb", TestingSource.ABORT(), "a"]
    assert run(tmp_path, inputs) == [("a", 1)]
    # It had seen three more of a, and written down as much, when it was killed.
    ((resume,),) = rows(tmp_path, "SELECT MAX(worker_frontier) FROM fronts")
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as store, store:
        (step,) = store.execute("SELECT step_id FROM snaps WHERE state_key = 'a'").fetchone()
        store.execute(
            "INSERT INTO snaps VALUES ('', ?, 'a', ?, ?)", (step, resume, b"\x80\x04K\x04.")
        )
    if forget:
        assert forget_unfinished(tmp_path) > 0
    assert ("b", 5) in run(tmp_path, inputs)
    assert run(tmp_path, inputs)[-1] == ("a", 2 if forget else 5)


@pytest.mark.parametrize(("reached", "left"), [([], 4), ([(0, 9)], 4), ([(0, 9), (1, 7)], 6)])
def test_the_slowest_worker_of_the_last_run_counts(
    reached: list[tuple[int, int]], left: int, tmp_path: Path
) -> None:
    init_db_dir(tmp_path, 1)
    leave(tmp_path, *range(1, 20))
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as store, store:
        for number, epoch in ((0, 1), (1, 5)):
            store.execute("INSERT INTO exs VALUES ('', ?, 2, ?)", (number, epoch))
        store.execute("INSERT INTO fronts VALUES ('', 0, 0, 15)")
        for worker, epoch in reached:
            store.execute("INSERT INTO fronts VALUES ('', 1, ?, ?)", (worker, epoch))
    assert forget_unfinished(tmp_path) == 19 - left
    assert rows(tmp_path, "SELECT MAX(snap_epoch) FROM snaps") == [(left,)]


def test_where_a_partition_is_elsewhere_nothing_is_deleted(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 2)
    run(tmp_path, ["a", "b", TestingSource.ABORT()])
    leave(tmp_path, 39)
    (tmp_path / "part-1.sqlite3").unlink()
    assert forget_unfinished(tmp_path) == 0
    assert forget_unfinished(tmp_path / "nowhere") == 0


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-0.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(sqlite3.Error):
        forget_unfinished(tmp_path)
