"""quorum_vote in flows: over shards, workers and restarts, with time passed in."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from operators.merge import merge_states
from operators.quorum import quorum_vote
from state.identity import PrivateIdentity, Roster, TrustStore, approve
from state.quorum import (
    ABSTAIN,
    Ballot,
    Equivocation,
    Fork,
    QuorumCertificate,
    Rejected,
    Succession,
    Tally,
    Undecided,
    cast,
)

VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(7)]
ROSTER = Roster("demo", 1, tuple(voter.public for voter in VOTERS[:4]))
YES, NO = bytes([1] * 32), bytes([2] * 32)
EXPIRES = 10_000


def ballot(
    i: int, subject: str = "s", choice: bytes = YES, expires: int = EXPIRES, roster: Roster = ROSTER
) -> Ballot:
    return cast(VOTERS[i], roster, subject, choice, expires=expires)


def election(seed: int, subjects: int) -> list[Any]:
    """Return ballots on many subjects, shuffled: one voter in four lies, or is silent."""
    rng = random.Random(seed)
    made: list[Any] = []
    for number in range(subjects):
        subject = f"s{number}"
        liar = rng.randrange(4)
        choices = [rng.choice([YES, YES, YES, NO, ABSTAIN]) for _ in range(4)]
        for i in range(4):
            if i != liar or rng.random() < 0.5:
                made.append(ballot(i, subject, choices[i]))
        if rng.random() < 0.5:
            made.append(ballot(liar, subject, rng.choice([YES, NO])))
    rng.shuffle(made)
    return made


class Votes:
    """A flow with its outputs."""

    def __init__(self, items: Any, clock: Callable[[], float] = lambda: 0.0, **rest: Any) -> None:
        self.out: list[tuple[str, Any]] = []
        self.flow = Dataflow("votes")
        source = TestingSource(items) if isinstance(items, list) else items
        up = op.input("in", self.flow, source)
        wanted = {"trust": TrustStore(ROSTER), "longest": timedelta(seconds=20)} | rest
        votes = quorum_vote("votes", up, 4, 1, clock=clock, **wanted)
        for name in ("decisions", "undecided", "evidence", "rejected"):
            op.output(name, getattr(votes, name), TestingSink(self.out))

    def of(self, kind: type) -> list[Any]:
        assert all(
            subject == (item.first.subject if isinstance(item, Equivocation) else item.subject)
            for subject, item in self.out
            if not isinstance(item, Rejected | Fork)
        )
        return [item for _, item in self.out if isinstance(item, kind)]


def outcomes(out: list[tuple[str, Any]]) -> Counter[str]:
    return Counter(
        f"{subject} {item.reason if isinstance(item, Rejected) else item}" for subject, item in out
    )


def test_decisions_evidence_and_rejections() -> None:
    votes = Votes([ballot(0), ballot(1), ballot(1), ballot(2), ballot(2, choice=NO), ballot(5)])
    run_main(votes.flow)
    (decision,) = votes.of(QuorumCertificate)
    assert decision.valid(ROSTER)
    assert decision.choice == YES
    (evidence,) = votes.of(Equivocation)
    assert evidence.valid(ROSTER)
    assert evidence.voter == "n2"
    assert [r.reason for r in votes.of(Rejected)] == ["duplicate", "member"]
    assert not votes.of(Undecided)


def test_bytes_are_decoded_and_refused() -> None:
    items = [ballot(0).to_bytes(), b"BRDF", ballot(1).to_bytes()[:-1], Tally(ROSTER, "t")]
    tally = Tally(ROSTER, "s")
    for i in (1, 2):
        tally.add(ballot(i))
    evidence = Equivocation(ballot(0), ballot(0, choice=NO)).to_bytes()
    votes = Votes([*items, tally.to_bytes(), evidence])
    run_main(votes.flow)
    assert len(votes.of(QuorumCertificate)) == 1
    rejected = votes.of(Rejected)
    assert [(r.reason, r.total) for r in rejected] == [
        ("malformed", 1),
        ("malformed", 2),
        ("malformed", 3),
    ]
    assert "a equivocation is no ballot" in rejected[2].detail


def test_what_is_no_item_stops_the_flow() -> None:
    with pytest.raises(Exception) as error:
        run_main(Votes([("s", ballot(0))]).flow)
    causes = [error.value]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)  # type: ignore[arg-type]
    assert "is no ballot, certificate or tally" in str(causes[-1])
    assert "step votes.votes: " in str(causes[-1])


@pytest.mark.parametrize("shards", [1, 24])
def test_any_number_of_workers_and_shards_has_the_same_outcomes(shards: int) -> None:
    items = election(seed=3, subjects=40)
    one = Votes(items, shards=shards)
    run_main(one.flow, epoch_interval=timedelta(0))
    assert len(one.of(QuorumCertificate)) > 10
    assert len(one.of(Undecided)) > 5
    assert len(one.of(Equivocation)) > 3
    two = Votes(items, shards=shards)
    cluster_main(two.flow, [], 0, worker_count_per_proc=2)
    assert outcomes(two.out) == outcomes(one.out)


def test_partial_tallies_of_several_flows_add_up() -> None:
    """Ballots counted in three places, each alone too few; their tallies decide as one flow."""
    items = election(seed=4, subjects=30)
    parts: dict[tuple[int, str], Tally] = {}
    for number, item in enumerate(items):
        part = parts.setdefault((number % 3, item.subject), Tally(ROSTER, item.subject))
        part.add(item)
    whole, partial = Votes(items), Votes([part.to_bytes() for part in parts.values()])
    run_main(whole.flow)
    run_main(partial.flow)

    def decided(votes: Votes) -> set[tuple[str, bytes]]:
        return {(c.subject, c.choice) for c in votes.of(QuorumCertificate)}

    # Tallies bring a liar's ballots in another order, so a voter may be counted that is not there.
    known = {e.to_bytes() for e in whole.of(Equivocation)}
    assert {e.to_bytes() for e in partial.of(Equivocation)} == known
    merged = {subject: Tally(ROSTER, subject) for _, subject in parts}
    for (_, subject), part in parts.items():
        merged[subject].merge(part)
    for subject, choice in decided(whole) | decided(partial):
        decision = merged[subject].conclude(0)
        assert decision is None or decision.choice == choice
    agreed = {(s, d.choice) for s, t in merged.items() if (d := t.conclude(0)) is not None}
    assert agreed <= decided(whole)
    assert agreed <= decided(partial)


def test_tallies_of_workers_merge_in_the_operators_for_any_state() -> None:
    """The same ballots and lies, counted on three workers and merged by `merge_states`."""
    items = [ballot(i) for i in (0, 1, 2)] + [ballot(0, choice=NO), ballot(3, choice=NO)]
    parts = [Tally(ROSTER, "s") for _ in range(3)]
    for number, item in enumerate(items):
        parts[number % 3].add(item)
        parts[(number + 1) % 3].add(item)
    out: list[tuple[str, bytes]] = []
    flow = Dataflow("merge")
    up = op.input("in", flow, TestingSource([("s", part.to_bytes()) for part in parts]))
    whole = merge_states("whole", up, lambda: Tally(ROSTER, "s"), emit="eof")
    op.output("out", whole, TestingSink(out))
    run_main(flow)
    expected = Tally(ROSTER, "s")
    for item in items:
        expected.add(item)
    assert out == [("s", expected.to_bytes())]
    assert [e.voter for e in expected.evidence()] == ["n0"]


def test_everything_in_the_streams_goes_between_processes() -> None:
    """The engine pickles what it exchanges between the processes of a cluster."""
    tally = Tally(ROSTER, "s")
    tally.add(ballot(0))
    certificate = QuorumCertificate.of(ballot(i) for i in range(3))
    for item in (
        ballot(0),
        certificate,
        Succession(ROSTER, {"n0": b""}),
        Undecided(1, "s", "split", tally.standing()),
        Equivocation(ballot(0), ballot(0, choice=NO)),
        Fork(certificate, certificate),
        Rejected(ballot(0), "late", "", 1),
    ):
        assert pickle.loads(pickle.dumps(item)) == item
    assert pickle.loads(pickle.dumps(tally)).to_bytes() == tally.to_bytes()


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Script(DynamicSource[Ballot]):
    """Turns the clock to an item's time and emits it; ends when it may."""

    def __init__(self, clock: Clock, items: list[tuple[float, Any]], until: Callable[[], bool]):
        self.clock, self.items, self.until = clock, items, until

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Any:
        return _Scripted(self)


class _Scripted(StatelessSourcePartition[Any]):
    def __init__(self, script: Script) -> None:
        self.script = script
        self.left = list(script.items)

    def next_batch(self) -> list[Any]:
        clock = self.script.clock
        if self.left:
            clock.now, item = self.left.pop(0)
            return [item]
        if self.script.until():
            raise StopIteration
        return []


def test_a_timeout_comes_by_itself() -> None:
    """Nothing arrives after the second ballot; the notification tells when time is up."""
    clock = Clock()

    def until() -> bool:
        clock.now = 1.0
        return bool(votes.of(Undecided))

    script = Script(clock, [(0.0, ballot(0)), (0.0, ballot(1))], until)
    votes = Votes(script, clock, patience=timedelta(milliseconds=1))
    run_main(votes.flow)
    (timeout,) = votes.of(Undecided)
    assert timeout.reason == "timeout"
    assert timeout.standing.choices == {YES: 2}


def test_late_and_expired_ballots_and_open_subjects_at_the_end() -> None:
    clock = Clock()
    items = [
        (0.0, ballot(0)),
        (0.0, ballot(1)),
        (6.0, ballot(2)),  # patience is 5 s
        (7.0, ballot(0, "t", expires=7000)),
        (7.0, ballot(0, "t", expires=30_000)),
        (7.0, ballot(0, "u")),
        (8.0, QuorumCertificate.of(ballot(i) for i in (0, 1, 3))),
    ]
    votes = Votes(Script(clock, items, lambda: True), clock, patience=timedelta(seconds=5))
    run_main(votes.flow)
    assert [(u.subject, u.reason) for u in votes.of(Undecided)] == [
        ("s", "timeout"),
        ("u", "ended"),
    ]
    assert [r.reason for r in votes.of(Rejected)] == ["late", "expired", "expiry"]
    assert [c.subject for c in votes.of(QuorumCertificate)] == ["s"]


def test_a_roster_follows_in_every_shard() -> None:
    following = Roster("demo", 2, tuple(voter.public for voter in VOTERS[1:5]))
    succession = Succession(following, {v.name: approve(v, ROSTER, following) for v in VOTERS[:3]})
    subjects = [f"s{i}" for i in range(30)]
    early = [ballot(4, s, roster=following) for s in subjects]
    late = [ballot(i, s, roster=following) for s in subjects for i in (2, 3, 4)]
    votes = Votes([*early, succession, *late])
    run_main(votes.flow)
    assert [r.reason for r in votes.of(Rejected)] == ["epoch"] * 30
    decisions = votes.of(QuorumCertificate)
    assert sorted(c.subject for c in decisions) == sorted(subjects)
    assert all(c.valid(following) for c in decisions)
    refused = Votes([Succession(following, {})], shards=2)
    run_main(refused.flow)
    assert [(s, r.reason) for s, r in refused.out] == [("", "roster")] * 2


@pytest.mark.parametrize("workers", [(1, 2), (2, 1)])
def test_resumes_with_more_or_fewer_workers(tmp_path: Path, workers: tuple[int, int]) -> None:
    items = election(seed=6, subjects=30)
    whole = Votes(items)
    run_main(whole.flow)
    init_db_dir(tmp_path, 3)
    half = len(items) // 2
    stopped = [*items[:half], TestingSource.EOF(), *items[half:]]
    out: list[tuple[str, Any]] = []
    for count in workers:
        part = Votes(stopped)
        recovery = RecoveryConfig(tmp_path)
        cluster_main(
            part.flow,
            [],
            0,
            worker_count_per_proc=count,
            epoch_interval=timedelta(0),
            recovery_config=recovery,
        )
        out += part.out
    ended = [u for _, u in out if isinstance(u, Undecided) and u.reason == "ended"]
    assert ended
    # What was open in between is told of in between, and again at the end if it still is.
    still = [(s, u) for s, u in whole.out if isinstance(u, Undecided) and u.reason == "ended"]
    rest = [(s, o) for s, o in out if not (isinstance(o, Undecided) and o.reason == "ended")]
    assert outcomes([*rest, *still]) == outcomes(whole.out)


@pytest.mark.parametrize(
    ("n", "f", "rest", "reason"),
    [
        (3, 1, {}, "3 members cannot bear 1"),
        (7, 2, {}, "n is 7, and the roster in force has 4 members"),
        (4, 1, {"shards": 0}, "the number of shards must be at least 1"),
        (4, 1, {"patience": timedelta(0)}, "patience is 0"),
    ],
)
def test_settings_that_cannot_be(n: int, f: int, rest: dict[str, Any], reason: str) -> None:
    flow = Dataflow("votes")
    up = op.input("in", flow, TestingSource([]))
    with pytest.raises(ValueError, match=reason):
        quorum_vote("votes", up, n, f, trust=TrustStore(ROSTER), **rest)
