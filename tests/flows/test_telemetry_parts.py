"""Parts replace one another: duplicates, replays and restarts change nothing."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from flows.telemetry_parts import Part, newest, observe
from flows.telemetry_state import Telemetry
from state.schemas import EVENTS

HOUR = timedelta(hours=1)
ALWAYS, NEVER = timedelta(microseconds=1), timedelta(days=1)


class Clock:
    """Seconds that pass one by one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def batch(hour: int, users: Iterable[int]) -> pa.RecordBatch:
    rows = [
        {
            "time": datetime(2026, 1, 1, hour, tzinfo=UTC),
            "agent": "a",
            "user": f"u{i}",
            "endpoint": "/",
            "latency_ms": float(i),
        }
        for i in users
    ]
    return pa.RecordBatch.from_pylist(rows, EVENTS)


def create(number: int) -> Telemetry:
    return Telemetry(window=HOUR, host=number, hosts=3)


def observed(
    items: list,
    every: timedelta = NEVER,
    recovery: RecoveryConfig | None = None,
    whole: bool = False,
) -> list[Part]:
    flow, out = Dataflow("observe"), []
    up = op.input("in", flow, TestingSource(items, batch_size=1))
    nodes = {"x": 0, "y": 1, "z": 2}
    parts = observe("observe", up, create, nodes=nodes, every=every, whole=whole, clock=Clock())
    op.output("out", op.key_rm("parts", parts), TestingSink(out))
    run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
    return out


def merged(items: list[Part], *, whole: bool = False, every: timedelta = NEVER) -> list[Part]:
    flow, out = Dataflow("newest"), []
    up = op.input("in", flow, TestingSource([("k", part) for part in items]))
    parts = newest("newest", up, node="top", every=every, whole=whole, clock=Clock())
    op.output("out", op.key_rm("parts", parts), TestingSink(out))
    run_main(flow)
    return out


def users(part: Part) -> list[str]:
    return sorted(Telemetry.from_bytes(part.state).sample()["user"].to_pylist())


FIRST = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) // 3600


def test_a_node_tells_all_windows_when_its_input_ends() -> None:
    parts = observed([("x", batch(1, [1, 2])), ("x", batch(0, [3])), ("y", batch(0, [4]))])
    told = [(p.node, p.window - FIRST, p.events, p.last) for p in sorted(parts, key=_order)]
    assert told == [("x", 0, 1, True), ("x", 1, 2, True), ("y", 0, 1, True)]


def _order(part: Part) -> tuple[str, int, int]:
    return part.node, part.window or 0, part.events


def test_what_changed_is_told_before_the_end() -> None:
    items = [("x", batch(0, [1])), ("x", batch(1, [2])), ("x", batch(1, [3]))]
    parts = observed(items, every=ALWAYS)
    before = [(p.window - FIRST, p.events) for p in parts if not p.last]
    assert before == [(0, 1), (1, 1), (1, 2)]


def test_all_windows_can_be_told_as_one_state() -> None:
    items = [("x", batch(0, [1])), ("x", batch(1, [2]))]
    parts = observed(items, every=ALWAYS, whole=True)
    assert [(p.window, p.events, users(p), p.last) for p in parts] == [
        (None, 1, ["u1"], False),
        (None, 2, ["u1", "u2"], False),
        (None, 2, ["u1", "u2"], True),
    ]


def test_a_resumed_node_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    rows = [("x", batch(0, [1, 2])), ("x", batch(1, [3])), ("x", batch(0, [4]))]
    items = [*rows[:2], TestingSource.ABORT(), rows[2]]
    assert observed(items, recovery=recovery) == []
    assert observed(items, recovery=recovery) == observed(rows)


def test_an_unknown_node_is_refused() -> None:
    assert "'w' is not one of 3 nodes" in failure(lambda: observed([("w", batch(0, [1]))]))


def failure(run: Callable[[], object]) -> str:
    with pytest.raises(BytewaxRuntimeError) as error:
        run()
    return str(root_cause(error.value))


def root_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else root_cause(error.__cause__)


def part(node: str, rows: list[pa.RecordBatch], number: int, hour: int = 0) -> Part:
    state = create(number)
    for one in rows:
        state.update(one)
    window = FIRST + hour
    return Part(window, node, state.events(window), state.only(window).to_bytes())


OLD = part("x", [batch(0, [1])], 0)
NEW = part("x", [batch(0, [1]), batch(0, [2])], 0)
OTHER = part("y", [batch(0, [3])], 1)


@pytest.mark.parametrize(
    "items",
    [[NEW, OTHER], [OLD, NEW, OTHER], [NEW, OLD, OTHER, NEW], [OTHER, OTHER, OLD, NEW, OLD]],
)
def test_the_newest_part_of_each_child_counts(items: list[Part]) -> None:
    (told,) = merged(items)
    assert (told.node, told.events, told.last) == ("top", 3, True)
    assert users(told) == ["u1", "u2", "u3"]
    assert told == merged([NEW, OTHER])[0]


def test_windows_are_told_apart_or_as_a_whole() -> None:
    items = [OTHER, part("x", [batch(1, [7, 8])], 0, hour=1)]
    assert [(p.window - FIRST, p.events) for p in merged(items)] == [(0, 1), (1, 2)]
    (whole,) = merged(items, whole=True)
    assert (whole.window, whole.events, users(whole)) == (None, 3, ["u3", "u7", "u8"])


def test_interim_answers_come_when_something_changed() -> None:
    told = merged([OLD, OLD, NEW, OLD], every=ALWAYS)
    assert [(p.events, p.last) for p in told] == [(1, False), (2, False), (2, True)]


def test_parts_that_lie_stop_the_flow() -> None:
    cut_off = Part(FIRST, "x", 1, OLD.state[:-1])
    assert "top: what x sent: telemetry: truncated" in failure(lambda: merged([cut_off]))
    misplaced = Part(FIRST + 1, "x", 1, OLD.state)
    assert "a part of window" in failure(lambda: merged([misplaced]))
    other = Telemetry(window=HOUR, host=1, hosts=3, seed=1)
    other.update(batch(0, [1]))
    unlike = Part(FIRST, "y", 1, other.to_bytes())
    assert "what y sent: telemetry of different" in failure(lambda: merged([OLD, unlike]))
    whole = Part(None, "x", 1, OLD.state)
    assert "a part of no window" in failure(lambda: merged([whole]))


def test_a_resumed_merge_knows_its_children(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    items = [("k", NEW), TestingSource.ABORT(), ("k", OLD), ("k", OTHER)]

    def run() -> list[Part]:
        flow, out = Dataflow("newest"), []
        up = op.input("in", flow, TestingSource(items, batch_size=1))
        parts = newest("newest", up, node="top", every=NEVER)
        op.output("out", op.key_rm("parts", parts), TestingSink(out))
        run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
        return out

    assert run() == []
    assert run() == merged([NEW, OTHER])
