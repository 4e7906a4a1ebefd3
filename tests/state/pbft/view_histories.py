"""What may happen to two sequence numbers over several views: a model of the protocol's rules.

Correct replicas accept what the primary proposes, prepare what q may have accepted, commit, take
checkpoints, and state in their VIEW-CHANGE what they did; f others state anything, and, where they
lead, send different NEW-VIEWs and proposals to different replicas. Which of it happens is chance.
Only `select` is the real one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from state.pbft.group import Group
from state.pbft.messages import NULL_DIGEST, Checkpoint, Claim, ViewChange
from state.pbft.selection import Selection, select, well_formed

WINDOW = 2
BATCHES = [bytes([i] * 32) for i in (1, 2, 3)]

Select = Callable[..., Selection | None]


class Contradiction(AssertionError):
    """A correct replica accepted another batch than one that was decided."""


class Correct:
    """A correct replica."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.view = 0
        self.stable = Checkpoint(0, state({}))
        self.marks = [self.stable]
        self.prepared: dict[int, Claim] = {}
        self.accepted: dict[int, dict[bytes, int]] = {1: {}, 2: {}}
        self.current: dict[int, bytes] = {}
        """What it accepted in its view."""

    def change(self, view: int) -> ViewChange:
        low = self.stable.seq
        return ViewChange(
            view,
            self.name,
            low,
            [each for each in self.marks if each.seq >= low],
            [self.prepared[seq] for seq in sorted(self.prepared) if seq > low],
            [
                Claim(seq, digest, self.accepted[seq][digest])
                for seq in sorted(self.accepted)
                for digest in sorted(self.accepted[seq])
                if seq > low
            ],
        )


def state(decided: dict[int, bytes], upto: int = 0) -> bytes:
    """Return the digest of the state after slots 1 to `upto`."""
    return b"".join(decided[seq][:16] for seq in range(1, upto + 1)).ljust(32, b"\0")


class History:
    """A run of the model.

    Args:
        rng: Decides what happens.
        n: Replicas, of which as many lie as may be.
        fast: Whether what all correct replicas accepted counts as decided.
        select: The rule.
    """

    def __init__(self, rng: random.Random, n: int, *, fast: bool, select: Select = select) -> None:
        self.rng = rng
        self.fast = fast
        self.select = select
        names = [f"r{i}" for i in range(n)]
        rng.shuffle(names)  # so that liars lead sometimes first, sometimes last
        self.group = Group("model", sorted(names))
        self.liars = sorted(names[: self.group.f])
        self.correct = [Correct(name) for name in sorted(names[self.group.f :])]
        self.decided: dict[int, bytes] = {}
        self.selections = 0
        self.dropped = 0

    def play(self, views: int) -> None:
        """Let so many views pass.

        Raises:
            Contradiction: what must not happen did.
        """
        for view in range(views):
            self._view(view)

    def _some(self, everybody: Sequence[Correct]) -> list[Correct]:
        few = self.rng.choice([0.3, 0.7, 0.95])
        return [each for each in everybody if self.rng.random() < few]

    def _view(self, view: int) -> None:
        lies = self.group.primary(view) in self.liars
        parts: dict[str, Selection] = {}
        if view:
            said = self.correct if self.rng.random() < 0.3 else self._some(self.correct)
            changes = [each.change(view) for each in said]
            entering = self._some(self.correct)
            shared = self._new_view(view, changes)
            for each in entering:
                found = self._new_view(view, changes) if lies else shared
                if found is not None:
                    parts[each.name] = found
        here = [each for each in self.correct if not view or each.name in parts]
        for each in here:
            each.current = {}
            if view:
                self._enter(each, parts[each.name], view)
        common = self.rng.choice(BATCHES[:2])
        for seq in (1, 2):
            for each in self._some(here):
                last = self._last(parts.get(each.name))
                if seq > max(last, each.stable.seq) and seq not in each.current:
                    what = self.rng.choice(BATCHES[:2]) if lies else common
                    self._accept(each, seq, what, view)
        for seq in (1, 2):
            self._vote(here, seq, view)
        for each in here:
            self._checkpoint(each)

    @staticmethod
    def _last(found: Selection | None) -> int:
        if found is None:
            return 0
        return found.slots[-1].seq if found.slots else found.checkpoint.seq

    def _new_view(self, view: int, changes: list[ViewChange]) -> Selection | None:
        """Return what some primary makes of what correct replicas said, and of lies."""
        rng = self.rng
        used = [each for each in changes if rng.random() < 0.9]
        lies = [self._lie(name, view) for name in self.liars if rng.random() < 0.9]
        found = self.select(used + lies, self.group, window=WINDOW, fast=self.fast)
        if found is not None:
            self.selections += 1
        return found

    def _lie(self, name: str, view: int) -> ViewChange:
        rng = self.rng
        low = rng.choice([0, 0, 0, 1, 2])
        high = min(2, low + WINDOW)
        digests = [*BATCHES[:2], NULL_DIGEST]
        marks = [Checkpoint(low, self._state(low))]
        if low < high and rng.random() < 0.5:
            marks.append(Checkpoint(high, self._state(high)))
        slots = range(low + 1, high + 1)
        prepared = [
            Claim(seq, rng.choice(digests), rng.randrange(view))
            for seq in slots
            if rng.random() < 0.7
        ]
        accepted = sorted(
            (seq, digest, rng.choice([view - 1, rng.randrange(view)]))
            for seq in slots
            for digest in digests
            if rng.random() < 0.7
        )
        change = ViewChange(view, name, low, marks, prepared, [Claim(*each) for each in accepted])
        assert well_formed(change, WINDOW, self.group.n)
        return change

    def _state(self, seq: int) -> bytes:
        """Return the true state, or a wrong one."""
        known = all(each in self.decided for each in range(1, seq + 1))
        return state(self.decided, seq) if known and self.rng.random() < 0.7 else bytes([9] * 32)

    def _enter(self, each: Correct, found: Selection, view: int) -> None:
        seq, digest = found.checkpoint.seq, found.checkpoint.digest
        for slot in range(1, seq + 1):
            if slot not in self.decided:
                raise Contradiction(f"slot {slot} was never decided, yet the state after it is")
        if digest != state(self.decided, seq):
            raise Contradiction(f"the state after {seq} is not what was decided")
        if self.rng.random() < 0.5 and seq > each.stable.seq:  # it has it, or gets it
            self._settle(each, found.checkpoint)
        for selected in found.slots:
            if selected.seq > each.stable.seq:
                self._accept(each, selected.seq, selected.digest, view)

    def _accept(self, each: Correct, seq: int, digest: bytes, view: int) -> None:
        if self.decided.get(seq, digest) != digest:
            raise Contradiction(f"view {view}: {each.name} accepts another batch in slot {seq}")
        each.current[seq] = digest
        each.accepted[seq][digest] = view

    def _vote(self, here: list[Correct], seq: int, view: int) -> None:
        """Have some prepare what enough accepted; what enough prepared is decided."""
        rng, group = self.rng, self.group
        helped = len(self.liars) if rng.random() < 0.8 else 0
        for digest in {each.current[seq] for each in here if seq in each.current}:
            accepted = [each for each in here if each.current.get(seq) == digest]
            if self.fast and len(accepted) == len(self.correct):
                self._decide(seq, digest, view)
            if len(accepted) + helped < group.quorum:
                continue
            prepared = self._some(accepted)
            for each in prepared:
                each.prepared[seq] = Claim(seq, digest, view)
            if len(prepared) + helped >= group.quorum:
                self._decide(seq, digest, view)

    def _decide(self, seq: int, digest: bytes, view: int) -> None:
        if self.decided.setdefault(seq, digest) != digest:
            raise Contradiction(f"view {view}: another batch is decided in slot {seq}")

    def _checkpoint(self, each: Correct) -> None:
        """Have a replica execute what is decided, and maybe forget it."""
        rng = self.rng
        for seq in (1, 2):
            if each.marks[-1].seq != seq - 1 or seq not in self.decided or rng.random() < 0.5:
                continue
            if (
                sum(seq in other.prepared for other in self.correct) + len(self.liars)
                < self.group.quorum
            ):
                continue  # speculation alone commits nothing
            each.marks.append(Checkpoint(seq, state(self.decided, seq)))
        for mark in each.marks:
            having = sum(mark in other.marks for other in self.correct)
            if (
                mark.seq > each.stable.seq
                and having + len(self.liars) >= self.group.quorum
                and rng.random() < 0.5
            ):
                self._settle(each, mark)

    def _settle(self, each: Correct, mark: Checkpoint) -> None:
        each.stable = mark
        if mark not in each.marks:
            each.marks = [*(m for m in each.marks if m.seq < mark.seq), mark]
        self.dropped += 1
