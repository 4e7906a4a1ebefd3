"""A replica or a client in an event loop, right on a mesh: the protocol and the transport alone.

All that comes in one turn of the loop is one event, so that what it makes a replica say to a peer
is one message, and one wait for the disk keeps all its votes.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import Counter
from typing import Any

from benchmarks.pbft_load import Load, Results
from benchmarks.pbft_orders import Answered, Told
from connectors.mesh import Mesh
from connectors.vote_log import VoteLog
from state.pbft import (
    Answer,
    Client,
    Committed,
    Persist,
    Received,
    Replica,
    Rewrite,
    Send,
    Stable,
    Start,
    Submit,
    Tick,
    Transferred,
)
from state.pbft.machines.store import Store


class _Loop:
    """Steps a state machine with what a mesh brings, and when time has passed."""

    def __init__(self, machine: Replica | Client, mesh: Mesh) -> None:
        self.notes: Counter[str] = Counter()
        """What happened that should not have."""
        self._machine: Any = machine
        self._mesh = mesh
        self._loop = asyncio.get_running_loop()
        self._inbox: list[tuple[str, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = math.inf
        mesh.on_message = self._take

    def _take(self, peer: str, data: bytes) -> None:
        if not self._inbox:
            self._loop.call_soon(self._turn)
        self._inbox.append((peer, data))

    def _turn(self) -> None:
        bundles, self._inbox = self._inbox, []
        self.step(Received(time.monotonic(), time.time(), bundles))

    def _tick(self) -> None:
        self._timer, self._due = None, math.inf
        self.step(Tick(time.monotonic(), time.time()))

    def step(self, event: Any) -> None:
        """Step, and carry out the effects."""
        for effect in self._machine.step(event):
            self.carry_out(effect)
        due = self._machine.wake_at
        # A timer that is due early looks again when it is due.
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._loop.call_later(due - event.now, self._tick)

    def carry_out(self, effect: Any) -> None:
        """Carry out an effect."""
        if isinstance(effect, Send):
            # What matters and is lost is sent again by the protocol.
            self._mesh.send(effect.to, effect.data, reliable=False)
        else:
            self.notes[type(effect).__name__] += 1

    def close(self) -> None:
        """Take nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._mesh.on_message = lambda peer, data: None


class ReplicaLoop(_Loop):
    """A replica."""

    def __init__(self, replica: Replica, machine: Store, mesh: Mesh, log: VoteLog) -> None:
        super().__init__(replica, mesh)
        self.replica = replica
        self._store = machine
        self._log = log
        self._history = hashlib.sha256()
        self.step(Start(time.monotonic(), time.time()))
        self.notes.clear()

    def carry_out(self, effect: Any) -> None:
        """Carry out an effect."""
        if isinstance(effect, Persist):
            self._log.append(effect.records)
        elif isinstance(effect, Committed):
            self._history.update(effect.digest)
        elif isinstance(effect, Rewrite):
            self._log.rewrite(effect.records)
        elif not isinstance(effect, Stable):
            super().carry_out(effect)

    def tell(self, told: Told) -> None:
        """Say how it is doing."""
        standing = self.replica.standing()
        told.final = standing.final if standing.final == standing.executed else -1
        told.state = hashlib.sha256(self._store.snapshot()).hexdigest()
        told.log = "" if self.notes[Transferred.__name__] else self._history.hexdigest()
        told.notes = dict(self.notes)

    def close(self) -> None:
        """Close the log too."""
        super().close()
        self._log.close()


class ClientLoop(_Loop):
    """The client."""

    def __init__(self, client: Client, mesh: Mesh) -> None:
        super().__init__(client, mesh)
        self._load: Load
        self._results: Results
        self._asked = 0
        self._answers: list[Answer] = []
        self._progress = asyncio.Event()

    async def ask(self, load: Load) -> Answered:
        """Make requests; return what came of them.

        Raises:
            TimeoutError: there was no answer for too long.
        """
        self._load, self._results = load, Results(load)
        self._asked, self._answers = 0, []
        begin = time.perf_counter()
        for _ in range(min(load.lanes, load.requests)):
            self._ask()
        while (done := len(self._answers)) < load.requests:
            self._progress.clear()
            try:
                async with asyncio.timeout(load.patience):
                    await self._progress.wait()
            except TimeoutError:
                if len(self._answers) == done:
                    raise TimeoutError(
                        f"no answer in {load.patience:g} s after {done} of {load.requests}"
                    ) from None
        return Answered(
            time.perf_counter() - begin,
            [answer.seconds for answer in self._answers],
            dict(Counter(answer.phase.name.lower() for answer in self._answers)),
            self._results.digest(),
        )

    def _ask(self) -> None:
        self._submit(self._asked)
        self._asked += 1

    def _submit(self, number: int) -> None:
        self.step(Submit(time.monotonic(), self._load.request(number), number))

    def carry_out(self, effect: Any) -> None:
        """Carry out an effect; after an answer, go on with its lane."""
        if not isinstance(effect, Answer):
            super().carry_out(effect)
            return
        number: Any = effect.token
        self._results.add(number, effect.results)
        self._answers.append(effect)
        following = number + self._load.lanes
        if following < self._load.requests:
            self._loop.call_soon(self._submit, following)
        if len(self._answers) == self._load.requests:
            self._progress.set()
