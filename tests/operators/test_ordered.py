"""`ordered_map`: results in the order of the items, on any number of workers, across a crash."""

from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.ordered import ordered_map

ITEMS = [(key, n) for n in range(200) for key in ("a", "b")]


def flow_over(items: list, out: list) -> Dataflow:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(items, batch_size=3))
    op.output("out", ordered_map("square", up, lambda n: n * n), TestingSink(out))
    return flow


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_order_is_kept_on_any_number_of_workers(workers: int) -> None:
    out: list[tuple[str, int]] = []
    cluster_main(flow_over(ITEMS, out), [], 0, worker_count_per_proc=workers)
    for key in ("a", "b"):
        assert [n for k, n in out if k == key] == [n * n for n in range(200)]


def test_order_survives_a_crash(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    out: list[tuple[str, int]] = []
    flow = flow_over([*ITEMS[:100], TestingSource.ABORT(), *ITEMS[100:]], out)
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    first = [n for key, n in out if key == "a"]
    assert sorted(set(first)) == [n * n for n in range(200)]
    assert first[-1] == 199 * 199
