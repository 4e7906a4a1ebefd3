"""What a replica heard, wrote and said in a run of a simulated group."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from state.pbft import Effect, Event, Persist, Replica, Rewrite, Send, Settings, Standing
from state.pbft.authentication import MAC_BYTES, Authenticator
from state.pbft.messages import AnyMessage, decode
from state.pbft.simulator import Simulator


@dataclass
class Step:
    """A step of a replica: the event, what its log held before and after, what it then said."""

    event: Event
    before: list[bytes]
    added: list[bytes]
    after: list[bytes]
    said: list[AnyMessage] = field(default_factory=list)


class Recorder:
    """A correct replica that is watched."""

    def __init__(self, replica: Replica, steps: list[Step]) -> None:
        self.replica = replica
        self.steps = steps
        self.log: list[bytes] = []
        self.name, self.group, self.settings = replica.name, replica.group, replica.settings

    @property
    def view(self) -> int:
        return self.replica.view

    @property
    def active(self) -> bool:
        return self.replica.active

    @property
    def wake_at(self) -> float:
        return self.replica.wake_at

    def standing(self) -> Standing:
        return self.replica.standing()

    def step(self, event: Event) -> list[Effect]:
        effects = self.replica.step(event)
        step = Step(event, list(self.log), [], [])
        for effect in effects:
            if isinstance(effect, Persist):
                assert not step.said, "a record after what it is for"
                step.added += effect.records
                self.log += effect.records
            elif isinstance(effect, Rewrite):
                assert not step.said, "a record after what it is for"
                self.log = list(effect.records)
            elif isinstance(effect, Send):
                step.said += decode(effect.data[MAC_BYTES:])
        step.after = list(self.log)
        self.steps.append(step)
        return effects


def record(
    name: str, seed: int, settings: Settings, *, requests: int = 24, n: int = 4, stop: bool = True
) -> tuple[Simulator, list[Step]]:
    """Play a run with loss in which the first leaders are lost; return the steps of one replica."""
    steps: list[Step] = []

    def watched(replica: Replica, keys: Authenticator, rng: random.Random) -> Recorder:
        return Recorder(replica, steps)

    world = Simulator(
        seed, n=n, clients=2, faulty={name: watched}, settings=settings, loss=0.05, duplicated=0.05
    )
    world.start()
    for i in range(requests):
        for client in world.clients.values():
            client.submit([b"%d" % i])
        if stop and i == requests // 3:
            lost = world.group.primary(0)
            world.cut([lost], [each for each in world.replicas if each != lost])
        if stop and i == 2 * requests // 3:
            world.heal()
        world.run(0.15)
    assert world.run_until(world.idle, limit=60.0), f"seed {seed}"
    return world, steps
