"""Replicas that make up what they cannot know or sign."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from msgspec.structs import replace

from state.pbft.authentication import Authenticator, sign
from state.pbft.byzantine.actor import Actor, Byzantine
from state.pbft.checkpoints import Snapshot
from state.pbft.events import Effect, Event, Rewrite, Send
from state.pbft.messages import (
    NULL_DIGEST,
    Accusation,
    AnyMessage,
    BatchBody,
    Checkpoint,
    Claim,
    Commit,
    Decided,
    FetchState,
    NewView,
    Prepare,
    PrePrepare,
    Reply,
    Request,
    Selected,
    StatePart,
    Status,
    ViewChange,
    decode_batch,
    digest,
    encode_batch,
)
from state.pbft.records import Base, decode_record


class Forge(Byzantine):
    """Makes up what it cannot know or sign; `often` is how often it does, 0 to 1."""

    def __init__(
        self, replica: Actor, keys: Authenticator, rng: random.Random, often: float = 0.2
    ) -> None:
        super().__init__(replica, keys, rng)
        self._often = often
        self._digests: deque[bytes] = deque(maxlen=50)
        self._requests: deque[Request] = deque(maxlen=20)
        self._states: deque[Snapshot] = deque(maxlen=4)

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return the effects, with other words in them."""
        effects = super().step(event)
        for effect in effects:
            if isinstance(effect, Rewrite):
                base = decode_record(effect.records[0])
                if isinstance(base, Base):  # an old state as one that is still to come
                    later = base.seq + self.rng.randint(1, 3) * self.settings.checkpoint
                    self._states.append(Snapshot(later, base.state, self.settings.chunk))
        return effects

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
        effects: list[Effect] = []
        for message in messages:
            if isinstance(message, FetchState):
                for state in self._states:
                    if (state.seq, state.digest) == (message.seq, message.digest):
                        data = state.part(message.index)
                        part = StatePart(message.seq, message.digest, message.index, data)
                        effects.append(self.to(sender, part))
            elif isinstance(message, PrePrepare | Prepare | Commit):
                self._digests.append(message.digest)
            elif isinstance(message, Request):
                self._requests.append(message)
        if self.rng.random() < self._often / 4:
            peer = self.rng.choice(self.others)
            data = self.rng.randbytes(self.rng.randrange(80))
            effects += [Send(peer, self.keys.mac(peer, data) + data), Send(peer, data)]
        return effects

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
        if isinstance(message, Commit | Decided):
            return replace(message, digest=self._digest())
        if isinstance(message, Checkpoint):
            if self._states and rng.random() < 0.5:
                return Checkpoint(self._states[-1].seq, self._states[-1].digest)
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
            return self.false_reply(message)
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
        change = self._false_change(victim, view + 1)
        made: list[Callable[[], AnyMessage]] = [
            lambda: PrePrepare(view, seq, NULL_DIGEST, junk),
            lambda: self._own(PrePrepare(view, seq, NULL_DIGEST, b"")),
            lambda: Prepare(view, seq, self._digest(), junk, junk),
            lambda: Commit(view, seq, self._digest(), junk),
            lambda: change,
            lambda: NewView(view + 1, [change], change.checkpoints[0], [], junk),
            lambda: Decided(view, seq, self._digest()),
            self._false_checkpoint,
            lambda: Accusation(
                victim,
                PrePrepare(view, seq, self.invented(), junk),
                PrePrepare(view, seq, self.invented(), junk),
            ),
            self._false_request,
        ]
        return rng.choice(made)()

    def _false_change(self, victim: str, view: int) -> ViewChange:
        """Return what a victim might have said, but has not signed."""
        low = self.replica.standing().stable
        claims = [Claim(low + 1, self._digest(), view - 1)]
        marks = [Checkpoint(low, self.invented())]
        return ViewChange(view, victim, low, marks, claims, claims, self.rng.randbytes(64))

    def _false_checkpoint(self) -> Checkpoint:
        if self._states:
            return Checkpoint(self._states[-1].seq, self._states[-1].digest)
        return Checkpoint(self.settings.checkpoint, self.invented())

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
