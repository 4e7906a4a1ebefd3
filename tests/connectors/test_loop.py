"""Feedback edges: the barrier, the end, and what is refused."""

from datetime import timedelta
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from connectors.loop import Loop, Place

Item = tuple[str, Any]


def countdown(items: list[Any], out: list[Item], loop: Loop) -> Dataflow:
    """Send each number round until it is 0, one less each time."""
    flow = Dataflow("flow")
    back = loop.input("back", flow)
    outside = op.input("outside", flow, TestingSource(items))
    every = op.merge("every", outside, back)
    less = op.map_value("less", op.filter_value("more", every, lambda n: n > 0), lambda n: n - 1)
    loop.output("again", less, outside=outside)
    op.output("out", every, TestingSink(out))
    return flow


def run(flow: Dataflow, epoch: float = 0, workers: int = 1, **more: Any) -> None:
    interval = timedelta(seconds=epoch)
    if workers == 1:
        run_main(flow, epoch_interval=interval, **more)
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers, epoch_interval=interval, **more)


STARTS = [("a", 7), ("b", 3), ("c", 0), ("d", 12)]
ALL = sorted((key, n) for key, start in STARTS for n in range(start + 1))


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    ("mode", "epoch"), [("superstep", 0), ("superstep", 0.01), ("async", 0.01)]
)
def test_items_go_round_until_none_is_left(mode: Any, epoch: float, workers: int) -> None:
    out: list[Item] = []
    run(countdown(STARTS, out, Loop("n", mode=mode, place=Place(workers=workers))), epoch, workers)
    assert sorted(out) == ALL


@pytest.mark.parametrize("mode", ["superstep", "async"])
def test_a_loop_without_items_ends(mode: Any) -> None:
    out: list[Item] = []
    run(countdown([], out, Loop("n", mode=mode, place=Place())), 0.01)
    assert out == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_sent_in_a_superstep_comes_back_in_the_next(workers: int) -> None:
    out: list[Item] = []
    starts: list[Any] = [(str(i), 20) for i in range(10)]
    run(countdown(starts, out, Loop("n", place=Place(workers=workers))), workers=workers)
    values = [value for _, value in out]
    # TestingSource hands out one item an epoch, so item i is i supersteps behind the first.
    rounds = {key: [] for key, _ in starts}  # type: ignore[var-annotated]
    for at, (key, value) in enumerate(out):
        rounds[key].append((value, at))
    assert len(values) == 210
    assert all([value for value, _ in seen] == list(range(20, -1, -1)) for seen in rounds.values())


def test_the_barrier_holds_back_all_of_a_superstep() -> None:
    """Sum what comes in one superstep: with a barrier it is all that was sent in the one before."""
    out: list[int] = []
    flow = Dataflow("flow")
    loop = Loop("n", place=Place(workers=2))
    back = loop.input("back", flow)
    outside = op.input("outside", flow, TestingSource([[("a", 1), ("b", 1), ("c", 1), ("d", 1)]]))
    items = op.flat_map("items", outside, lambda batch: batch)
    every = op.merge("every", items, back)

    def spread(item: Item) -> list[Item]:
        _, level = item
        out.append(level)
        return [(target, level + 1) for target in "abcd"] if level < 5 else []

    loop.output("again", op.flat_map("spread", every, spread), outside=items)
    op.output("out", every, TestingSink([]))
    run(flow, workers=2)
    assert [out.count(level) for level in range(1, 6)] == [4, 16, 64, 256, 1024]
    assert out == sorted(out), "an item overtook one of an earlier superstep"


def test_it_ends_after_the_most_supersteps() -> None:
    out: list[Item] = []
    run(countdown([("a", 1000)], out, Loop("n", place=Place(), most=10)))
    assert 8 <= len(out) <= 10


@pytest.mark.parametrize("mode", ["superstep", "async"])
def test_a_run_that_is_broken_off_goes_on(tmp_path: Any, mode: Any) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path, backup_interval=timedelta(0))
    items: list[Any] = [("a", 40), ("b", 25), ("c", 30)]
    for at in (2, 1):
        items.insert(at, TestingSource.ABORT())
    out: list[Item] = []
    for _ in range(3):
        run(countdown(items, out, Loop("n", mode=mode, place=Place())), 0, recovery_config=recovery)
    assert set(out) == {
        (key, n) for key, start in (("a", 40), ("b", 25), ("c", 30)) for n in range(start + 1)
    }


def test_batches_go_round() -> None:
    out: list[int] = []
    flow = Dataflow("flow")
    loop = Loop("batches", place=Place())
    back = loop.input("back", flow)
    first = pa.record_batch({"n": [3, 5]})
    outside = op.input("outside", flow, TestingSource([("k", first)]))
    every = op.merge("every", outside, back)

    def less(batch: pa.RecordBatch) -> pa.RecordBatch:
        numbers = [n - 1 for n in batch["n"].to_pylist() if n > 1]
        return pa.record_batch({"n": pa.array(numbers, pa.int64())})

    op.inspect("see", every, lambda _, item: out.extend(item[1]["n"].to_pylist()))
    smaller = op.map_value("less", every, less)
    loop.output("again", op.filter_value("some", smaller, lambda b: b.num_rows > 0), outside=outside)
    op.output("out", every, TestingSink([]))
    run(flow)
    assert out == [3, 5, 2, 4, 1, 3, 2, 1]


def test_a_loop_has_one_input_before_its_one_output() -> None:
    flow = Dataflow("flow")
    loop = Loop("n", place=Place())
    outside = op.input("outside", flow, TestingSource([("a", 1)]))
    with pytest.raises(ValueError, match="no input before its output"):
        loop.output("again", outside, outside=outside)
    loop.input("back", flow)
    with pytest.raises(ValueError, match="two inputs"):
        loop.input("back2", flow)
    loop.output("again", outside, outside=outside)
    with pytest.raises(ValueError, match="two outputs"):
        loop.output("again2", outside, outside=outside)


def test_options_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="mode"):
        Loop("n", mode="eventually")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one superstep"):
        Loop("n", most=0)
    with pytest.raises(ValueError, match="no place"):
        Place(process=2, processes=2)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ([], Place()),
        (["jobs.x", "-w", "3"], Place(workers=3)),
        (["jobs.x", "-i", "1", "-a", "h:1;h:2;h:3", "-w", "2"], Place(1, 3, 2)),
        (["jobs.x", "--process-id=1", "--addresses=h:1;h:2"], Place(1, 2, 1)),
    ],
)
def test_the_place_of_a_process(arguments: list[str], place: Place) -> None:
    assert Place.of_this_process(arguments) == place


def test_an_item_that_cannot_be_snapshotted_is_an_error(tmp_path: Any) -> None:
    flow = Dataflow("flow")
    loop = Loop("n", place=Place())
    back = loop.input("back", flow)
    outside = op.input("outside", flow, TestingSource([("a", object())]))
    loop.output("again", op.merge("every", outside, back), outside=outside)
    with pytest.raises(Exception) as raised:
        run(flow)
    error: BaseException = raised.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, TypeError)
