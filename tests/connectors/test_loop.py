"""Feedback edges: the barrier, the end, and what is refused."""

import pickle
import threading
from datetime import timedelta
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from connectors.loop import Loop, Place
from connectors.loop.ends import Edge, LoopSink
from connectors.loop.queue import Ended, Queue, Vote

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
    run(countdown([("a", 1000)], out, Loop("n", place=Place(), max_supersteps=10)))
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
    loop.output(
        "again", op.filter_value("some", smaller, lambda b: b.num_rows > 0), outside=outside
    )
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
    with pytest.raises(ValueError, match="at least 1"):
        Loop("n", max_supersteps=0)
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


def cause(raised: pytest.ExceptionInfo[BaseException]) -> BaseException:
    """The error that the engine wraps."""
    error = raised.value
    while error.__cause__ is not None and not str(error).startswith("loop "):
        error = error.__cause__
    return error


@pytest.mark.parametrize("item", [object(), pa.table({"n": [1]}), 1 << 70], ids=type)
def test_an_item_that_cannot_be_snapshotted_is_an_error(item: object) -> None:
    flow = Dataflow("flow")
    loop = Loop("n", place=Place())
    back = loop.input("back", flow)
    outside = op.input("outside", flow, TestingSource([("a", item)]))
    loop.output("again", op.merge("every", outside, back), outside=outside)
    with pytest.raises(BaseException) as raised:
        run(flow)
    assert isinstance(cause(raised), TypeError)
    assert "loop 'n', key 'a'" in str(cause(raised))


def test_a_loop_without_an_output_is_an_error() -> None:
    flow = Dataflow("flow")
    op.output("out", Loop("n", place=Place()).input("back", flow), TestingSink([]))
    with pytest.raises(BaseException) as raised:
        run(flow)
    assert "an input and no output" in str(cause(raised))


def test_both_ends_are_in_one_flow() -> None:
    loop = Loop("n", place=Place())
    loop.input("back", Dataflow("one"))
    other = op.input("outside", Dataflow("other"), TestingSource([("a", 1)]))
    with pytest.raises(ValueError, match="another flow"):
        loop.output("again", other, outside=other)


def test_a_flow_runs_once() -> None:
    flow = countdown(STARTS, [], Loop("n", place=Place()))
    run(flow)
    with pytest.raises(BaseException) as raised:
        run(flow)
    assert "make its flow anew" in str(cause(raised))


@pytest.mark.parametrize(
    ("place", "workers"), [(Place(workers=2), 1), (Place(workers=1), 2), (Place(workers=3), 2)]
)
def test_any_number_of_partitions_in_one_process_is_exact(place: Place, workers: int) -> None:
    out: list[Item] = []
    run(countdown(STARTS, out, Loop("n", place=place)), workers=workers)
    assert sorted(out) == ALL


@pytest.mark.parametrize(
    ("place", "workers"), [(Place(0, 2), 1), (Place(1, 2), 1), (Place(0, 3), 2)]
)
def test_a_place_in_another_cluster_is_an_error(place: Place, workers: int) -> None:
    with pytest.raises(BaseException) as raised:
        run(countdown(STARTS, [], Loop("n", place=place)), workers=workers)
    assert "place of each process" in str(cause(raised))


def test_two_loops_of_one_name_do_not_mix() -> None:
    flow = Dataflow("flow")
    seen: dict[str, list[int]] = {}
    for which, start in (("low", 4), ("high", 104)):
        loop = Loop("n", place=Place())
        outside = op.input(f"outside_{which}", flow, TestingSource([("a", start)]))
        every = op.merge(f"every_{which}", outside, loop.input(f"back_{which}", flow))
        op.output(f"out_{which}", every, TestingSink(seen.setdefault(which, [])))
        less = op.map_value(f"less_{which}", every, lambda n: n - 1)
        loop.output(
            f"again_{which}",
            op.filter_value(f"more_{which}", less, lambda n: n % 100 > 0),
            outside=outside,
        )
    run(flow)
    assert seen == {
        "low": [("a", n) for n in (4, 3, 2, 1)],
        "high": [("a", n) for n in (104, 103, 102, 101)],
    }


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_items_come_back_on_the_worker_that_holds_their_key(workers: int) -> None:
    came: list[tuple[str, int]] = []
    held: set[tuple[str, int]] = set()

    def come(item: Item) -> Item:
        came.append((item[0], threading.get_ident()))
        return item

    flow = Dataflow("flow")
    loop = Loop("n", place=Place(workers=workers))
    back = op.map("come", loop.input("back", flow), come)
    starts: list[Any] = [(f"key {i}", 4) for i in range(12)]
    outside = op.input("outside", flow, TestingSource(starts, batch_size=12))

    class Hold(op.StatefulLogic[Item, Item, int]):
        def on_item(self, value: Item) -> tuple[list[Item], bool]:
            held.add((value[0], threading.get_ident()))
            return [value], False

        def snapshot(self) -> int:
            return 0

    every = op.map("pair", op.merge("every", outside, back), lambda item: (item[0], item))
    kept = op.map("unpair", op.stateful("hold", every, lambda _: Hold()), lambda pair: pair[1])
    less = op.map_value("less", kept, lambda n: n - 1)
    loop.output("again", op.filter_value("more", less, lambda n: n > 0), outside=outside)
    run(flow, workers=workers)
    assert len(came) == 36
    assert set(came) == held
    assert len({thread for _, thread in held}) == workers


@pytest.mark.parametrize("mode", ["superstep", "async"])
def test_a_run_that_is_resumed_after_its_end_takes_more(tmp_path: Any, mode: Any) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path, backup_interval=timedelta(0))
    out: list[Item] = []
    for items in (STARTS, STARTS, [*STARTS, ("e", 9)]):
        loop = Loop("n", mode=mode, place=Place())
        run(countdown(list(items), out, loop), 0.005, recovery_config=recovery)
    assert sorted(out) == sorted([*ALL, *(("e", n) for n in range(10))])


def test_an_interval_that_cannot_hold_supersteps_is_exact_or_an_error() -> None:
    """The engine does not always ask for a batch in an epoch this short."""
    out: list[Item] = []
    try:
        run(countdown(STARTS, out, Loop("n", place=Place())), 2e-5)
    except BaseException as error:
        assert "set it to zero" in str(error.__cause__ or error)  # noqa: PT017
    else:
        assert sorted(out) == ALL


def test_items_after_the_last_superstep_are_dropped() -> None:
    flow = Dataflow("flow")
    loop = Loop("n", place=Place(), max_supersteps=3)
    out: list[Item] = []
    outside = op.input("outside", flow, TestingSource([("a", n) for n in range(50)]))
    op.output("out", loop.input("back", flow), TestingSink(out))
    loop.output("again", outside, outside=outside)
    run(flow)
    assert out == [("a", 0), ("a", 1)]


def test_a_snapshot_brings_back_what_is_on_its_way() -> None:
    edge = Edge("n", ["n-0"], {"n-0": Queue(["n-0"])}, True, None, tuple[int, str])
    sink = LoopSink(edge).build_part("out", "n-0", None)
    batch = pa.record_batch({"n": [1, None], "text": ["a", "b"]})
    dictionary = pa.record_batch({"word": pa.array(["x", "y", "x"]).dictionary_encode()})
    items = [("k", batch), ("l", b"raw"), ("m", (1, "two")), ("n", dictionary), ("o", batch)]
    sink.write_batch([*items, Vote(-1, "n-0", 0, True), Vote(0, "n-0", 5, True)])
    position = sink.snapshot()
    assert pickle.loads(pickle.dumps(position)) == position
    assert len(position.schemas) == 1
    assert position.settled == 1

    again = Edge("n", ["n-0"], {"n-0": Queue(["n-0"])}, True, None, tuple[int, str])
    LoopSink(again).build_part("out", "n-0", position)
    assert again.queues["n-0"].take() == items
    assert not again.queues["n-0"].ended


def test_a_queue_is_silent_after_an_epoch_without_items_and_more_input() -> None:
    queue = Queue(["a", "b"])
    epochs = [
        [Vote(-1, "a", 0, False), Vote(-1, "b", 0, False)],
        [Vote(0, "a", 0, False), Vote(0, "b", 0, False)],  # nothing, but input may come
        [Vote(1, "a", 0, True), Ended(), Vote(1, "b", 1, True)],  # one has something
        [Vote(2, "a", 0, True)],  # the other is late
    ]
    for words in epochs:
        for word in words:
            queue.add(word)
        queue.close_epoch()
        assert not queue.silent
    queue.add(Vote(2, "b", 0, True))
    queue.close_epoch()
    assert queue.silent


@pytest.mark.parametrize("second", ["a", "c"])
def test_votes_of_other_partitions_are_refused(second: str) -> None:
    queue = Queue(["a", "b"])
    queue.add(Vote(-1, "a", 0, False))
    queue.add(Vote(-1, second, 0, False))
    with pytest.raises(ValueError, match="place of each process"):
        queue.close_epoch()
