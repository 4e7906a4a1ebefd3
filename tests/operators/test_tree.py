"""`tree_merge` against the sum of the newest states, however they come."""

import random
import re
import struct
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from bytewax.visualize import to_json

from operators.merge import Emit, tree_merge
from state.mergeable import Algebra, seal, unseal


class Total:
    """A number; not idempotent, so a state that is counted twice shows."""

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def merge(self, other: Self) -> None:
        self.value += other.value

    def to_bytes(self) -> bytes:
        return seal("total", 1, struct.pack("<q", self.value))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(*struct.unpack("<q", unseal("total", data, versions={1})[1]))


class Log(Total):
    algebra = Algebra.ORDERED_MONOID


Item = tuple[str, bytes]


def item(leaf: int | str, value: int) -> Item:
    return str(leaf), Total(value).to_bytes()


def tree(
    items: list[object], leaves: int | list[str], emit: Emit, fan_in: int = 2, batch: int = 1
) -> tuple[Dataflow, list[Item]]:
    out: list[Item] = []
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource(items, batch_size=batch))
    down = tree_merge("tree", up, Total, leaves=leaves, fan_in=fan_in, emit=emit)
    op.output("out", down, TestingSink(out))
    return flow, out


def failure(flow: Dataflow) -> str:
    with pytest.raises(BytewaxRuntimeError) as raised:
        run_main(flow)
    error: BaseException = raised.value
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def values(out: list[Item]) -> list[int]:
    assert {key for key, _ in out} <= {"root"}
    return [Total.from_bytes(data).value for _, data in out]


def test_each_state_replaces_the_earlier_one_of_its_leaf() -> None:
    flow, out = tree([item(0, 1), item(1, 10), item(0, 2), item(2, 100), item(1, 20)], 3, "change")
    run_main(flow)
    assert values(out) == [1, 11, 12, 112, 122]


@pytest.mark.parametrize(
    ("leaves", "fan_in", "depth"),
    [(1, 8, 1), (2, 2, 1), (8, 8, 1), (9, 8, 2), (64, 8, 2), (65, 8, 3), (1000, 10, 3)],
)
def test_the_whole_is_told_once_at_the_end(leaves: int, fan_in: int, depth: int) -> None:
    items: list[object] = [item(i % leaves, i) for i in range(2 * leaves)]
    flow, out = tree(items, leaves, "eof", fan_in, batch=50)
    run_main(flow)
    assert values(out) == [sum(range(leaves, 2 * leaves))]
    levels = set(re.findall(r"tree\.level_(\d+)", to_json(flow)))
    assert levels == {str(level + 1) for level in range(depth)}


def test_what_comes_together_is_told_together() -> None:
    flow, out = tree([item(i, 1) for i in range(8)], 8, "change", batch=8)
    run_main(flow)
    # Eight leaves, but nothing between the levels tells them that it is all one batch.
    assert values(out)[-1] == 8
    assert len(out) <= 4


def test_a_time_span_ends_with_the_whole() -> None:
    flow, out = tree([item(i, i) for i in range(8)], 8, timedelta(hours=1))
    run_main(flow)
    assert values(out) == [28]


def test_two_workers() -> None:
    names = [f"host-{i}" for i in range(64)]
    items: list[object] = [item(name, i) for i, name in enumerate(names)]
    flow, out = tree(items, names, "eof", fan_in=4)
    cluster_main(flow, [], 0, worker_count_per_proc=2)
    assert values(out) == [sum(range(64))]


def test_a_run_that_is_broken_off_goes_on(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path, backup_interval=timedelta(0))
    chance = random.Random(3)
    updates = [(chance.randrange(20), chance.randrange(1000)) for _ in range(60)]
    items: list[object] = [item(*update) for update in updates]
    for at in (50, 30, 10):
        items.insert(at, TestingSource.ABORT())
    flow, out = tree(items, 20, "eof", fan_in=3)
    for _ in range(4):
        run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    assert values(out)[-1] == sum(dict(updates).values())


def test_an_unknown_leaf_is_an_error() -> None:
    flow, _ = tree([item(3, 1)], 3, "change")
    assert "'3' is not a leaf of the tree" in failure(flow)


def test_bytes_that_are_no_state_are_an_error() -> None:
    flow, _ = tree([("0", b"junk")], 1, "change")
    assert failure(flow).startswith("ValueError: total:")


@pytest.mark.parametrize(("leaves", "fan_in"), [(0, 8), ([], 8), (["a", "a"], 8), (5, 1)])
def test_trees_that_cannot_be(leaves: int | list[str], fan_in: int) -> None:
    with pytest.raises(ValueError, match="step flow"):
        tree([], leaves, "eof", fan_in)


def test_ordered_states_are_refused() -> None:
    flow = Dataflow("flow")
    up = op.input("in", flow, TestingSource([item(0, 1)]))
    with pytest.raises(TypeError, match="Log is an ordered state"):
        tree_merge("tree", up, Log, leaves=1)
