"""`combine`, `fold` and `merge_states` agree with each other, and resume."""

import collections
import struct
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from operators.merge import Emit, combine, fold, merge_states
from state.mergeable import Algebra, seal, unseal


class Total:
    """The exact sum of an integer column."""

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    def __init__(self) -> None:
        self.value = 0

    def update(self, batch: pa.RecordBatch) -> None:
        self.value += sum(batch["x"].to_pylist())

    def merge(self, other: Self) -> None:
        self.value += other.value

    def to_bytes(self) -> bytes:
        return seal("total", 1, struct.pack("<q", self.value))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        state = cls()
        (state.value,) = struct.unpack("<q", unseal("total", data, versions={1})[1])
        return state


class Log(Total):
    algebra = Algebra.ORDERED_MONOID


def item(key: str, *values: int) -> tuple[str, pa.RecordBatch]:
    return key, pa.record_batch({"x": list(values)})


ITEMS = [item("a", 1, 2), item("b", 10), item("a", 3), item("b", 20), item("a", 4)]


def totals(out: list[tuple[str, bytes]]) -> dict[str, list[int]]:
    seen = collections.defaultdict(list)
    for key, data in out:
        seen[key].append(Total.from_bytes(data).value)
    return dict(seen)


def run_fold(emit: Emit, batch_size: int = 1) -> dict[str, list[int]]:
    flow, out = Dataflow("flow"), []
    up = op.input("in", flow, TestingSource(ITEMS, batch_size))
    op.output("out", fold("fold", up, Total, emit=emit), TestingSink(out))
    run_main(flow)
    return totals(out)


def test_fold_emits_each_change() -> None:
    assert run_fold("change") == {"a": [3, 6, 10], "b": [10, 30]}


def test_fold_emits_once_at_the_end() -> None:
    assert run_fold("eof") == {"a": [10], "b": [30]}


def test_fold_emits_by_the_clock_and_what_is_left_at_the_end() -> None:
    assert run_fold(timedelta(hours=1)) == {"a": [10], "b": [30]}
    by_clock = run_fold(timedelta(microseconds=1))
    assert by_clock["a"][-1] == 10
    assert by_clock["b"][-1] == 30


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_merging_combined_states_equals_folding(batch_size: int) -> None:
    flow, out = Dataflow("flow"), []
    up = op.input("in", flow, TestingSource(ITEMS, batch_size))
    merged = merge_states("merge", combine("combine", up, Total), Total, emit="eof")
    op.output("out", merged, TestingSink(out))
    run_main(flow)
    assert totals(out) == run_fold("eof")


def test_combine_makes_one_state_of_what_arrives_together() -> None:
    flow, out = Dataflow("flow"), []
    op.output(
        "out",
        combine("combine", op.input("in", flow, TestingSource(ITEMS, 5)), Total),
        TestingSink(out),
    )
    run_main(flow)
    assert totals(out) == {"a": [10], "b": [30]}


def test_pieces_of_an_ordered_state_are_refused() -> None:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(ITEMS))
    with pytest.raises(TypeError, match="Log is an ordered state"):
        combine("combine", up, Log)
    with pytest.raises(TypeError, match="Log is an ordered state"):
        merge_states("merge", op.map_value("bytes", up, bytes), Log)


@pytest.mark.parametrize("emit", ["change", "eof", timedelta(hours=1)])
def test_a_crash_loses_nothing_and_counts_nothing_twice(emit: Emit, tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    flow, out = Dataflow("flow"), []
    crashing = [*ITEMS[:3], TestingSource.ABORT(), *ITEMS[3:]]
    up = op.input("in", flow, TestingSource(crashing))
    op.output("out", fold("fold", up, Total, emit=emit), TestingSink(out))
    recovery = RecoveryConfig(str(tmp_path))
    for _ in range(2):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    final = totals(out)
    assert final["a"][-1] == 10
    assert final["b"][-1] == 30
