"""One replica among peers that say what a test has them say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from state.pbft import (
    Effect,
    Group,
    Persist,
    Received,
    Replica,
    Rewrite,
    Send,
    Settings,
    Start,
    StateMachine,
    Tick,
)
from state.pbft.authentication import MAC_BYTES, Authenticator, close, sign
from state.pbft.checkpoints import Snapshot
from state.pbft.execution import Execution
from state.pbft.hash_chain import HashChain
from state.pbft.messages import (
    AnyMessage,
    Batch,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    ViewChange,
    decode,
    digest,
    encode_batch,
)
from state.pbft.selection import select
from state.pbft.simulated_keys import SimulatedKeys

WALL = 1_700_000_000.0
SETTINGS = Settings(checkpoint=4, tentative=False)

_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_Vote = TypeVar("_Vote", Prepare, Commit)


class LoneReplica:
    """A replica `name` of a group whose other members, and clients, are played by the test.

    What it sent, by receiver, is in `sent` until :meth:`take`; what else it did, in `effects`.
    """

    def __init__(
        self,
        name: str = "r1",
        *,
        n: int = 4,
        f: int | None = None,
        settings: Settings = SETTINGS,
        machine: StateMachine | None = None,
        log: Sequence[bytes] = (),
        keys: Mapping[str, Authenticator] | None = None,
    ) -> None:
        replicas = [f"r{i}" for i in range(n)]
        self.group = Group("lone", replicas, f)
        self.keys = keys or SimulatedKeys.of([*replicas, "c", "d"], seed=1)
        self.name = name
        self.settings = settings
        self.now = 0.0
        self.log = list(log)
        self.effects: list[Effect] = []
        self.sent: list[tuple[str, AnyMessage]] = []
        self.replica = Replica(
            self.group, self.keys[name], machine or HashChain(), settings=settings, log=log
        )
        self.step(Start(self.now, WALL))

    def step(self, event: Start | Received | Tick) -> list[Effect]:
        """Have the replica take an event; its log and what it sent are kept."""
        effects = self.replica.step(event)
        for effect in effects:
            if isinstance(effect, Persist):
                self.log += effect.records
            elif isinstance(effect, Rewrite):
                self.log = list(effect.records)
            elif isinstance(effect, Send):
                self.sent += [(effect.to, each) for each in decode(effect.data[MAC_BYTES:])]
            else:
                self.effects.append(effect)
        return effects

    def hear(self, sender: str, *messages: AnyMessage) -> list[Effect]:
        """Have the replica receive a bundle."""
        bundle = close(self.keys[sender], self.name, list(messages))
        return self.step(Received(self.now, WALL + self.now, [(sender, bundle)]))

    def wait(self, seconds: float) -> None:
        """Let time pass, with every tick that is due."""
        end = self.now + seconds
        while self.replica.wake_at <= end:
            self.now = max(self.now, self.replica.wake_at)
            self.step(Tick(self.now, WALL + self.now))
        self.now = end

    def take(self, kind: type[_Kind], to: str | None = None) -> list[_Kind]:
        """Return the messages of a kind that it has sent since the last call, and forget all.

        Of broadcasts there is one for each receiver, unless `to` names one.
        """
        found = [m for r, m in self.sent if isinstance(m, kind) and to in (None, r)]
        self.sent.clear()
        return found

    def did(self, kind: type[_Kind]) -> list[_Kind]:
        """Return the effects of a kind since the last call, and forget all."""
        found = [each for each in self.effects if isinstance(each, kind)]
        self.effects.clear()
        return found

    # -- what others say --------------------------------------------------------------------------

    def request(
        self, number: int = 1, client: str = "c", data: bytes = b"x", low: int = 1
    ) -> Request:
        """Return a request, signed by its client."""
        request = Request(client, number, low, [data])
        return msgspec.structs.replace(request, signature=sign(self.keys[client], request))

    def proposal(
        self, seq: int, requests: Sequence[Request], *, view: int = 0, time: float = WALL
    ) -> PrePrepare:
        """Return what the primary of a view says to propose a batch."""
        data = encode_batch(Batch(int(time * 1000), list(requests)))
        message = PrePrepare(view, seq, digest("batch", data), b"", data)
        primary = self.keys[self.group.primary(view)]
        return msgspec.structs.replace(message, signature=sign(primary, message))

    def vote(self, sender: str, vote: _Vote) -> _Vote:
        """Return a vote, signed."""
        return msgspec.structs.replace(vote, signature=sign(self.keys[sender], vote))

    def commits(self, proposal: PrePrepare) -> None:
        """Have all others say that they have prepared a batch, which comes along."""
        for other in self.group.others(self.name):
            self.hear(other, Commit(proposal.view, proposal.seq, proposal.digest))
        self.hear(self.group.others(self.name)[0], BatchBody(proposal.batch))

    def order(self, proposal: PrePrepare) -> None:
        """Have all others propose, prepare and commit a batch."""
        view, seq, what = proposal.view, proposal.seq, proposal.digest
        primary = self.group.primary(view)
        if primary != self.name:
            self.hear(primary, proposal)
        for other in self.group.others(self.name):
            if other != primary:
                self.hear(other, Prepare(view, seq, what, proposal.signature))
        for other in self.group.others(self.name):
            self.hear(other, Commit(view, seq, what))

    def change(
        self,
        replica: str,
        view: int,
        *,
        stable: Checkpoint | None = None,
        checkpoints: Sequence[Checkpoint] = (),
        prepared: Sequence[Claim] = (),
        preprepared: Sequence[Claim] = (),
    ) -> ViewChange:
        """Return a VIEW-CHANGE, signed."""
        first = stable or genesis(self.settings)
        change = ViewChange(
            view, replica, first.seq, [first, *checkpoints], list(prepared), list(preprepared)
        )
        return msgspec.structs.replace(change, signature=sign(self.keys[replica], change))

    def new_view(self, view: int, changes: Sequence[ViewChange]) -> NewView:
        """Return the NEW-VIEW that follows from VIEW-CHANGEs, signed by the view's primary."""
        window = 2 * self.settings.checkpoint
        found = select(changes, self.group, window=window, fast=self.settings.fast)
        assert found is not None
        new_view = NewView(view, list(changes), found.checkpoint, found.slots)
        primary = self.keys[self.group.primary(view)]
        return msgspec.structs.replace(new_view, signature=sign(primary, new_view))


def genesis(settings: Settings = SETTINGS) -> Checkpoint:
    """Return the checkpoint that all replicas begin with."""
    data = Execution(HashChain(), settings).snapshot()
    return Checkpoint(0, Snapshot(0, data, settings.chunk).digest)
