"""Tallies: what they count, that decisions are final and never two, hostile bytes, size."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.identity import PrivateIdentity, Roster
from state.mergeable import seal, unseal
from state.quorum import ABSTAIN, Ballot, BallotError, QuorumCertificate, Tally, cast
from state.thresholds import max_faults, quorum_size

VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(10)]
CHOICES = [bytes([i] * 32) for i in range(1, 5)]
YES, NO = CHOICES[:2]


def roster_of(n: int, epoch: int = 1) -> Roster:
    return Roster("demo", epoch, tuple(voter.public for voter in VOTERS[:n]))


ROSTER = roster_of(4)


def ballot(i: int, choice: bytes = YES, expires: int = 100, roster: Roster = ROSTER) -> Ballot:
    return cast(VOTERS[i], roster, "s", choice, expires=expires)


def tally_of(*ballots: Ballot, roster: Roster = ROSTER, f: int | None = None) -> Tally:
    tally = Tally(roster, "s", f=f)
    for one in ballots:
        tally.add(one)
    return tally


def test_a_quorum_of_distinct_voters_decides() -> None:
    tally = tally_of(ballot(0), ballot(1))
    assert tally.conclude(0) is None
    assert not tally.add(ballot(1))
    assert tally.add(ballot(1, expires=200))  # the same choice, valid for longer
    assert tally.conclude(0) is None
    tally.add(ballot(2))
    decision = tally.conclude(0)
    assert decision is not None
    assert decision.choice == YES
    assert [vote.voter for vote in decision.votes] == ["n0", "n1", "n2"]
    assert decision.valid(ROSTER)
    assert tally.certificates == (decision,)


def test_expired_ballots_do_not_count_and_can_be_cast_again() -> None:
    tally = tally_of(ballot(0, expires=10), ballot(1), ballot(2))
    assert tally.conclude(10) is None
    tally.add(ballot(0, expires=20))
    assert tally.conclude(10) is not None


def test_a_decision_stays_when_its_votes_expire_or_its_voters_lie() -> None:
    tally = tally_of(ballot(0), ballot(1), ballot(2))
    decision = tally.conclude(0)
    tally.add(ballot(0, NO))
    assert tally.evidence()[0].voter == "n0"
    assert tally.conclude(10**9) == decision
    assert Tally.from_bytes(tally.to_bytes()).conclude(10**9) == decision


def test_a_voter_that_equivocates_counts_for_nothing() -> None:
    tally = tally_of(ballot(0, YES), ballot(0, NO), ballot(1, YES), ballot(2, YES))
    assert tally.conclude(0) is None
    assert tally.ballot("n0") is None
    (evidence,) = tally.evidence()
    assert evidence.voter == "n0"
    assert evidence.valid(ROSTER)
    tally.add(ballot(3, YES))
    decision = tally.conclude(0)
    assert decision is not None
    assert "n0" not in [vote.voter for vote in decision.votes]


def test_abstaining_and_choosing_is_an_equivocation() -> None:
    (evidence,) = tally_of(ballot(0, ABSTAIN), ballot(0, YES)).evidence()
    assert evidence.valid(ROSTER)


def test_abstentions_decide_nothing() -> None:
    tally = tally_of(*(ballot(i, ABSTAIN) for i in range(4)))
    assert tally.conclude(0) is None
    assert tally.hopeless()
    assert tally.standing().abstained == 4


def test_standing_and_hope() -> None:
    tally = tally_of(ballot(0, YES), ballot(1, NO))
    standing = tally.standing()
    assert standing.choices == {YES: 1, NO: 1}
    assert (standing.abstained, standing.equivocated, standing.silent) == (0, 0, 2)
    assert not tally.hopeless()
    tally.add(ballot(2, ABSTAIN))
    assert tally.hopeless()
    assert not tally_of(ballot(0, YES), ballot(1, YES), ballot(2, NO)).hopeless()
    assert tally_of(ballot(0, YES), ballot(0, NO), ballot(1, YES), ballot(2, NO)).hopeless()


def test_what_is_not_taken() -> None:
    tally = tally_of(ballot(0))
    before = tally.to_bytes()
    forged = msgspec.structs.replace(ballot(1), choice=NO)
    foreign = QuorumCertificate.of(ballot(i, roster=roster_of(4, 2)) for i in range(3))
    for bad, reason in (
        (forged, "n1 did not sign"),
        (ballot(5), "'n5' is no member of epoch 1"),
        (ballot(0, roster=roster_of(4, 2)), "in epoch 2, not for 's' in epoch 1"),
        (cast(VOTERS[1], ROSTER, "t", YES, expires=9), "'t' in epoch 1, not for 's'"),
    ):
        with pytest.raises(BallotError, match=reason):
            tally.add(bad)
    for bad_certificate, reason in (
        (foreign, "in epoch 2, not for"),
        (QuorumCertificate.of([ballot(0), ballot(1)]), "proves nothing"),
    ):
        with pytest.raises(BallotError, match=reason):
            tally.add_certificate(bad_certificate)
    assert tally.to_bytes() == before


def test_tallies_of_different_votes_do_not_merge() -> None:
    tally = tally_of(ballot(0))
    for other in (
        Tally(ROSTER, "t"),
        Tally(roster_of(4, 2), "s"),
        Tally(roster_of(5), "s"),
        Tally(ROSTER, "s", f=0),
    ):
        with pytest.raises(ValueError, match="tallies of"):
            tally.merge(other)
    with pytest.raises(ValueError, match="a subject of 0"):
        Tally(ROSTER, "")
    with pytest.raises(ValueError, match="cannot bear 2"):
        Tally(ROSTER, "s", f=2)


def test_memory_is_bounded_whatever_liars_send() -> None:
    """Each of 4 voters signs 100 choices: the two smallest of each stay."""
    many = [bytes([i] * 32) for i in range(1, 101)]
    random.Random(5).shuffle(many)
    tally = tally_of(*(ballot(i, choice) for choice in many for i in range(4)))
    assert len(list(tally)) == 8
    assert {b.choice for b in tally} == set(sorted(many)[:2])
    for choice in many[:10]:
        tally.add_certificate(QuorumCertificate.of(ballot(i, choice) for i in range(3)))
    assert [c.choice for c in tally.certificates] == sorted(many[:10])[:2]
    assert len(tally.to_bytes()) < 4000


@st.composite
def elections(draw: st.DrawFn) -> tuple[int, int, list[list[tuple[int, bytes, int]]]]:
    """Draw n, f, and ballots in piles: honest voters cast one choice, at most f lie at will."""
    n = draw(st.sampled_from([1, 3, 4, 5, 6, 7, 10]))
    f = draw(st.integers(0, max_faults(n)))
    liars = draw(st.sets(st.integers(0, n - 1), max_size=f))
    cast_: list[tuple[int, bytes, int]] = []
    expiry = st.sampled_from([1, 3, 100])
    for voter in range(n):
        if voter in liars:
            lies = st.tuples(st.sampled_from([ABSTAIN, *CHOICES[:3]]), expiry)
            cast_ += [(voter, *lie) for lie in draw(st.lists(lies, max_size=4))]
        else:
            # Mostly for one choice, so that there are decisions to speak of.
            choice = draw(st.sampled_from([YES, YES, YES, NO, ABSTAIN]))
            cast_ += [(voter, choice, draw(expiry)) for _ in range(draw(st.integers(0, 2)))]
    piles = draw(st.integers(1, 3))
    placed = [draw(st.sets(st.integers(0, piles - 1), min_size=1)) for _ in cast_]
    order = draw(st.permutations(range(len(cast_))))
    return n, f, [[cast_[i] for i in order if pile in placed[i]] for pile in range(piles)]


@settings(max_examples=150)
@given(election=elections(), data=st.data())
def test_no_two_decisions_however_workers_count_and_merge(
    election: tuple[int, int, list[list[tuple[int, bytes, int]]]], data: st.DataObject
) -> None:
    n, f, piles = election
    roster = roster_of(n)
    workers = [Tally(roster, "s", f=f) for _ in piles]
    made: list[QuorumCertificate] = []

    def conclude(tally: Tally, now: int) -> None:
        before = tally.certificates
        decision = tally.conclude(now)
        if decision is not None:
            made.append(decision)
            assert decision.valid(roster, f)
        if before:
            assert tally.certificates == before  # final

    for tally, pile in zip(workers, piles, strict=True):
        for voter, choice, expires in pile:
            tally.add(ballot(voter, choice, expires, roster))
            if data.draw(st.booleans()):
                conclude(tally, data.draw(st.integers(0, 4)))
            if data.draw(st.integers(0, 3)) == 0:
                other = data.draw(st.sampled_from(workers))
                tally.merge(Tally.from_bytes(other.to_bytes()))
    total = Tally(roster, "s", f=f)
    for tally in data.draw(st.permutations(workers)):
        total.merge(tally)
        conclude(total, 0)
    assert len({decision.choice for decision in made}) <= 1
    assert len(total.certificates) <= 1
    choices: dict[int, set[bytes]] = {}
    for voter, choice, _ in (b for pile in piles for b in pile):
        choices.setdefault(voter, set()).add(choice)
    liars = [f"n{voter}" for voter, own in sorted(choices.items()) if len(own) > 1]
    assert [e.voter for e in total.evidence()] == liars
    assert all(e.valid(roster) for e in total.evidence())


@settings(max_examples=100)
@given(election=elections(), now=st.integers(0, 4))
def test_counts_as_a_count_by_hand(
    election: tuple[int, int, list[list[tuple[int, bytes, int]]]], now: int
) -> None:
    """One tally that is asked once, at the end, against sets of all ballots ever cast."""
    n, f, piles = election
    roster = roster_of(n)
    everything = [b for pile in piles for b in pile]
    tally = tally_of(*(ballot(*b, roster) for b in everything), roster=roster, f=f)
    honest = {
        voter: {c for v, c, _ in everything if v == voter}
        for voter in range(n)
        if len({c for v, c, _ in everything if v == voter}) == 1
    }
    winners = [
        choice
        for choice in CHOICES
        if sum(
            honest[v] == {choice} and max(e for w, _, e in everything if w == v) > now
            for v in honest
        )
        >= quorum_size(n, f)
    ]
    decision = tally.conclude(now)
    assert [decision.choice] if decision else winners == []
    standing = tally.standing()
    assert sum(standing.choices.values()) + standing.abstained == len(honest)
    assert standing.silent == n - len({v for v, _, _ in everything})


def test_with_more_liars_than_f_there_can_be_two_and_they_accuse_the_liars() -> None:
    """So the test above could fail; and whoever sees both certificates has the proof."""
    here = tally_of(ballot(0, YES), ballot(1, YES), ballot(2, YES))
    there = tally_of(ballot(0, NO), ballot(1, NO), ballot(3, NO))
    one, two = here.conclude(0), there.conclude(0)
    assert one is not None
    assert two is not None
    assert one.choice != two.choice
    bare = Tally(ROSTER, "s")
    bare.add_certificate(one)
    bare.add_certificate(two)
    here.merge(there)
    for tally in (here, bare):
        assert {c.choice for c in tally.certificates} == {YES, NO}
        assert [e.voter for e in tally.evidence()] == ["n0", "n1"]


def test_hostile_bytes() -> None:
    tally = tally_of(ballot(0), ballot(1), ballot(2))
    tally.conclude(0)
    _, payload = unseal("tally", tally.to_bytes(), versions={1})
    roster, entry = msgspec.msgpack.decode(payload)
    epoch, f, subject, ballots, certificates = entry
    assert (epoch, f, subject, len(ballots), len(certificates)) == (1, 1, "s", 3, 1)
    other = roster_of(5).to_bytes()
    b0, b1, b2 = ballots
    forged = [NO, b1[1]]
    for bad in (
        [roster, [epoch, f, subject, [b1, b0, b2], certificates]],  # out of order
        [roster, [epoch, f, subject, [b0, b0, b1, b2], certificates]],  # twice
        [roster, [epoch, f, subject, [b0, forged, b2], certificates]],
        [roster, [epoch, f, subject, [b0], certificates]],  # ballots of the certificate missing
        [roster, [epoch, f, subject, ballots, certificates * 2]],
        [roster, [epoch, f, subject, ballots, certificates * 3]],
        [roster, [epoch, f, subject, ballots * 3, certificates]],
        [roster, [epoch, f, subject, ballots, [[NO, certificates[0][1]]]]],
        [roster, [epoch, 0, subject, ballots, certificates]],
        [roster, [epoch, 9, subject, ballots, certificates]],
        [roster, [2, f, subject, ballots, certificates]],
        [roster, [epoch, f, "t", ballots, certificates]],
        [roster, [epoch, f, "", [], []]],
        [roster, [epoch, f, subject, ballots, certificates, 1]],
        [roster, [epoch, f, subject, ballots]],
        [other, entry],
        [roster[:-1], entry],
        [b"", entry],
        [roster],
        7,
    ):
        sealed = seal("tally", 1, msgspec.msgpack.encode(bad))
        if bad == [roster, [epoch, 0, subject, ballots, certificates]]:
            # It is a tally, with another f: honest ones do not merge with it.
            with pytest.raises(ValueError, match="tallies of"):
                tally.merge(Tally.from_bytes(sealed))
            continue
        with pytest.raises(ValueError):
            Tally.from_bytes(sealed)
