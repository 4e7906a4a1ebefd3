"""Replicas that misbehave, each in a way that has a name, with their own keys and nobody else's.

A :class:`Byzantine` is a real :class:`~state.pbft.Replica` between whose mouth and whose peers
somebody sits and changes what it says. So it knows the protocol, keeps up with it, and lies well.
They are for tests, and to watch a group survive one.

    equivocate   tells one half of the group this and the other half that: proposals, votes,
                 checkpoints, view changes and replies, each signed and consistent for its half
    silent       says nothing: to all, to some, or whenever it leads
    forge        makes up what it cannot know or sign: others' signatures, requests, claims, new
                 views that do not follow, states, accusations, bytes that mean nothing
    replay       says again, to anyone, what it or others said before, in other views and slots
    delay        says everything late, just before others would lose patience
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, Literal, Protocol

from msgspec.structs import replace

from state.pbft.authentication import MAC_BYTES, Authenticator, close, sign
from state.pbft.events import Effect, Event, Received, Send, Settings
from state.pbft.group import Group
from state.pbft.messages import (
    NULL_DIGEST,
    Accusation,
    AnyMessage,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    FetchBatches,
    MessageError,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    Request,
    Selected,
    StatePart,
    Status,
    ViewChange,
    decode,
    decode_batch,
    digest,
    encode_batch,
)
from state.pbft.replica import Standing

Behaviour = Literal["equivocate", "silent", "forge", "replay", "delay"]


class Actor(Protocol):
    """A replica as others see it, whether it is correct or not."""

    name: str
    group: Group
    settings: Settings

    @property
    def view(self) -> int:
        """The view it is in."""

    @property
    def active(self) -> bool:
        """Whether that view has begun."""

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""

    def step(self, event: Event) -> list[Effect]:
        """Take an event, return effects."""

    def standing(self) -> Standing:
        """Return how it stands."""


class Byzantine:
    """A replica whose words are changed on the way out; this one's are not yet.

    Args:
        replica: What it would be if it were correct.
        keys: Its own.
        rng: Of all its chance.
    """

    def __init__(self, replica: Actor, keys: Authenticator, rng: random.Random) -> None:
        self.replica = replica
        self.keys = keys
        self.rng = rng
        self.name = replica.name
        self.group = replica.group
        self.settings = replica.settings
        self.others = self.group.others(self.name)

    @property
    def view(self) -> int:
        """The view it is in."""
        return self.replica.view

    @property
    def active(self) -> bool:
        """Whether that view has begun."""
        return self.replica.active

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""
        return self.replica.wake_at

    def standing(self) -> Standing:
        """Return how the replica in it stands."""
        return self.replica.standing()

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return the effects, with other words in them."""
        effects: list[Effect] = []
        for effect in self.replica.step(event):
            if isinstance(effect, Send):
                said = self.instead(effect.to, decode(effect.data[MAC_BYTES:]))
                if said:
                    effects.append(Send(effect.to, close(self.keys, effect.to, said)))
            else:
                effects.append(effect)
        if isinstance(event, Received):
            for sender, bundle in event.bundles:
                try:
                    heard = decode(bundle[MAC_BYTES:])
                except MessageError:
                    continue
                effects += self.heard(sender, heard)
        return effects

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Return what to say to `to` in the place of `messages`."""
        return messages

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Return what to say besides, to a sender or anyone."""
        return []

    def leads(self, view: int) -> bool:
        """Return whether it is the primary of a view."""
        return self.group.primary(view) == self.name

    def invented(self) -> bytes:
        """Return a digest of nothing."""
        return self.rng.randbytes(32)

    def to(self, peer: str, *messages: AnyMessage) -> Effect:
        """Return a bundle for a peer."""
        return Send(peer, close(self.keys, peer, list(messages)))


class Plot:
    """What equivocating replicas have agreed on: who is told what. Several may share one."""

    def __init__(self) -> None:
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
        victims: Who is told the other thing; half of the group, another one in each view, if not
            given.
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
        self._victims = victims
        self._halves: dict[int, frozenset[str]] = {}

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say the other thing to the other half."""
        for message in messages:
            if isinstance(message, PrePrepare) and self.leads(message.view):
                self._conceive(message)
            elif isinstance(message, BatchBody):
                self._plot.batches[digest("batch", message.batch)] = message.batch
        return [self._twist(to, message) for message in messages]

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
        half = self._halves.get(view)
        if half is None:
            # The same half for all in the plot, so that they do not spoil each other's lies.
            chance = random.Random(f"{self.group.cluster} {view}")
            half = frozenset(chance.sample(self.group.replicas, self.group.n // 2))
            self._halves[view] = half
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
            results = [self.rng.randbytes(16)]
            return replace(message, digest=self.invented(), results=results)
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
        elif isinstance(message, Checkpoint):
            if self.rng.random() < 0.5:
                return replace(message, digest=self.invented())
        elif isinstance(message, ViewChange) and message.replica == self.name:
            forgetful = replace(message, prepared=message.prepared[:-1], preprepared=[])
            return replace(forgetful, signature=sign(self.keys, forgetful))
        return message

    def _other(self, vote: Prepare | Commit) -> bytes:
        lie = self._plot.lies.get((vote.view, vote.seq))
        if lie is not None:
            return lie[1] if vote.digest == lie[0] else lie[0]
        return NULL_DIGEST if self.rng.random() < 0.2 else vote.digest

    def _signed(self, vote: Prepare | Commit) -> Prepare | Commit:
        if self.settings.votes == "mac":
            return vote
        return replace(vote, signature=sign(self.keys, vote))


class Silent(Byzantine):
    """Says nothing.

    Args:
        replica: See :class:`Byzantine`.
        keys: The same.
        rng: The same.
        towards: To "all", to "some" that it chooses, or to all while it leads ("leader").
    """

    def __init__(
        self,
        replica: Actor,
        keys: Authenticator,
        rng: random.Random,
        towards: Literal["all", "some", "leader"] = "all",
    ) -> None:
        super().__init__(replica, keys, rng)
        self._towards = towards
        self._ignored = frozenset(rng.sample(self.others, rng.randint(1, len(self.others))))

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say nothing."""
        if self._towards == "all":
            return []
        if self._towards == "some":
            return [] if to in self._ignored else messages
        return [] if self.leads(self.replica.view) else messages


class Forge(Byzantine):
    """Makes up what it cannot know or sign; `often` is how often it does, 0 to 1."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, often: float = 0.2
    ) -> None:
        super().__init__(replica, keys, rng)
        self._often = often
        self._digests: deque[bytes] = deque(maxlen=50)
        self._requests: deque[Request] = deque(maxlen=20)

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Change some messages, and add some."""
        said = [
            self._changed(message) if self.rng.random() < self._often else message
            for message in messages
        ]
        if self.rng.random() < self._often:
            said.append(self._made_up())
        return said

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Learn, answer questions with rubbish, send bytes that mean nothing."""
        for message in messages:
            if isinstance(message, PrePrepare | Prepare | Commit):
                self._digests.append(message.digest)
            elif isinstance(message, Request):
                self._requests.append(message)
        if self.rng.random() < self._often / 4:
            peer = self.rng.choice(self.others)
            data = self.rng.randbytes(self.rng.randrange(80))
            return [Send(peer, self.keys.mac(peer, data) + data), Send(peer, data)]
        return []

    def _digest(self) -> bytes:
        return self.rng.choice([*self._digests, self.invented()])

    def _view(self) -> int:
        return max(0, self.replica.view + self.rng.randint(-1, 2))

    def _changed(self, message: AnyMessage) -> AnyMessage:
        rng = self.rng
        if isinstance(message, PrePrepare) and message.batch:
            batch = decode_batch(message.batch)
            if not batch.requests:
                return message
            request = replace(batch.requests[0], operations=[b"forged"])
            false = encode_batch(replace(batch, requests=[request, *batch.requests[1:]]))
            if rng.random() < 0.5:  # another batch than the digest is of
                return replace(message, batch=false)
            unsigned = replace(message, digest=digest("batch", false), batch=false)
            return replace(unsigned, signature=sign(self.keys, unsigned))
        if isinstance(message, Prepare):
            return replace(message, digest=self._digest(), proof=rng.randbytes(64))
        if isinstance(message, Commit):
            return replace(message, digest=self._digest())
        if isinstance(message, Checkpoint):
            ahead = rng.choice([0, self.settings.checkpoint])
            return Checkpoint(message.seq + ahead, self.invented())
        if isinstance(message, ViewChange) and message.replica == self.name:
            return self._false_claims(message)
        if isinstance(message, NewView):
            return self._false_start(message)
        if isinstance(message, StatePart):
            return replace(message, data=rng.randbytes(len(message.data)))
        if isinstance(message, BatchBody):
            return BatchBody(rng.randbytes(len(message.batch)))
        if isinstance(message, Reply):
            return replace(message, digest=self.invented(), results=[rng.randbytes(16)])
        if isinstance(message, Status):
            far = rng.choice([0, 1, 1000, 1 << 61])
            return replace(message, view=message.view + far, final=message.final + far)
        return message

    def _false_claims(self, change: ViewChange) -> ViewChange:
        rng, stable = self.rng, change.stable
        slots = range(stable + 1, stable + 2 + rng.randrange(4))
        which = rng.randrange(4)
        if which == 0:  # it prepared what nobody has heard of
            false = [Claim(seq, self.invented(), change.view - 1) for seq in slots]
            change = replace(change, prepared=false, preprepared=false)
        elif which == 1:  # or what others proposed, later than they did
            false = [Claim(seq, self._digest(), change.view - 1) for seq in slots]
            change = replace(change, prepared=false, preprepared=false)
        elif which == 2:  # it knows of nothing
            change = replace(change, prepared=[], preprepared=[])
        else:  # it is far ahead
            ahead = stable + self.settings.checkpoint
            checkpoints = [Checkpoint(ahead, self.invented())]
            change = replace(
                change, stable=ahead, checkpoints=checkpoints, prepared=[], preprepared=[]
            )
        return replace(change, signature=sign(self.keys, change))

    def _false_start(self, new: NewView) -> NewView:
        which = self.rng.randrange(4)
        if which == 0 and new.selected:
            first = Selected(new.selected[0].seq, self._digest())
            new = replace(new, selected=[first, *new.selected[1:]])
        elif which == 1 and new.selected:
            new = replace(new, selected=new.selected[:-1])
        elif which == 2:
            last = new.selected[-1].seq if new.selected else new.checkpoint.seq
            new = replace(new, selected=[*new.selected, Selected(last + 1, self._digest())])
        else:
            new = replace(new, view_changes=new.view_changes[:-1])
        return replace(new, signature=sign(self.keys, new))

    def _made_up(self) -> AnyMessage:
        rng = self.rng
        seq = max(1, self.replica.standing().final + rng.randint(-1, 3))
        victim = rng.choice(self.others)
        junk = rng.randbytes(64)
        view = self._view()
        change = ViewChange(view + 1, victim, 0, [], [Claim(seq, self._digest(), view)], [], junk)
        made: list[Callable[[], AnyMessage]] = [
            lambda: PrePrepare(view, seq, NULL_DIGEST, junk),
            lambda: self._own(PrePrepare(view, seq, NULL_DIGEST, b"")),
            lambda: Prepare(view, seq, self._digest(), junk, junk),
            lambda: Commit(view, seq, self._digest(), junk),
            lambda: change,
            lambda: NewView(view + 1, [change], Checkpoint(0, self.invented()), [], junk),
            lambda: Checkpoint(seq + self.settings.checkpoint, self.invented()),
            lambda: Accusation(
                victim,
                PrePrepare(view, seq, self.invented(), junk),
                PrePrepare(view, seq, self.invented(), junk),
            ),
            self._false_request,
        ]
        return rng.choice(made)()

    def _own(self, proposal: PrePrepare) -> PrePrepare:
        return replace(proposal, signature=sign(self.keys, proposal))

    def _false_request(self) -> AnyMessage:
        if not self._requests:
            return BatchBody(b"")
        request = self.rng.choice(self._requests)
        which = self.rng.randrange(3)
        if which == 0:
            return replace(request, operations=[b"forged"])
        if which == 1:
            return replace(request, number=request.number + 1)
        forged = replace(request, operations=[b"forged"])
        return replace(forged, signature=sign(self.keys, forged))


class Replay(Byzantine):
    """Says again what was said before; `often` is how often, 0 to 1."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, often: float = 0.2
    ) -> None:
        super().__init__(replica, keys, rng)
        self._often = often
        self._said: deque[AnyMessage] = deque(maxlen=200)
        self._bundles: deque[bytes] = deque(maxlen=50)

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return the effects, and old words among them."""
        effects = super().step(event)
        if isinstance(event, Received):
            self._bundles += [bundle for _, bundle in event.bundles]
        for effect in list(effects):
            if not isinstance(effect, Send) or self.rng.random() >= self._often:
                continue
            peer = self.rng.choice(self.others)
            if self._bundles and self.rng.random() < 0.2:
                effects.append(Send(peer, self.rng.choice(self._bundles)))
            elif self._said:
                old = [self.rng.choice(self._said) for _ in range(self.rng.randint(1, 4))]
                effects.append(self.to(peer, *map(self._elsewhere, old)))
        return effects

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say it, and remember it."""
        self._said += messages
        return messages

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Remember it."""
        self._said += messages
        return []

    def _elsewhere(self, message: AnyMessage) -> AnyMessage:
        if self.rng.random() < 0.5:
            return message
        if isinstance(message, PrePrepare | Prepare | Commit):
            if self.rng.random() < 0.5:
                return replace(message, view=self.replica.view)
            return replace(message, seq=message.seq + self.rng.randint(1, 3))
        if isinstance(message, ViewChange | NewView):
            return replace(message, view=self.replica.view + self.rng.randint(1, 2))
        return message


class Delay(Byzantine):
    """Says everything late: `share` of the timeout after which others give up on a view."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, share: float = 0.8
    ) -> None:
        super().__init__(replica, keys, rng)
        self._delay = share * self.settings.timeout
        self._held: deque[tuple[float, Send]] = deque()

    @property
    def wake_at(self) -> float:
        """When it wants a `Tick`."""
        due = self._held[0][0] if self._held else float("inf")
        return min(due, self.replica.wake_at)

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return what is due of what was said before."""
        effects: list[Effect] = []
        for effect in super().step(event):
            if isinstance(effect, Send):
                self._held.append((event.now + self._delay, effect))
            else:
                effects.append(effect)
        while self._held and self._held[0][0] <= event.now:
            effects.append(self._held.popleft()[1])
        return effects


BEHAVIOURS: Final[dict[Behaviour, Callable[[Actor, Authenticator, random.Random], Byzantine]]] = {
    "equivocate": Equivocate,
    "silent": Silent,
    "forge": Forge,
    "replay": Replay,
    "delay": Delay,
}
"""What makes a replica misbehave, by name."""
