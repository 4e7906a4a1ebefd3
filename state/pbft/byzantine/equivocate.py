"""Replicas that tell one half of the group this and the other half that."""

from __future__ import annotations

import random
from collections.abc import Collection

from msgspec.structs import replace

from state.pbft.authentication import Authenticator, sign
from state.pbft.byzantine.actor import Actor, Byzantine
from state.pbft.events import Effect
from state.pbft.messages import (
    NULL_DIGEST,
    AnyMessage,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    Decided,
    FetchBatches,
    Prepare,
    PrePrepare,
    Reply,
    ViewChange,
    decode_batch,
    digest,
    encode_batch,
)


class Plot:
    """What equivocating replicas have agreed on: who is told what. Several may share one."""

    def __init__(self) -> None:
        self.liars: set[str] = set()
        """Who takes part, and so need not be lied to."""
        self.halves: dict[int, frozenset[str]] = {}
        """Who is told the other thing, in each view: the same by all who take part."""
        self.lies: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        """For each view and slot the digest of the true proposal, and of the other one."""
        self.batches: dict[bytes, bytes] = {}
        """Batches by their digests, true or not."""
        self.proposals: dict[tuple[int, int], PrePrepare] = {}
        """The other proposals, signed."""


class Equivocate(Byzantine):
    """Tells one half of the group this and the other half that.

    As a primary it proposes the batch of the replica in it to some, and another with the same
    requests to the others, and votes for each where it was proposed. As a backup it supports the
    lies of its `plot`; without any it votes for something else now and then.

    Args:
        replica: See :class:`Byzantine`.
        keys: The same.
        rng: The same.
        plot: What it shares with others who equivocate.
        victims: Who is told the other thing; some of the group, others in each view, if not given.
    """

    def __init__(
        self,
        replica: Actor,
        keys: Authenticator,
        rng: random.Random,
        plot: Plot | None = None,
        victims: Collection[str] | None = None,
    ) -> None:
        super().__init__(replica, keys, rng)
        self._plot = plot if plot is not None else Plot()
        self._plot.liars.add(self.name)
        self._victims = victims
        # A liar that changed its story would let the others go on, sooner or later.
        self._story = rng.choice(["forgets", "accepted", "prepared", "prepared"])
        self._tells_all = rng.random() < 0.5

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say the other thing to the other half."""
        for message in messages:
            if isinstance(message, PrePrepare) and self.leads(message.view):
                self._conceive(message)
            elif isinstance(message, BatchBody):
                self._plot.batches[digest("batch", message.batch)] = message.batch
        said = [self._twist(to, message) for message in messages]
        for message in list(said):
            if isinstance(message, PrePrepare) and self.leads(message.view):
                # A primary has no second vote; somebody might count it.
                vote = Prepare(message.view, message.seq, message.digest, message.signature)
                said.append(self._signed(vote))
        return said

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Send the other batches to those who ask, and vote for them at once."""
        effects: list[Effect] = []
        for message in messages:
            if isinstance(message, FetchBatches):
                bodies = [
                    self._plot.batches[each]
                    for each in message.digests
                    if each in self._plot.batches
                ]
                if bodies:
                    effects.append(self.to(sender, *map(BatchBody, bodies)))
            elif isinstance(message, Prepare) and self.rng.random() < 0.5:
                lie = self._plot.lies.get((message.view, message.seq))
                if lie is not None and lie[1] == message.digest:
                    vote = Commit(message.view, message.seq, message.digest)
                    effects.append(self.to(sender, self._signed(vote)))
        return effects

    def _half(self, view: int, to: str) -> bool:
        if self._victims is not None:
            return to in self._victims
        half = self._plot.halves.get(view)
        if half is None:
            others = [each for each in self.group.replicas if each not in self._plot.liars]
            half = frozenset(self.rng.sample(others, self.rng.randint(1, len(others) - 1)))
            self._plot.halves[view] = half
        return to in half

    def _conceive(self, proposal: PrePrepare) -> None:
        plot, place = self._plot, (proposal.view, proposal.seq)
        if proposal.batch:
            plot.batches[proposal.digest] = proposal.batch
        known = plot.batches.get(proposal.digest)
        if place in plot.lies or known is None:
            return
        batch = decode_batch(known)
        requests = list(batch.requests)
        which = self.rng.randrange(3)
        if which == 0 and len(requests) > 1:
            requests.reverse()
        elif which == 1 and requests:
            requests.pop()
        other = encode_batch(replace(batch, time_ms=batch.time_ms + 1, requests=requests))
        lie = digest("batch", other)
        plot.batches[lie] = other
        plot.lies[place] = proposal.digest, lie
        unsigned = replace(proposal, digest=lie, signature=b"", batch=other)
        plot.proposals[place] = replace(unsigned, signature=sign(self.keys, unsigned))

    def _twist(self, to: str, message: AnyMessage) -> AnyMessage:
        if isinstance(message, Reply):
            if self.rng.random() < 0.7:  # else it would never be one of n that say the same
                return message
            return self.false_reply(message)
        if isinstance(message, ViewChange) and message.replica == self.name and self._tells_all:
            change = self._other_change(message)
            return replace(change, signature=sign(self.keys, change))
        if not self._half(self.replica.view, to):
            return message
        if isinstance(message, PrePrepare):
            if self.leads(message.view):
                return self._plot.proposals.get((message.view, message.seq), message)
        elif isinstance(message, Prepare | Commit):
            other = self._other(message)
            if other != message.digest:
                vote: Prepare | Commit = replace(message, digest=other)
                proposal = self._plot.proposals.get((message.view, message.seq))
                if isinstance(vote, Prepare) and proposal is not None:
                    vote = replace(vote, proof=proposal.signature)
                return self._signed(vote)
        elif isinstance(message, Decided):
            return replace(message, digest=self._other(message))
        elif isinstance(message, Checkpoint):
            if self.rng.random() < 0.5:
                return replace(message, digest=self.invented())
        elif isinstance(message, ViewChange) and message.replica == self.name:
            change = self._other_change(message)
            return replace(change, signature=sign(self.keys, change))
        return message

    def _other_change(self, change: ViewChange) -> ViewChange:
        """Claim to have accepted the lies, maybe later than it did, and maybe prepared them."""
        if self._story == "forgets":
            return replace(change, prepared=change.prepared[:-1], preprepared=[])
        accepted = {(claim.seq, claim.digest): claim.view for claim in change.preprepared}
        top = change.stable + 2 * self.settings.checkpoint
        for (view, seq), (_, lie) in self._plot.lies.items():
            if view < change.view and change.stable < seq <= top:
                accepted[seq, lie] = self.rng.choice([view, change.view - 1])
        claims = [Claim(seq, lie, view) for (seq, lie), view in sorted(accepted.items())]
        lies = {claim.seq: claim for claim in claims if claim.digest in self._plot.batches}
        prepared = list(lies.values()) if self._story == "prepared" else []
        return replace(change, prepared=prepared, preprepared=claims)

    def _other(self, vote: Prepare | Commit | Decided) -> bytes:
        lie = self._plot.lies.get((vote.view, vote.seq))
        if lie is not None:
            return lie[1] if vote.digest == lie[0] else lie[0]
        return NULL_DIGEST if self.rng.random() < 0.2 else vote.digest

    def _signed(self, vote: Prepare | Commit) -> Prepare | Commit:
        if self.settings.votes == "mac":
            return vote
        return replace(vote, signature=sign(self.keys, vote))
