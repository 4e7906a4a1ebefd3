"""Replicas over a network that duplicates, delays, reorders and loses, driven by Hypothesis."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from state.crdt.sequence import Edit, Sequence

REPLICAS = st.integers(0, 2)
WORDS = st.text("abcż🦥", min_size=1, max_size=4)


def follow(shown: str, edits: list[Edit]) -> str:
    for edit in edits:
        assert isinstance(edit.inserted, str)
        shown = shown[: edit.index] + edit.inserted + shown[edit.index + edit.deleted :]
    return shown


class Replicas(RuleBasedStateMachine):
    """Three replicas, each with a `str` that is kept by edits alone, and deltas on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.network: list[tuple[int, bytes]] = []
        self.incarnations = [0, 0, 0]

    @initialize()
    def start(self) -> None:
        self.sequences = [Sequence(f"replica{k}#0") for k in range(3)]
        self.shown = ["", "", ""]
        self.stored = [sequence.to_bytes() for sequence in self.sequences]

    def send(self, sender: int, delta: bytes) -> None:
        self.network += [(k, delta) for k in range(3) if k != sender]

    @rule(at=REPLICAS, where=st.floats(0, 1), word=WORDS)
    def insert(self, at: int, where: float, word: str) -> None:
        index = round(where * len(self.sequences[at]))
        self.send(at, self.sequences[at].insert(index, word))
        self.shown[at] = self.shown[at][:index] + word + self.shown[at][index:]

    @rule(at=REPLICAS, where=st.floats(0, 1), count=st.integers(1, 6))
    def delete(self, at: int, where: float, count: int) -> None:
        index = int(where * len(self.sequences[at]))
        count = min(count, len(self.sequences[at]) - index)
        self.send(at, self.sequences[at].delete(index, count))
        self.shown[at] = self.shown[at][:index] + self.shown[at][index + count :]

    @rule(which=st.integers(0, 1 << 16), again=st.booleans())
    def deliver(self, which: int, again: bool) -> None:
        if self.network:
            at, delta = self.network[which % len(self.network)]
            self.shown[at] = follow(self.shown[at], self.sequences[at].follow(delta))
            if not again:
                self.network.remove((at, delta))

    @rule(which=st.integers(0, 1 << 16))
    def lose(self, which: int) -> None:
        if self.network:
            del self.network[which % len(self.network)]

    @rule(at=REPLICAS, other=REPLICAS)
    def ask_for_what_is_missing(self, at: int, other: int) -> None:
        delta = self.sequences[other].delta_since(self.sequences[at].version)
        self.shown[at] = follow(self.shown[at], self.sequences[at].follow(delta))

    @rule(at=REPLICAS)
    def store(self, at: int) -> None:
        self.stored[at] = self.sequences[at].to_bytes()

    @rule(at=REPLICAS)
    def crash(self, at: int) -> None:
        """Come back with what was stored, under a new id."""
        self.incarnations[at] += 1
        self.sequences[at] = Sequence.from_bytes(self.stored[at])
        self.sequences[at].replica = f"replica{at}#{self.incarnations[at]}"
        self.shown[at] = self.sequences[at].text()

    @rule(at=REPLICAS, other=REPLICAS)
    def merge_either_way(self, at: int, other: int) -> None:
        one = Sequence.from_bytes(self.sequences[at].to_bytes())
        two = Sequence.from_bytes(self.sequences[other].to_bytes())
        one.merge(self.sequences[other])
        two.merge(self.sequences[at])
        assert one.to_bytes() == two.to_bytes()

    @invariant()
    def copies_are_up_to_date(self) -> None:
        for sequence, shown in zip(self.sequences, self.shown, strict=True):
            assert sequence.text() == shown
            assert len(sequence) == len(shown)

    def teardown(self) -> None:
        """What was lost with a crash is lost everywhere; the rest is the same everywhere."""
        for _ in range(2):
            for sequence in self.sequences:
                for other in self.sequences:
                    sequence.merge(other)
        assert len({sequence.to_bytes() for sequence in self.sequences}) == 1


Replicas.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestReplicas = Replicas.TestCase
