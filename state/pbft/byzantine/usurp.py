"""Replicas that begin a view twice."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection

from msgspec.structs import replace

from state.pbft.authentication import Authenticator, sign
from state.pbft.byzantine.actor import Actor
from state.pbft.byzantine.equivocate import Equivocate, Plot
from state.pbft.events import Effect
from state.pbft.messages import (
    NULL,
    NULL_DIGEST,
    AnyMessage,
    Claim,
    NewView,
    PrePrepare,
    Selected,
    ViewChange,
)
from state.pbft.selection import Selection, select

_TRIES = 8


class Usurp(Equivocate):
    """Begins the views that it leads twice, with a NEW-VIEW for each half of the group.

    The other one leaves out what some replicas said, or has another VIEW-CHANGE of its own, so that
    where possible something else follows from it, by all the rules; else it breaks them. Then it
    equivocates, and votes for each half for what it began with there.

    Args:
        replica: See :class:`Equivocate`.
        keys: The same.
        rng: The same.
        plot: The same.
        victims: The same.
    """

    def __init__(
        self,
        replica: Actor,
        keys: Authenticator,
        rng: random.Random,
        plot: Plot | None = None,
        victims: Collection[str] | None = None,
    ) -> None:
        super().__init__(replica, keys, rng, plot, victims)
        self._changes: defaultdict[int, dict[str, ViewChange]] = defaultdict(dict)
        """What others want, of the views that it leads."""
        self._others: dict[int, NewView] = {}
        """With what the other half begins each of its views."""
        self._begun: dict[tuple[int, int], bytes] = {}
        """The batches that only the other half begins with, by view and slot."""

    def instead(self, to: str, messages: list[AnyMessage]) -> list[AnyMessage]:
        """Say the other thing to the other half; now and then both to the same."""
        said = super().instead(to, messages)
        for message in messages:
            if isinstance(message, NewView) and self.leads(message.view):
                other = self._other_start(message)
                if self.rng.random() < 0.15:
                    said += [message, other]
        return said

    def heard(self, sender: str, messages: list[AnyMessage]) -> list[Effect]:
        """Remember who wants it to lead, too."""
        for message in messages:
            if isinstance(message, ViewChange) and self.leads(message.view):
                self._changes[message.view][message.replica] = message
        return super().heard(sender, messages)

    def _twist(self, to: str, message: AnyMessage) -> AnyMessage:
        if isinstance(message, NewView) and self.leads(message.view):
            return self._other_start(message) if self._half(message.view, to) else message
        return super()._twist(to, message)

    def _conceive(self, proposal: PrePrepare) -> None:
        place = (proposal.view, proposal.seq)
        begun = self._begun.get(place)
        if begun is None:
            super()._conceive(proposal)
        else:
            self._plot.lies.setdefault(place, (proposal.digest, begun))

    def _other_start(self, new: NewView) -> NewView:
        known = self._others.get(new.view)
        if known is None:
            known = self._others[new.view] = self._made(new)
            self._prepare_lies(new, known)
        return known

    def _made(self, new: NewView) -> NewView:
        """Return another beginning of a view: one that is as good, if there is one."""
        heard = self._changes[new.view] | {each.replica: each for each in new.view_changes}
        own = heard.pop(self.name)
        rivals = [
            own,
            replace(own, prepared=[], preprepared=[]),
            self._other_change(own),
            _boast(own, list(heard.values()), 2 * self.settings.checkpoint),
        ]
        rivals = [replace(each, signature=sign(self.keys, each)) for each in rivals]
        made: NewView | None = None
        for _ in range(_TRIES):
            size = self.rng.randint(min(self.group.quorum - 1, len(heard)), len(heard))
            changes = [self.rng.choice(rivals), *self.rng.sample(list(heard.values()), size)]
            found = self._selection(changes)
            if found is None or {*map(str, changes)} == {*map(str, new.view_changes)}:
                continue
            made = NewView(new.view, changes, found.checkpoint, found.slots)
            if found != (new.checkpoint, new.selected):
                break
        if made is None or self.rng.random() < 0.1:
            last = new.selected[-1].seq if new.selected else new.checkpoint.seq
            made = replace(new, selected=[*new.selected, Selected(last + 1, NULL_DIGEST)])
        return replace(made, signature=sign(self.keys, made))

    def _selection(self, changes: list[ViewChange]) -> Selection | None:
        window = 2 * self.settings.checkpoint
        return select(changes, self.group, window=window, fast=self.settings.fast)

    def _prepare_lies(self, new: NewView, other: NewView) -> None:
        """See what each half is to be told of the slots with which the view begins."""
        here = {each.seq: each.digest for each in new.selected}
        there = {each.seq: each.digest for each in other.selected}
        for seq in sorted({*here, *there}):
            place = (new.view, seq)
            if seq not in here:
                self._begun[place] = there[seq]
            elif seq not in there:  # a proposal of its own, in the place of none
                lie = PrePrepare(new.view, seq, NULL_DIGEST, b"", NULL)
                self._plot.proposals[place] = replace(lie, signature=sign(self.keys, lie))
                self._plot.batches[NULL_DIGEST] = NULL
                self._plot.lies[place] = here[seq], NULL_DIGEST
            elif here[seq] != there[seq]:
                self._plot.lies[place] = here[seq], there[seq]


def _boast(own: ViewChange, heard: list[ViewChange], window: int) -> ViewChange:
    """Claim to have prepared, last of all, what others say that they have accepted."""
    top = own.stable + window
    claims: dict[int, Claim] = {}
    for each in (own, *heard):
        for claim in each.preprepared:
            known = claims.get(claim.seq)
            if own.stable < claim.seq <= top and (known is None or known.view <= claim.view):
                claims[claim.seq] = claim
    boast = [claims[seq] for seq in sorted(claims)]
    return replace(own, prepared=boast, preprepared=boast)
