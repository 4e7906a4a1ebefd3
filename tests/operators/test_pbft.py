"""Replicas and a client in one flow: over real datagrams, and across restarts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main
from msgspec.structs import replace

from connectors.mesh import Meshes, Outgoing, UdpMesh
from connectors.vote_log import VoteLog
from jobs.settings import root_cause
from jobs.watch import Steps, Watch
from operators.pbft import Begin, Heard, LogLost, Say, _Node, pbft_replica
from operators.pbft_client import Ask, Refused, pbft_client
from state.pbft import (
    Answer,
    Client,
    Committed,
    Effect,
    Event,
    Group,
    Received,
    Rejected,
    Replica,
    Rewrite,
    Send,
    Settings,
    Stable,
    Standing,
    Submit,
    ViewEntered,
)
from state.pbft.machines import Store, store
from state.pbft.simulated_keys import SimulatedKeys

NAMES = ("a", "b", "c", "d")
GROUP = Group("test", NAMES)
KEYS = SimulatedKeys.of([*NAMES, "client"], seed=1)
# On a busy machine nobody loses patience; and a checkpoint every few batches.
SETTINGS = Settings(timeout=30.0, checkpoint=4)
_LIVES = count(1_700_000_000)
"""When each flow is run: a client of the same name must not run twice at the same time."""


def put(number: int) -> bytes:
    return store.operation(store.Put(b"key", str(number).encode()))


class World:
    """A flow of four replicas and a client that asks `requests` times, each after an answer."""

    def __init__(self, directory: Path, requests: int) -> None:
        self.requests = requests
        self.committed: dict[str, list[Committed]] = defaultdict(list)
        self.events: dict[str, list[Any]] = defaultdict(list)
        self.answers: list[Answer] = []
        self.open: Callable[[str], VoteLog] = lambda name: VoteLog(
            directory / name, "test", name, sync=False
        )
        self._meshes = Meshes([UdpMesh(name, "127.0.0.1:0") for name in (*NAMES, "client")])

    def flow(self) -> Dataflow:
        self.wall = float(next(_LIVES))
        flow = Dataflow("group")
        inputs = op.input("inputs", flow, Steps(self._inputs))
        received = op.input("received", flow, self._meshes.source())
        both = op.branch("who", op.merge("all", inputs, received), lambda it: it[0] != "client")
        out = pbft_replica(
            "pbft", both.trues, self._replica, self._open, outgoing=Outgoing, wall=self._wall
        )
        asked = pbft_client("client", both.falses, self._client, outgoing=Outgoing, wall=self._wall)
        op.output("send", op.merge("say", out.say, asked.say), self._meshes.sink())
        for name, stream in (("committed", out.committed), ("answers", asked.answers)):
            op.output(f"see_{name}", stream, Watch(self._saw))
        op.output("see_events", op.merge("both", out.events, asked.events), Watch(self._saw))
        return flow

    def run(self, recovery: RecoveryConfig | None = None) -> None:
        run_main(self.flow(), epoch_interval=timedelta(0), recovery_config=recovery)

    def _inputs(self) -> Iterator[list[Any]]:
        yield [(name, Begin(name)) for name in (*NAMES, "client")]
        for number in range(self.requests):
            while len(self.answers) < number:
                yield []
            yield [("client", Ask([put(number)], number))]
        while len(self.answers) < self.requests:
            yield []
        self._meshes.finish()

    def _open(self, name: str) -> VoteLog:
        return self.open(name)

    def _wall(self) -> float:
        return self.wall

    def _replica(self, name: str, records: Sequence[bytes]) -> Replica:
        return Replica(GROUP, KEYS[name], Store(), settings=SETTINGS, log=records)

    def _client(self, name: str, first: int, now: float) -> Client:
        return Client(GROUP, KEYS[name], first=first, now=now, settings=SETTINGS)

    def _saw(self, item: tuple[str, Any]) -> None:
        name, what = item
        if isinstance(what, Committed):
            self.committed[name].append(what)
        elif isinstance(what, Answer):
            self.answers.append(what)
        else:
            self.events[name].append(what)

    def digests(self) -> dict[int, bytes]:
        """Return the batches that all replicas agree on."""
        found: dict[int, bytes] = {}
        for batches in self.committed.values():
            numbers = [batch.seq for batch in batches]
            assert numbers == sorted({*numbers})
            for batch in batches:
                assert found.setdefault(batch.seq, batch.digest) == batch.digest
        return found


@pytest.mark.parametrize("workers", [1, 2])
def test_replicas_execute_the_same(workers: int, tmp_path: Path) -> None:
    world = World(tmp_path, 20)
    if workers == 1:
        run_main(world.flow(), epoch_interval=timedelta(milliseconds=20))
    else:
        cluster_main(world.flow(), [], 0, worker_count_per_proc=workers)
    assert [answer.token for answer in world.answers] == list(range(20))
    assert {store.result(answer.results[0]) for answer in world.answers} == {store.Written(True)}
    assert max(world.digests()) >= 19
    # Time is what the flow was told, of a batch and in the number of a client's first request.
    final = [batch for batches in world.committed.values() for batch in batches if batch.requests]
    assert {batch.time_ms for batch in final} == {1000 * int(world.wall)}
    assert min(answer.number for answer in world.answers) == int(world.wall * 1e6)
    for name in NAMES:
        kinds = {type(event) for event in world.events[name]}
        assert kinds >= {ViewEntered, Standing, Stable}
        assert Rejected not in kinds
    assert not world.events["client"]


class Late:
    """A replica that learns at once that a batch is final and that a checkpoint is stable."""

    name, group, settings = "a", GROUP, SETTINGS
    view, active, wake_at = 0, True, float("inf")

    def step(self, event: Event) -> list[Effect]:
        if not isinstance(event, Received):
            return []
        final = Committed(4, 0, bytes(32), 0, [])
        return [final, Stable(4, bytes(32)), Rewrite([b"all"]), Send("b", b"checkpoint")]

    def standing(self) -> Standing:
        return Standing(0, True, "a", 4, 4, 4, 0, 0, False)


def test_what_is_final_is_handed_on_before_the_log_forgets_it(tmp_path: Path) -> None:
    happened: list[Any] = []

    class Watched(VoteLog):
        def rewrite(self, records: Sequence[bytes]) -> None:
            super().rewrite(records)
            happened.append(list(records))

    flow = Dataflow("late")
    inputs = op.input("in", flow, TestingSource([("a", Begin("a")), ("a", Heard("b", b""))]))
    out = pbft_replica(
        "pbft",
        inputs,
        lambda name, records: Late(),
        lambda name: Watched(tmp_path / name, "test", name, sync=False),
    )
    for name, stream in (("say", out.say), ("final", out.committed)):
        op.output(name, stream, Watch(lambda item: happened.append(type(item[1]))))
    run_main(flow)
    # An empty one is that of the new file.
    assert happened == [[], Committed, [b"all"], Say]


def test_a_slow_replica_hands_on_what_its_log_is_about_to_forget(tmp_path: Path) -> None:
    """d hears in one go what makes four batches final and the checkpoint after them stable."""
    now = 0.0
    logs = {name: VoteLog(tmp_path / name, "test", name, sync=False) for name in NAMES}
    settings = replace(SETTINGS, lazy=0.0)

    def make(name: str, records: Sequence[bytes]) -> Replica:
        return Replica(GROUP, KEYS[name], Store(), settings=settings, log=records)

    def clock() -> float:
        return now

    nodes = {name: _Node(None, make, logs.__getitem__, Say, clock, clock) for name in NAMES}
    inboxes: dict[str, list[Heard]] = {name: [] for name in NAMES}

    def activate(name: str, items: list[Any]) -> list[int]:
        """Have a node take items; pass on what it says; return what it commits."""
        batches = []
        for call in (lambda: nodes[name].on_batch(items), nodes[name].on_notify):
            for out in call()[0]:
                for say in (say for say in out.said if say.peer in inboxes):
                    inboxes[say.peer].append(Heard(name, say.data))
                batches += [batch.seq for batch in out.all_committed()]
                out.all_events()
        return batches

    for name in NAMES:
        activate(name, [Begin(name)])
    client = Client(GROUP, KEYS["client"], first=1, now=now, settings=settings)
    for number in range(4):
        for effect in client.step(Submit(now, [put(number)])):
            assert isinstance(effect, Send)
            inboxes[effect.to].append(Heard("client", effect.data))
        for _ in range(20):
            now += 0.01
            for name in "abc":
                heard, inboxes[name] = inboxes[name], []
                activate(name, heard)
    before = logs["d"].read()
    outs = list(nodes["d"].on_batch(inboxes["d"])[0])
    assert [batch.seq for out in outs for batch in out.committed] == [1, 2, 3, 4]
    # The steps below get them when the activation ends; the log has them until then, however often
    # the logic is called.
    assert not [out for out in nodes["d"].on_notify()[0] if out.said or out.committed]
    assert not nodes["d"].on_batch([Heard("a", b"late")])[0]
    assert logs["d"].read()[: len(before)] == before
    assert make("d", logs["d"].read()).standing().stable == 0
    assert not [say for out in outs for say in out.said]
    for out in outs:
        out.all_committed()
        assert not [again for again in nodes["d"].on_notify()[0] if again.said]
        out.all_events()
    assert [out for out in nodes["d"].on_notify()[0] if out.said]
    assert make("d", logs["d"].read()).standing().stable == 4
    for log in logs.values():
        log.close()


def test_a_snapshot_is_never_ahead_of_the_log(tmp_path: Path) -> None:
    """What the log has not written when the process dies is missing in both."""

    def life(saved: bytes | None) -> StatefulBatchLogic[Any, Any, bytes]:
        def make(name: str, records: Sequence[bytes]) -> Late:
            return Late() if records or saved is None else Early()

        return _Node(saved, make, lambda name: log, Say, lambda: 0.0, lambda: 0.0)

    log = VoteLog(tmp_path / "a", "test", "a", sync=False)
    first = life(None)
    outs = list(first.on_batch([Begin("a"), Heard("b", b"")])[0])
    saved = first.snapshot()
    life(saved).on_batch([Begin("a")])
    # Once it is written, a snapshot tells of it, and a log that lacks it is refused.
    for out in outs:
        out.all_committed()
        out.all_events()
    first.on_notify()
    assert log.read() == [b"all"]
    saved = first.snapshot()
    life(saved).on_batch([Begin("a")])
    log.rewrite([])
    with pytest.raises(LogLost):
        life(saved).on_batch([Begin("a")])
    log.close()


class Early(Late):
    """The same replica when its log is empty."""

    def standing(self) -> Standing:
        return Standing(0, True, "a", 0, 0, 0, 0, 0, False)


def test_messages_of_one_activation_are_answered_together(tmp_path: Path) -> None:
    client = Client(GROUP, KEYS["client"], first=1, now=0.0, settings=SETTINGS)
    heard = []
    for number in range(10):
        for effect in client.step(Submit(0.0, [put(number)])):
            assert isinstance(effect, Send)
            heard.append(("a", Heard("client", effect.data)))
    assert len(heard) == 10
    said: list[tuple[str, Say]] = []
    flow = Dataflow("one")
    world = World(tmp_path, 0)
    inputs = op.input("in", flow, TestingSource([("a", Begin("a")), *heard], batch_size=11))
    out = pbft_replica("pbft", inputs, world._replica, world.open)
    op.output("say", out.say, TestingSink(said))
    run_main(flow)
    proposals = [say.peer for _, say in said if len(say.data) > 1000]
    assert sorted(proposals) == ["b", "c", "d"]


def test_what_comes_before_the_begin_is_lost(tmp_path: Path) -> None:
    said: list[Any] = []
    flow = Dataflow("early")
    world = World(tmp_path, 0)
    inputs = op.input("in", flow, TestingSource([("a", Heard("b", b"early"))]))
    out = pbft_replica("pbft", inputs, world._replica, world.open)
    op.output("say", out.say, TestingSink(said))
    run_main(flow)
    assert not said
    assert not list(tmp_path.iterdir())


def test_a_replica_begins_once(tmp_path: Path) -> None:
    flow = Dataflow("twice")
    inputs = op.input("in", flow, TestingSource([("a", Begin("a"))] * 2))
    world = World(tmp_path, 0)
    out = pbft_replica("pbft", inputs, world._replica, world.open)
    op.output("say", out.say, TestingSink([]))
    with pytest.raises(BaseException) as caught:
        run_main(flow)
    assert "replica 'a' begins twice" in str(root_cause(caught.value))


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_group_goes_on_where_its_logs_end(snapshots: bool, tmp_path: Path) -> None:
    recovery = None
    if snapshots:
        init_db_dir(tmp_path, 1)
        recovery = RecoveryConfig(tmp_path)
    first, again = World(tmp_path / "logs", 6), World(tmp_path / "logs", 6)
    first.run(recovery)
    again.run(recovery)
    assert again.answers[0].number > first.answers[-1].number
    before, after = first.digests(), again.digests()
    assert again.answers[-1].seq >= first.answers[-1].seq + 6
    # What came after the last checkpoint comes again, and is the same.
    assert {seq: after[seq] for seq in before.keys() & after.keys()}.items() <= before.items()
    assert min(after) <= max(before) + 1


def test_a_snapshot_without_its_log_is_refused(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    World(tmp_path / "logs", 10).run(recovery)
    (tmp_path / "logs" / "b").unlink()
    with pytest.raises(BaseException) as caught:
        World(tmp_path / "logs", 10).run(recovery)
    error = root_cause(caught.value)
    assert isinstance(error, LogLost)
    assert "b: its vote log ends in view 0 after checkpoint 0" in str(error)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([Ask([b"x"])], "a client is asked before it begins"),
        ([Begin("client"), Begin("client")], "client 'client' begins twice"),
    ],
)
def test_a_client_that_is_used_wrongly(items: list[Any], message: str, tmp_path: Path) -> None:
    flow = Dataflow("client")
    inputs = op.input("in", flow, TestingSource([("client", item) for item in items]))
    out = pbft_client("client", inputs, World(tmp_path, 0)._client)
    op.output("say", out.say, TestingSink([]))
    with pytest.raises(BaseException) as caught:
        run_main(flow)
    assert message in str(root_cause(caught.value))


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    events: list[Any] = []
    flow = Dataflow("client")
    large = bytes(SETTINGS.max_request + 1)
    items = [Begin("client"), Ask([], 1), Ask([large], 2), Ask([b"x"], 3)]
    inputs = op.input("in", flow, TestingSource([("client", item) for item in items]))
    out = pbft_client("client", inputs, World(tmp_path, 0)._client)
    said: list[Any] = []
    op.output("say", out.say, TestingSink(said))
    op.output("happened", out.events, TestingSink(events))
    run_main(flow)
    assert [(type(event), event.token) for _, event in events] == [(Refused, 1), (Refused, 2)]
    assert [say.peer for _, say in said] == ["a"]
