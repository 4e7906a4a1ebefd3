"""Whatever peers send: `step` raises nothing, and a liar's bundles change nothing that matters."""

import random
from collections import deque
from functools import cache

import msgspec
import pytest

from state.pbft import (
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
    Start,
    Tick,
    ViewEntered,
)
from state.pbft.authentication import MAC_BYTES, Authenticator, close, sign
from state.pbft.hash_chain import HashChain
from state.pbft.messages import (
    AnyMessage,
    Checkpoint,
    Commit,
    Prepare,
    PrePrepare,
    Reply,
    decode,
    encode,
)
from state.pbft.simulated_keys import SimulatedKeys
from state.pbft.simulator import Simulator
from tests.state.pbft.lone_replica import WALL, LoneReplica
from tests.state.pbft.recorded import Recorder, Step, record

SETTINGS = Settings(checkpoint=4, timeout=0.3, votes="signature", chunk=100)


@cache
def run(seed: int) -> tuple[list[Step], dict[str, SimulatedKeys], Group]:
    world, steps = record("r1", seed, SETTINGS, requests=12)
    keys = SimulatedKeys.of([*world.group.replicas, *world.clients], seed)
    return steps, keys, world.group


def replica(keys: dict[str, SimulatedKeys], group: Group) -> Replica:
    return Replica(group, keys["r1"], HashChain(), settings=SETTINGS)


def test_the_same_events_have_the_same_effects() -> None:
    steps, keys, group = run(1)
    one, other = replica(keys, group), replica(keys, group)
    for step in steps:
        effects = one.step(step.event)
        assert other.step(step.event) == effects
        said = [decode(each.data[MAC_BYTES:]) for each in effects if isinstance(each, Send)]
        assert [m for bundle in said for m in bundle] == step.said


@pytest.mark.parametrize("seed", [1, 2])
def test_changed_bundles_change_nothing(seed: int) -> None:
    """Among real bundles come copies with a byte changed, cut short, or in another's name."""
    steps, keys, group = run(seed)
    rng = random.Random(seed)
    clean, tried = replica(keys, group), replica(keys, group)
    rejected = 0
    for step in steps:
        event = step.event
        expected = clean.step(event)
        if isinstance(event, Received):
            bundles = []
            for sender, bundle in event.bundles:
                bundles += [changed(rng, sender, bundle, group), (sender, bundle)]
            event = Received(event.now, event.wall, bundles)
        effects = tried.step(event)
        rejected += len(effects) - len(expected)
        assert [each for each in effects if not isinstance(each, Rejected)] == [
            each for each in expected if not isinstance(each, Rejected)
        ]
        assert tried.standing() == clean.standing()
        assert tried.wake_at == clean.wake_at
    assert rejected > 100


def changed(rng: random.Random, sender: str, bundle: bytes, group: Group) -> tuple[str, bytes]:
    what = rng.randrange(4)
    if what == 0:
        names = [each for each in (*group.replicas, "c0", "c1", "stranger", "") if each != sender]
        return rng.choice(names), bundle
    if what == 1:
        return sender, bundle[: rng.randrange(len(bundle))]
    if what == 2:
        return sender, rng.randbytes(rng.randrange(200))
    at = rng.randrange(len(bundle))
    return sender, bundle[:at] + bytes([bundle[at] ^ (1 << rng.randrange(8))]) + bundle[at + 1 :]


def forge(rng: random.Random, message: AnyMessage, keys: SimulatedKeys) -> AnyMessage:
    """Return a message with some field changed, signed again by the liar if it is of a kind."""
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    for name in rng.sample(sorted(fields), rng.randint(0, min(2, len(fields)))):
        value = fields[name]
        if isinstance(value, bool):
            fields[name] = not value
        elif isinstance(value, int):
            fields[name] = rng.choice(
                [0, 1, value + 1, value - 1, (1 << 62) - 1, rng.randrange(40)]
            )
        elif isinstance(value, bytes) and value:
            fields[name] = rng.choice([b"", rng.randbytes(len(value)), value + b"x"])
        elif isinstance(value, list):
            fields[name] = rng.choice([[], value[1:], value * 2, value[::-1]])
        elif isinstance(value, str):
            fields[name] = rng.choice(["", "r0", "r1", "r2", "c0", "stranger"])
    made = type(message)(**fields)
    if "signature" in fields and rng.random() < 0.7:
        made = msgspec.structs.replace(made, signature=sign(keys, made))  # type: ignore[arg-type]
    return made


class Liar(Recorder):
    """A replica that sends to all, beside what it should, variants of whatever it has heard."""

    def __init__(self, replica: Replica, keys: SimulatedKeys, rng: random.Random) -> None:
        super().__init__(replica, [])
        self.keys = keys
        self.rng = rng
        self.heard: deque[AnyMessage] = deque(maxlen=300)
        self.lies = 0

    def step(self, event: Event) -> list[Effect]:
        effects = super().step(event)
        self.steps.clear()
        if isinstance(event, Received):
            for _, bundle in event.bundles:
                self.heard += decode(bundle[MAC_BYTES:])
        for to in self.group.others(self.name) if self.heard else ():
            lies = [forge(self.rng, self.rng.choice(self.heard), self.keys) for _ in range(3)]
            try:
                decode(encode(lies))
            except ValueError:
                lies = lies[:1]
            else:
                self.lies += len(lies)
            effects.append(Send(to, close(self.keys, to, lies)))
        return effects


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_one_liar_that_has_keys_raises_nothing_and_breaks_nothing(seed: int, fast: bool) -> None:
    """A liar sends variants of all that is said, well signed, and old messages again."""
    settings = msgspec.structs.replace(SETTINGS, fast=fast)
    liars: list[Liar] = []

    def lying(replica: Replica, keys: Authenticator, rng: random.Random) -> Liar:
        assert isinstance(keys, SimulatedKeys)
        liars.append(Liar(replica, keys, rng))
        return liars[-1]

    # It leads the second view, and the first leader is lost for a while.
    world = Simulator(
        seed, faulty={"r1": lying}, settings=settings, clients=2, loss=0.02, watch=True
    )
    world.start()
    for i in range(12):
        for client in world.clients.values():
            client.submit([b"%d" % i])
        if i == 4:
            world.cut(["r0"], ["r1", "r2", "r3"])
        if i == 8:
            world.heal()
        world.run(0.1)
    assert world.run_until(world.idle, limit=60.0), f"seed {seed}"
    assert world.run_until(world.level, limit=60.0), f"seed {seed}"
    world.judge.settled()
    assert liars[0].lies > 200
    for node in world.correct():
        slots = node.replica._slots  # type: ignore[union-attr]
        votes = [len(slot.commits) + len(slot.decided) + len(slot.prepares) for slot in slots]
        assert len(votes) <= 2 * SETTINGS.checkpoint
        assert max(votes, default=0) <= 3 * 4


def test_what_strangers_clients_and_mirrors_say_is_refused() -> None:
    lone = LoneReplica("r1")
    vote = Prepare(0, 1, bytes(32))
    lone.hear("c", vote)
    lone.hear("r1", vote)  # its own words, sent back to it
    lone.step(Received(0.0, WALL, [("stranger", bytes(40)), ("r0", b"")]))
    lone.hear("r0", Reply(1, 0, 0, 1, bytes(32), bytes(32), None))
    reasons = [each.reason for each in lone.did(Rejected)]
    assert reasons == [
        "Prepare from who is no other replica",
        "Prepare from who is no other replica",
        "the MAC is wrong",
        "the MAC is wrong",
        "Reply is for clients",
    ]


def test_a_replica_must_be_one_of_the_group() -> None:
    keys = SimulatedKeys.of(["r0", "r1", "r2", "r3", "x"], seed=1)
    group = Group("demo", ["r0", "r1", "r2", "r3"])
    with pytest.raises(ValueError, match="'x' is no replica of"):
        Replica(group, keys["x"], HashChain())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_groups_need_everybody_and_bear_no_fault(n: int) -> None:
    lone = LoneReplica("r0", n=n)
    assert (lone.group.f, lone.group.quorum) == (0, n // 2 + 1)
    assert lone.did(ViewEntered) == [ViewEntered(0, "r0")]
    for number in range(1, 20):
        lone.hear("c", lone.request(number, low=number))
        for proposal in lone.take(PrePrepare, "r1"):
            for other in lone.group.others("r0"):
                lone.hear(other, Prepare(0, proposal.seq, proposal.digest))
                lone.hear(other, Commit(0, proposal.seq, proposal.digest))
        if n > 1 and number % 4 == 0:
            for other in lone.group.others("r0"):
                lone.hear(other, *marks(lone))
    assert [each.seq for each in lone.did(Committed)] == list(range(1, 20))
    assert lone.replica.standing().stable == 16


def marks(lone: LoneReplica) -> list[AnyMessage]:
    """Return what the replica says of its checkpoints."""
    return [
        Checkpoint(each.seq, each.digest)
        for each in lone.replica._checkpoints.until(lone.replica.standing().final)
    ]


def test_the_log_does_not_grow_beyond_a_window() -> None:
    lone = LoneReplica("r0", n=1)
    longest = 0
    for number in range(1, 200):
        for effect in lone.hear("c", lone.request(number, low=number)):
            longest = max(longest, len(effect.records) if isinstance(effect, Rewrite) else 0)
    assert len(lone.log) < 40
    assert 0 < longest < 40


def test_ticks_at_any_time_are_harmless() -> None:
    lone = LoneReplica("r1")
    for now in (0.0, -5.0, 1e9, 3.0):
        lone.step(Tick(now, WALL))
        assert lone.replica.wake_at > now
    lone.step(Start(0.0, WALL))
    lone.step(Received(0.0, -WALL, []))
    assert lone.replica.active
