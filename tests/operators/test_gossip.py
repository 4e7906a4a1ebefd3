"""Replicas in a flow that reach the same state, over real datagrams and across restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from msgspec.structs import replace

from connectors.mesh import Meshes, Outgoing, UdpMesh
from operators.gossip import (
    Begin,
    Edit,
    Expel,
    Finish,
    Heard,
    Look,
    Refused,
    Say,
    State,
    gossip_round,
)
from operators.gossip.node import Node
from state.crdt.document import DocumentChange
from state.crdt.document_replica import DocumentReplica
from state.gossip import Rejected, Settings, Stopped

QUICK = Settings(round=0.02, probe=0.2, probe_timeout=0.1)


class Notes:
    """A set of words that grows, as a replica."""

    def __init__(self, replica: str, state: bytes | None) -> None:
        self.replica = replica
        self.words: set[str] = set(json.loads(state)) if state else set()
        self.new: list[str] = sorted(self.words)

    def _add(self, words: set[str]) -> None:
        self.new += sorted(words - self.words)
        self.words |= words

    def edit(self, operation: Any, now_ms: int) -> bytes | None:
        if not isinstance(operation, str):
            raise ValueError(f"{operation!r} is no word")
        assert now_ms > 1_600_000_000_000
        if operation in self.words:
            return None
        self._add({operation})
        return operation.encode()

    def deliver(self, update: bytes) -> None:
        word = update.decode("ascii")
        if word == "poison":
            raise ValueError("poison")
        self._add({word})

    def to_bytes(self) -> bytes:
        return json.dumps(sorted(self.words)).encode()

    def restore(self, state: bytes, *, replace: bool) -> None:
        words = set(json.loads(state))
        if replace:
            self.words = set()
        self._add(words)

    def compact(self, cut: Mapping[str, int]) -> None:
        pass

    def changes(self) -> list[str]:
        new, self.new = self.new, []
        return new


class Group:
    """A flow with a peer for each name; it ends when every peer has shown `until` words."""

    def __init__(self, names: str, until: int, inputs: list[Any]) -> None:
        self.meshes = Meshes([UdpMesh(name, "127.0.0.1:0") for name in names])
        self.meshes.start()
        self.until = until
        self.inputs = inputs
        self.words: dict[str, list[str]] = {name: [] for name in names}
        self.events: list[tuple[str, Any]] = []

    def address(self, name: str) -> str:
        return f"{name}@{self.meshes.by_name[name].address}"

    def begin(self, name: str, incarnation: int, *others: str) -> tuple[str, Begin]:
        bootstrap = tuple(map(self.address, others))
        return name, Begin(self.address(name), incarnation, bootstrap)

    def flow(self, until: int | None = None) -> Dataflow:
        def show(item: tuple[str, str]) -> None:
            name, word = item
            self.words[name].append(word)
            if all(len(words) >= self.until for words in self.words.values()):
                self.meshes.finish()

        flow = Dataflow("group")
        received = op.input("received", flow, self.meshes.source())
        heard = op.map_value(
            "heard", received, lambda got: Heard(f"{got.peer}@{got.address}", got.data)
        )
        commands = op.input("commands", flow, TestingSource(self.inputs))
        out = gossip_round("gossip", heard, commands, Notes, settings=QUICK, seed=1)
        said = op.map_value("said", out.say, lambda say: Outgoing(say.to, say.data, say.reliable))
        op.output("send", said, self.meshes.sink())
        op.output("events", out.events, TestingSink(self.events))
        shown = op.map("show", out.changes, lambda item: show(item) or item)
        op.output("changes", shown, TestingSink([]))
        return flow


@pytest.mark.parametrize("workers", [1, 2])
def test_peers_of_a_group_end_equal(workers: int) -> None:
    names = "abcde"
    group = Group(names, 3 * len(names), [])
    group.inputs += [group.begin(name, 1, *names[:i][-1:]) for i, name in enumerate(names)]
    group.inputs += [(name, Edit(f"{name}{n}")) for n in range(3) for name in names]
    group.inputs += [("a", Edit("a0")), ("b", Edit(7, "line 3"))]
    if workers == 1:
        run_main(group.flow(), epoch_interval=timedelta(milliseconds=20))
    else:
        cluster_main(group.flow(), [], 0, worker_count_per_proc=workers)
    expected = sorted(f"{name}{n}" for n in range(3) for name in names)
    assert {name: sorted(words) for name, words in group.words.items()} == dict.fromkeys(
        names, expected
    )
    refused = [(name, event) for name, event in group.events if isinstance(event, Refused)]
    assert refused == [("b", Refused("b", 7, "7 is no word", "line 3"))]
    assert not [event for _, event in group.events if isinstance(event, Rejected)]


def test_a_peer_resumes_with_what_it_had_not_told(tmp_path: Any) -> None:
    """a edits alone and dies; resumed from its snapshot, it tells the one that has come."""
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    first = Group("a", 2, [])
    first.inputs += [first.begin("a", 5), ("a", Edit("x")), ("a", Edit("y"))]
    first.inputs += [TestingSource.ABORT()]
    run_main(first.flow(), epoch_interval=timedelta(0), recovery_config=recovery)
    assert first.words == {"a": ["x", "y"]}

    again = Group("ab", 3, [])
    # The input is resumed too, so what is before its position is not read again.
    again.inputs += [*first.inputs]
    again.inputs += [
        again.begin("a", 5),
        again.begin("b", 1, "a"),
        ("b", Edit("z")),
    ]
    run_main(again.flow(), epoch_interval=timedelta(0), recovery_config=recovery)
    assert {name: set(words) for name, words in again.words.items()} == {
        "a": {"x", "y", "z"},
        "b": {"x", "y", "z"},
    }


def outputs(commands: list[Any], messages: list[Any] = []) -> list[Any]:  # noqa: B006
    out: list[Any] = []
    flow = Dataflow("one")
    heard = op.input("heard", flow, TestingSource(messages))
    every = gossip_round("gossip", heard, op.input("in", flow, TestingSource(commands)), Notes)
    for stream in (every.say, every.changes, every.events):
        op.output(stream.stream_id.replace(".", "_"), stream, TestingSink(out))
    run_main(flow)
    return [item for _, item in out]


def test_commands_before_the_begin_are_an_error() -> None:
    with pytest.raises(Exception) as error:
        outputs([("a", Look())])
    causes = [error.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    assert str(causes[-1]) == "peer 'a' got Look before Begin"


def test_edits_before_the_begin_wait_for_it() -> None:
    out = outputs([("a", Edit("y")), ("a", Edit("x")), ("a", Begin("a@1", 1)), ("a", Look())])
    assert [item for item in out if isinstance(item, str)] == ["y", "x"]
    assert State(b'["x", "y"]', {"a#1": 2}, ()) in out


def test_edits_that_wait_are_in_snapshots(tmp_path: Any) -> None:
    init_db_dir(tmp_path, 1)
    found: list[Any] = []
    commands = [("a", Edit("x")), TestingSource.ABORT(), ("a", Begin("a@1", 1))]
    for _ in range(2):
        flow = Dataflow("one")
        heard = op.input("heard", flow, TestingSource([]))
        every = op.input("commands", flow, TestingSource(commands))
        out = gossip_round("gossip", heard, every, Notes, settings=QUICK)
        op.output("changes", out.changes, TestingSink(found))
        run_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(str(tmp_path)))
    assert found == [("a", "x")]


def test_a_snapshot_of_the_first_version_still_loads() -> None:
    """It held a life and no edits that wait; this one: a#5, whose one update added "x"."""
    saved = bytes.fromhex(
        "425244460e01001d00000000000000676f737369702d7265706c696361"
        "9605c4055b2278225d9193a361233501019193a361233501c401788090a89b7642"
    )
    node = Node(saved, Notes, QUICK, 1, lambda: 0.0, time.time)
    (state,) = (
        out.item
        for out in node.on_batch([("a", Begin("a@1", 5)), ("a", Edit("y")), ("a", Look())])[0]
        if isinstance(out.item, State)
    )
    assert state == State(b'["x", "y"]', {"a#5": 1, "a#6": 1}, ())


def test_messages_before_the_begin_are_dropped() -> None:
    assert outputs([], [("a", Heard("z", b"hello"))]) == []


class _After(DynamicSource[Any]):
    """Emits an item when there is something in a list."""

    def __init__(self, seen: list[Any], item: Any) -> None:
        self.seen, self.item = seen, item

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Any:
        return _Waiting(self.seen, self.item)


class _Waiting(StatelessSourcePartition[Any]):
    def __init__(self, seen: list[Any], item: Any) -> None:
        self.seen, self.item = seen, item
        self.done = False

    def next_batch(self) -> list[Any]:
        if self.done:
            raise StopIteration
        self.done = bool(self.seen)
        return [self.item] if self.done else []


def test_what_is_no_message_changes_nothing() -> None:
    changes: list[Any] = []
    events: list[Any] = []
    flow = Dataflow("one")
    heard = op.input("heard", flow, _After(changes, ("a", Heard("z", b"\xff hello"))))
    commands = TestingSource([("a", Begin("a@1", 1)), ("a", Edit("x"))])
    out = gossip_round("gossip", heard, op.input("commands", flow, commands), Notes)
    op.output("changes", out.changes, TestingSink(changes))
    op.output("events", out.events, TestingSink(events))
    run_main(flow)
    assert changes == [("a", "x")]
    assert events == [("a", Rejected("z", "version ff is not 01"))]


def test_edits_after_the_end_are_refused() -> None:
    ended: list[Any] = []
    commands = [("a", Begin("a@1", 1)), ("a", Finish())]
    flow = Dataflow("one")
    heard = op.input("heard", flow, TestingSource([]))
    waiting = op.input("wait", flow, _After(ended, ("a", Edit("x"))))
    every = op.merge("commands", op.input("in", flow, TestingSource(commands)), waiting)
    out = gossip_round("gossip", heard, every, Notes, settings=QUICK)
    op.output("events", out.events, TestingSink(ended))
    run_main(flow)
    assert [event for _, event in ended] == [Stopped(), Refused("a", "x", "the peer has left")]


def test_edits_while_it_leaves_are_refused_too() -> None:
    out = outputs([("a", Begin("a@1", 1)), ("a", Finish()), ("a", Edit("x")), ("a", Look())])
    assert [item for item in out if isinstance(item, Refused | State)] == [
        Refused("a", "x", "the peer has left"),
        State(b"[]", {}, ()),
    ]


def test_what_changed_before_a_new_life_is_told() -> None:
    commands = [("a", Begin("a@1", 1)), ("a", Edit({"op": "add", "name": "s", "element": 1}))]
    again = [("a", Edit({"op": "remove", "name": "s", "element": 1})), ("a", Begin("a@1", 2))]
    node = Node(None, DocumentReplica, QUICK, 1, lambda: 0.0, time.time)
    changes = [
        (out.item.old, out.item.new)
        for batch in (commands, again)
        for out in node.on_batch(batch)[0]
        if isinstance(out.item, DocumentChange)
    ]
    assert changes == [(False, True), (True, False)]


def test_a_state_too_large_to_send_ends_nothing() -> None:
    """b comes when a has forgotten its updates, and gets those of the state that there is."""
    now = 0.0
    small = replace(QUICK, max_snapshot=200, log_updates=4)
    nodes = {n: Node(None, Notes, small, 1, lambda: now, time.time) for n in ("a", "b", "c")}
    refused: list[Any] = []
    post: list[tuple[str, Say]] = []

    def take(name: str, outs: Any) -> None:
        for out in outs:
            if isinstance(out.item, Say):
                post.append((f"{name}@1", out.item))
            elif isinstance(out.item, Refused):
                refused.append((name, out.item))

    def run(seconds: float, *names: str) -> None:
        nonlocal now
        end = now + seconds
        while now < end:
            now += 0.01
            for name in names:
                take(name, nodes[name].on_notify()[0])
            while post:
                source, say = post.pop(0)
                to = say.to[0]
                if to in names:
                    take(to, nodes[to].on_batch([(to, Heard(source, say.data))])[0])

    take("a", nodes["a"].on_batch([("a", Begin("a@1", 1))])[0])
    take("c", nodes["c"].on_batch([("c", Begin("c@1", 1, ("a@1",)))])[0])
    for number in range(60):
        take("a", nodes["a"].on_batch([("a", Edit(f"word-{number}"))])[0])
        run(0.05, "a", "c")
    run(20, "a", "c")
    assert not refused
    take("b", nodes["b"].on_batch([("b", Begin("b@1", 1, ("a@1",)))])[0])
    run(5, "a", "b", "c")
    assert {(event.source, event.content) for _, event in refused} == {("snapshot", None)}
    assert "b@1 is not sent the state: a snapshot of " in refused[0][1].reason


def test_who_is_no_member_is_not_expelled() -> None:
    out = outputs([("a", Begin("a@1", 1)), ("a", Expel("a", "line 2")), ("a", Expel("b"))])
    assert [item for item in out if isinstance(item, Refused)] == [
        Refused("a", "a", "'a' is no other member", "line 2"),
        Refused("a", "b", "'b' is no other member"),
    ]


def test_a_group_of_one_says_nothing() -> None:
    out = outputs([("a", Begin("a@1", 7)), ("a", Edit("x")), ("a", Edit("y")), ("a", Look())])
    for expected in ("x", "y", State(b'["x", "y"]', {"a#7": 2}, ())):
        assert expected in out
    assert not [item for item in out if isinstance(item, Say)]
