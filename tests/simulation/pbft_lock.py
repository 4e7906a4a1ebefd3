"""Clients that share a resource by a replicated lock, while everything that may happen does.

Each holds the lock as long as it believes, by its own clock, that its lease lasts, and writes to
the resource meanwhile. It may be paused between looking at its clock and writing, its clock may
jump, its writes may take their time, and it may die; so writes of holders whose lease has ended
do arrive. The replicas are paused, cut off, killed and started again, their clocks jump, and one
may lie.

`python -m tests.simulation.pbft_lock SEED` plays one and says what happened.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from state.linearizability import Call, linearize
from state.pbft.byzantine import Byzantine, Equivocate, Replay, Silent
from state.pbft.events import Settings
from state.pbft.machine import StateMachine
from state.pbft.machines import locks
from state.pbft.machines.locks import (
    Acquire,
    FencedResource,
    Granted,
    Inspect,
    LockOperation,
    Locks,
    Release,
    Renew,
    StaleToken,
)
from state.pbft.simulator import ClientNode, Simulator
from state.pbft.specifications import LockSpecification

REPLAY = ".venv/bin/python -m tests.simulation.pbft_lock"
LOCK = "the resource"


class Resource(Protocol):
    """What a lock protects."""

    def admit(self, token: int) -> None:
        """Raise :class:`StaleToken` if it is not admitted."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that has arrived at the resource."""

    token: int
    user: str
    admitted: bool


class User:
    """An application beside its client: it takes the lock, writes, and gives it back."""

    def __init__(self, run: Run, node: ClientNode, calls: int) -> None:
        self.run = run
        self.node = node
        self.rng = random.Random(f"user {node.name} of {run.world.seed}")
        self.calls: list[Call] = []
        self.left = calls
        self.token: int | None = None
        self.until = 0.0
        self.asked_at = 0.0
        self.rests_until = 0.0
        self.sure = False
        self.waiting: int | None = None
        self.unanswered: list[int] = []
        self.run.world.schedule(self.rng.uniform(0, 0.5), self.go_on)

    def go_on(self) -> None:
        """Do the next thing, unless the process is paused."""
        world = self.run.world
        if not self.node.up:
            return
        world.schedule(world.now + self.rng.expovariate(1 / 0.02), self.go_on)
        if self.node.paused:
            return
        self.hear()
        if self.waiting is not None:
            if world.now - self.calls[self.waiting].start > 3.0 and self.rng.random() < 0.05:
                self.waiting, self.token = None, None  # it may be carried out all the same
            return
        if self.sure:  # it looked at its clock before, and may have been paused since
            self.sure = False
            assert self.token is not None
            self.run.send_write(self.token, self)
        elif world.now < self.rests_until:
            return
        elif self.token is None:
            self.submit(self.rng.choice([Acquire(LOCK, self.ttl())] * 4 + [Inspect(LOCK)]))
        elif self.clock() >= self.until:
            self.token = None
        else:
            self.hold(self.token)

    def hold(self, token: int) -> None:
        """Do what a holder does."""
        chance = self.rng.random()
        if chance < 0.75:
            self.sure = True
        elif chance < 0.87:
            self.submit(Renew(LOCK, token, self.ttl()))
        elif chance < 0.97:
            self.submit(Release(LOCK, token))
            self.token = None
        else:
            self.token = None  # it has forgotten that it holds it

    def ttl(self) -> int:
        return self.rng.randint(150, 1500)

    def clock(self) -> float:
        return self.run.world.now + self.node.wall

    def submit(self, asked: LockOperation) -> None:
        if not self.left:
            return
        self.left -= 1
        self.waiting = len(self.calls)
        self.unanswered.append(self.waiting)
        self.asked_at = self.clock()
        self.calls.append(Call(self.node.name, asked, self.run.world.now))
        self.node.submit([locks.operation(asked)])

    def hear(self) -> None:
        """Take note of what was answered: the client numbers its requests from 1."""
        world = self.run.world
        for index in list(self.unanswered):
            answer = world.judge.answers.get((self.node.name, index + 1))
            if answer is None:
                continue
            self.unanswered.remove(index)
            call = self.calls[index]
            told = locks.result(answer.results[0])
            self.calls[index] = replace(call, answer=told, end=world.now)
            if index != self.waiting:
                continue
            self.waiting = None
            if isinstance(told, Granted) and isinstance(call.asked, Acquire | Renew):
                self.token = told.token
                self.until = self.asked_at + call.asked.ttl_ms / 1000
            elif not isinstance(call.asked, Inspect):
                self.token = None
                self.rests_until = world.now + self.rng.uniform(0, 0.5)

    def die(self) -> None:
        """Leave everything as it is; what was written may still arrive."""
        self.node.up = False
        self.left = 0


class Run:
    """One history: its users, its replicas, what happens to them, and what they did.

    Args:
        seed: Of all chance.
        resource: Makes what is protected.
        machine: Makes what is replicated.
        calls: Of each user.
    """

    def __init__(
        self,
        seed: int,
        *,
        resource: Callable[[], Resource] = FencedResource,
        machine: Callable[[], StateMachine] = Locks,
        users: int = 6,
        calls: int = 30,
    ) -> None:
        self.rng = rng = random.Random(f"lock {seed}")
        self.faulty: dict[str, Callable[..., Byzantine]] = {}
        if rng.random() < 0.3:
            ways: list[Callable[..., Byzantine]] = [
                Equivocate, partial(Silent, towards="leader"), partial(Replay, often=0.3),
            ]  # fmt: skip
            self.faulty[rng.choice(["r0", "r1", "r2", "r3"])] = rng.choice(ways)
        self.world = Simulator(
            seed,
            clients=users,
            faulty=self.faulty,
            machine=machine,
            settings=Settings(
                checkpoint=rng.choice([4, 16]),
                timeout=0.5,
                longest_timeout=4.0,
                longest_resend=0.8,
                tentative=rng.random() < 0.7,
                fast=rng.random() < 0.3,
            ),
            loss=rng.choice([0.0, 0.02, 0.1]),
            duplicated=rng.choice([0.0, 0.1]),
            straggling=rng.choice([0.0, 0.05]),
        )
        self.resource = resource()
        self.writes: list[Write] = []
        self.happened: Counter[str] = Counter()
        self.users = [User(self, node, calls) for node in self.world.clients.values()]

    def send_write(self, token: int, user: User) -> None:
        """Put a write on its way, which may be a long one."""
        delay = self.rng.uniform(0.001, 0.01)
        if self.rng.random() < 0.1:
            delay *= 200
        self.world.schedule(self.world.now + delay, lambda: self.write(token, user))

    def write(self, token: int, user: User) -> None:
        """Let a write arrive."""
        try:
            self.resource.admit(token)
        except StaleToken:
            self.writes.append(Write(token, user.node.name, False))
        else:
            self.writes.append(Write(token, user.node.name, True))

    def play(self) -> None:
        """Play until every user has its answers."""
        world = self.world
        world.start()
        while any(user.left for user in self.users) and world.now < 120:
            self.disturb()
            world.run(self.rng.uniform(0.05, 0.6))
        self.calm()
        assert world.run_until(
            lambda: not any(user.left or user.unanswered for user in self.living()), limit=120
        ), "clients are not answered though all is well"
        world.run(3)  # what is still on its way to the resource
        world.judge.settled()

    def living(self) -> list[User]:
        """Return the users that have not died."""
        return [user for user in self.users if user.node.up]

    def disturb(self) -> None:
        """Let something happen."""
        world, rng = self.world, self.rng
        replica = rng.choice(list(world.replicas.values()))
        user = rng.choice(self.living())
        what = rng.choice(["pause", "pause user", "jump", "jump user", "split", "crash", "", ""])
        if rng.random() < 0.03 and len(self.living()) > 3:
            what = "death"
        self.happened[what] += 1
        if what in ("pause", "pause user"):
            node = replica if what == "pause" else user.node
            if not node.paused:
                node.pause()
                world.schedule(world.now + rng.choice([0.3, 1.0, 3.0]) * rng.random(), node.resume)
        elif what == "jump":
            replica.wall = rng.uniform(-3, 3) if rng.random() < 0.8 else rng.uniform(-20, 20)
        elif what == "death":
            user.die()
        elif what == "jump user":
            user.node.wall = rng.uniform(-3, 3)
        elif what == "split":
            names = [*world.replicas, *world.clients]
            rng.shuffle(names)
            at = rng.randrange(1, len(names))
            world.split(names[:at], names[at:])
            world.schedule(world.now + rng.uniform(0.1, 2), world.heal)
        elif what == "crash" and replica.up:
            replica.crash()
            world.schedule(
                world.now + rng.uniform(0.1, 1.5), lambda: None if replica.up else replica.start()
            )

    def calm(self) -> None:
        """Let all be well from now on."""
        world = self.world
        world.heal()
        world.loss = 0.0
        world.start()
        for node in (*world.replicas.values(), *world.clients.values()):
            node.wall = 0.0
            if node.paused:
                node.resume()

    def history(self) -> list[Call]:
        """Return what the users asked and were told."""
        return [call for user in self.users for call in user.calls]

    def judge(self) -> None:
        """Check that the lock is one, and that the resource was written to by one at a time."""
        history = self.history()
        linearize(LockSpecification(history), history)
        holders = {call.answer.token: call.client for call in history if _granted(call)}
        for write in self.writes:
            assert holders[write.token] == write.user
        greatest = 0
        for write in self.writes:
            assert write.admitted == (write.token >= greatest), (
                f"{write} after token {greatest}: a stale holder got through, or another did not"
            )
            greatest = max(greatest, write.token)
        turns = [token for token, _ in itertools.groupby(self.admitted())]
        assert turns == sorted(set(turns)), "a holder's writes were mixed with another's"

    def admitted(self) -> list[int]:
        """Return the tokens of the writes that were admitted, in their order."""
        return [write.token for write in self.writes if write.admitted]

    def refused(self) -> int:
        """Return how many writes of stale holders were refused."""
        return sum(not write.admitted for write in self.writes)

    def summary(self) -> dict[str, Any]:
        """Return what happened."""
        history = self.history()
        answers = Counter(type(call.answer).__name__ for call in history)
        return {
            "seconds": round(self.world.now, 1),
            "faulty": {name: str(way) for name, way in self.faulty.items()},
            "calls": len(history),
            "answers": dict(answers),
            "writes": len(self.writes),
            "refused": self.refused(),
            "views": self.world.judge.views,
            "happened": dict(self.happened),
        }


def _granted(call: Call) -> bool:
    return isinstance(call.asked, Acquire) and isinstance(call.answer, Granted)


def main() -> None:
    """Play a seed and say what happened."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("seed", type=int)
    run = Run(parser.parse_args().seed)
    run.play()
    print(run.summary())
    run.judge()


if __name__ == "__main__":
    main()
