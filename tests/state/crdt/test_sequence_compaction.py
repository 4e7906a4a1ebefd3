"""Compaction at a cut that all have reached, against replicas that never compact."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from state.crdt.causal import VersionVector
from state.crdt.sequence import Edit, Sequence

NAMES = ("zoe", "amy", "bob")


def version(counters: dict[str, int]) -> VersionVector:
    return VersionVector({name: at for name, at in counters.items() if at})


@dataclass
class Replica:
    """One replica, and its twin that takes in the same and never compacts."""

    name: str
    sequence: Sequence
    twin: Sequence
    sent: list[bytes] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))

    def edit(self, rng: random.Random) -> None:
        length = len(self.sequence)
        if length and rng.random() < 0.45:
            index = rng.randrange(length)
            count = rng.randint(1, min(6, length - index))
            delta = self.sequence.delete(index, count)
            self.twin.delete(index, count)
        else:
            index, text = rng.randint(0, length), rng.choice(["a", "bc", "def"])
            delta = self.sequence.insert(index, text)
            self.twin.insert(index, text)
        self.sent.append(delta)
        self.seen[self.name] = len(self.sent)

    def pull(self, other: Replica, count: int) -> None:
        start = self.seen[other.name]
        for delta in other.sent[start : start + count]:
            self.sequence.apply(delta)
            self.twin.apply(delta)
        self.seen[other.name] = min(start + count, len(other.sent))

    def merge(self, other: Replica) -> None:
        self.sequence.merge(other.sequence)
        self.twin.merge(other.twin)
        for name in NAMES:
            self.seen[name] = max(self.seen[name], other.seen[name])


@dataclass(frozen=True)
class Cut:
    """What all replicas had at one time, and what any of them had written by then."""

    reached: VersionVector
    written: VersionVector

    @classmethod
    def now(cls, replicas: list[Replica]) -> Cut:
        counters = [{name: r.sequence.version[name] for name in NAMES} for r in replicas]
        least = {name: min(c[name] for c in counters) for name in NAMES}
        most = {name: max(c[name] for c in counters) for name in NAMES}
        return cls(version(least), version(most))


@pytest.mark.parametrize("seed", range(60))
def test_compaction_at_any_time_changes_nothing_that_is_seen(seed):
    rng = random.Random(seed)
    replicas = [Replica(name, Sequence(name), Sequence(name)) for name in NAMES]
    cuts: list[Cut] = []
    for _ in range(100):
        one, other = rng.sample(replicas, 2)
        action = rng.random()
        if action < 0.35:
            one.pull(other, rng.randint(1, 8))
        elif action < 0.45:
            cuts.append(Cut.now(replicas))
        elif action < 0.55 and cuts:
            cut = rng.choice(cuts[-3:])
            if one.sequence.version.covers(cut.written):
                one.sequence.compact(cut.reached)
                data = one.sequence.to_bytes()
                one.sequence = Sequence.from_bytes(data)
                one.sequence.replica = one.name
                assert one.sequence.to_bytes() == data
        elif action < 0.62:
            one.merge(other)
        else:
            one.edit(rng)
        assert one.sequence.text() == one.twin.text()
    for one, other in [*itertools.permutations(replicas, 2)] * 2:
        one.pull(other, 1 << 30)
    everyone = [s for r in replicas for s in (r.sequence, r.twin)]
    assert len({s.text() for s in everyone}) == 1
    for cut in ([cuts[-1].reached] if cuts else []) + [everyone[0].version]:
        for sequence in everyone:
            sequence.compact(cut)
        assert len({s.to_bytes() for s in everyone}) == 1


def test_only_what_can_be_referred_to_is_kept():
    sequence = Sequence("ann")
    sequence.insert(0, "()")
    for _ in range(500):
        sequence.insert(1, "word")
        sequence.delete(2, 2)
        sequence.delete(1, 2)
    before = len(sequence.to_bytes())
    sequence.compact(sequence.version)
    fresh = Sequence("ann")
    fresh.insert(0, "()")
    assert sequence.text() == "()"
    assert len(sequence.to_bytes()) < len(fresh.to_bytes()) + 20 < before


def test_a_late_replica_takes_the_snapshot_and_adds_what_it_wrote():
    ann, bob, late = Sequence("ann"), Sequence("bob"), Sequence("late")
    bob.apply(ann.insert(0, "hello world"))
    bob.apply(ann.delete(0, 6))
    ann.compact(ann.version)
    assert late.follow(ann.to_bytes()) == [Edit(0, 0, "world")]
    assert late.follow(ann.delta_since(VersionVector())) == []
    delta = late.insert(5, "!")
    for other in (ann, bob):
        other.apply(delta)
        assert other.text() == "world!"
    bob.compact(ann.compacted)
    assert ann.to_bytes() == bob.to_bytes() == late.to_bytes()


def test_merging_with_a_compacted_state_reports_the_difference():
    ann, bob = Sequence("ann"), Sequence("bob")
    bob.apply(ann.insert(0, "one two three"))
    ann.delete(4, 4)
    ann.insert(4, "2 ")
    ann.compact(ann.version)
    assert bob.follow(ann.to_bytes()) == [Edit(4, 3, "2")]
    assert bob.replica == "bob"
    ann.apply(bob.insert(0, "zero "))
    assert ann.text() == "zero one 2 three"


def test_a_cut_ahead_or_half_is_refused():
    ann, bob = Sequence("ann"), Sequence("bob")
    bob.apply(ann.insert(0, "abc"))
    before = bob.to_bytes()
    with pytest.raises(ValueError, match="ahead"):
        bob.compact(VersionVector({"ann": 4}))
    with pytest.raises(ValueError, match="ahead"):
        bob.compact(VersionVector({"nobody": 1}))
    assert bob.to_bytes() == before
    bob.delete(1, 1)
    with pytest.raises(ValueError, match="without the element"):
        bob.compact(VersionVector({"bob": 1}))
    bob.compact(VersionVector())
    assert bob.compacted == VersionVector()


def test_an_older_cut_changes_nothing():
    ann = Sequence("ann")
    ann.insert(0, "abc")
    early = ann.version
    ann.delete(0, 1)
    ann.compact(ann.version)
    data = ann.to_bytes()
    ann.compact(early)
    assert ann.to_bytes() == data


def test_editing_inside_compacted_runs_and_saving_without_another_cut():
    ann, bob = Sequence("ann"), Sequence("bob")
    bob.apply(ann.insert(0, "abcdef"))
    ann.compact(ann.version)
    bob.apply(ann.insert(3, "-"))
    bob.apply(ann.delete(1, 1))
    ann.apply(bob.insert(6, "!"))
    data = ann.to_bytes()
    again = Sequence.from_bytes(data)
    assert again.text() == ann.text() == bob.text() == "ac-def!"
    assert again.to_bytes() == data
    bob.compact(ann.compacted)
    assert bob.to_bytes() == data
