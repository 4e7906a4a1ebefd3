"""Polls: outcomes, deadlines, what is rejected and why, memory, and a slow count beside them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.identity import IdentityError, PrivateIdentity, Roster, TrustStore, approve
from state.quorum import (
    ABSTAIN,
    Ballot,
    Equivocation,
    Fork,
    Polls,
    QuorumCertificate,
    Rejected,
    Succession,
    Tally,
    Undecided,
    cast,
)

VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(6)]
ROSTER = Roster("demo", 1, tuple(voter.public for voter in VOTERS[:4]))
NEXT = Roster("demo", 2, tuple(voter.public for voter in VOTERS[1:6]))
SUCCESSION = Succession(NEXT, {v.name: approve(v, ROSTER, NEXT) for v in VOTERS[:3]})
YES, NO = bytes([1] * 32), bytes([2] * 32)


def polls(**settings: int) -> Polls:
    wanted = {"f": 1, "patience": 100, "longest": 1000} | settings
    return Polls(TrustStore(ROSTER), **wanted)


def ballot(
    i: int, choice: bytes = YES, subject: str = "s", expires: int = 500, roster: Roster = ROSTER
) -> Ballot:
    return cast(VOTERS[i], roster, subject, choice, expires=expires)


def reasons(out: list[object]) -> list[str]:
    return [item.reason for item in out if isinstance(item, Rejected | Undecided)]


def test_a_quorum_decides_once() -> None:
    some = polls()
    assert some.receive(ballot(0), 0) == []
    assert some.receive(ballot(1), 1) == []
    (decision,) = some.receive(ballot(2), 2)
    assert isinstance(decision, QuorumCertificate)
    assert (decision.epoch, decision.subject, decision.choice) == (1, "s", YES)
    assert decision.valid(ROSTER)
    assert reasons(some.receive(ballot(3), 3)) == ["late"]
    assert some.wake(499) == []
    assert len(some) == 1
    assert some.wake(500) == []
    assert len(some) == 0
    assert some.wake_at is None


def test_the_clock_starts_when_one_voter_at_least_is_honest() -> None:
    some = polls()
    some.receive(ballot(0), 0)
    assert some.wake_at == 500  # one of one voter may be a liar that hurries
    some.receive(ballot(1), 50)
    assert some.wake_at == 150
    assert some.wake(149) == []
    (timeout,) = some.wake(150)
    assert isinstance(timeout, Undecided)
    assert (timeout.epoch, timeout.subject, timeout.reason) == (1, "s", "timeout")
    assert (timeout.standing.choices, timeout.standing.silent) == ({YES: 2}, 2)
    assert reasons(some.receive(ballot(2), 160)) == ["late"]
    assert reasons(some.receive(ballot(3), 161)) == ["late"]
    assert some.finish(162) == []


def test_a_poll_that_never_had_more_than_f_voters_times_out_with_its_ballots() -> None:
    some = polls()
    some.receive(ballot(0), 0)
    assert reasons(some.wake(500)) == ["timeout"]
    assert len(some) == 0


def test_time_passes_though_nobody_wakes() -> None:
    some = polls()
    some.receive(ballot(0), 0)
    some.receive(ballot(1), 0)
    out = some.receive(ballot(2), 100)
    assert reasons(out) == ["timeout", "late"]


def test_a_certificate_overrules_a_timeout() -> None:
    """The timeout is an opinion, the certificate a fact; it comes once."""
    some = polls()
    some.receive(ballot(0), 0)
    some.receive(ballot(1), 0)
    assert reasons(some.wake(100)) == ["timeout"]
    made = QuorumCertificate.of(ballot(i) for i in (0, 1, 2))
    assert some.receive(made, 200) == [made]
    assert reasons(some.receive(made, 201)) == ["duplicate"]


def test_a_certificate_opens_a_poll() -> None:
    some = polls()
    made = QuorumCertificate.of(ballot(i) for i in (0, 1, 2))
    assert some.receive(made, 0) == [made]
    assert reasons(some.receive(ballot(3), 1)) == ["late"]
    assert some.wake(500) == []
    assert len(some) == 0
    assert reasons(some.receive(made, 500)) == ["expired"]


def test_abstained_and_split() -> None:
    some = polls()
    some.receive(ballot(0, ABSTAIN), 0)
    assert reasons(some.receive(ballot(1, ABSTAIN), 0)) == ["abstained"]
    for i, choice in enumerate((YES, NO)):
        assert some.receive(ballot(i, choice, "t"), 0) == []
    assert reasons(some.receive(ballot(2, ABSTAIN, "t"), 0)) == ["split"]
    assert reasons(some.receive(ballot(3, YES, "t"), 0)) == ["late"]


def test_evidence_comes_once_also_after_the_decision() -> None:
    some = polls()
    for i in range(2):
        some.receive(ballot(i), 0)
    (evidence,) = some.receive(ballot(0, NO), 0)
    assert isinstance(evidence, Equivocation)
    assert evidence.valid(ROSTER)
    assert evidence.voter == "n0"
    assert reasons(some.receive(ballot(0, ABSTAIN), 0)) == ["equivocated"]
    some.receive(ballot(2), 0)
    assert isinstance(some.receive(ballot(3), 0)[0], QuorumCertificate)
    (late,) = some.receive(ballot(1, NO), 1)
    assert isinstance(late, Equivocation)
    assert late.voter == "n1"


def test_the_liar_s_second_ballot_can_end_all_hope() -> None:
    some = polls()
    for i, choice in enumerate((YES, YES, NO)):
        assert some.receive(ballot(i, choice), 0) == []
    out = some.receive(ballot(0, NO), 0)
    assert isinstance(out[0], Equivocation)
    assert reasons(out) == ["split"]


def test_more_liars_than_f_fork_and_are_accused() -> None:
    some = polls()
    one = QuorumCertificate.of(ballot(i, NO) for i in (0, 1, 2))
    two = QuorumCertificate.of(ballot(i, YES) for i in (1, 2, 3))
    assert some.receive(one, 0) == [one]
    out = some.receive(two, 0)
    assert [e.voter for e in out if isinstance(e, Equivocation)] == ["n1", "n2"]
    assert out[-1] == Fork(one, two)
    assert reasons(some.receive(two, 0)) == ["duplicate"]


def test_partial_tallies_add_up() -> None:
    here, there = Tally(ROSTER, "s"), Tally(ROSTER, "s")
    here.add(ballot(0))
    here.add(ballot(1))
    there.add(ballot(1))
    there.add(ballot(3))
    some = polls()
    assert some.receive(here, 0) == []
    out = some.receive(there, 0)
    assert reasons(out) == ["duplicate"]
    assert isinstance(out[-1], QuorumCertificate)
    decided = Tally(ROSTER, "t")
    for i in range(3):
        decided.add(ballot(i, NO, "t"))
    made = decided.conclude(0)
    assert made in some.receive(decided, 1)


@pytest.mark.parametrize(
    ("item", "reason", "detail"),
    [
        (ballot(1, roster=NEXT), "epoch", "epoch 2; accepted are 1"),
        (ballot(4), "member", "'n4' is no member of epoch 1"),
        (msgspec.structs.replace(ballot(0), choice=NO), "signature", "n0 did not sign"),
        (msgspec.structs.replace(ballot(0), choice=NO[:3]), "signature", "n0 did not sign"),
        (msgspec.structs.replace(ballot(0), subject=""), "signature", "a subject of 0"),
        (ballot(0, expires=7), "expired", "at 7, and it is 7"),
        (ballot(0, expires=1008), "expiry", "expires at 1008, more than 1000 after 7"),
        (QuorumCertificate.of([ballot(0), ballot(1)]), "signature", "proves nothing"),
        (
            QuorumCertificate.of(ballot(i, roster=NEXT) for i in (1, 2, 3, 4)),
            "epoch",
            "epoch 2; accepted are 1",
        ),
        (Succession(NEXT, {}), "roster", "is approved by 0 members"),
        (Succession(Roster("demo", 2, NEXT.members[:3]), {}), "roster", "3 members cannot bear 1"),
    ],
)
def test_rejections_are_counted_and_open_no_poll(item: object, reason: str, detail: str) -> None:
    some = polls()
    for total in (1, 2):
        (rejected,) = some.receive(item, 7)  # type: ignore[arg-type]
        assert isinstance(rejected, Rejected)
        assert rejected.item is item
        assert (rejected.reason, rejected.total) == (reason, total)
        assert detail in rejected.detail
    assert len(some) == 0
    assert some.wake_at is None


def test_duplicates_are_told_apart_from_renewals() -> None:
    some = polls()
    some.receive(ballot(0, expires=50), 0)
    assert reasons(some.receive(ballot(0, expires=50), 1)) == ["duplicate"]
    assert some.receive(ballot(0, expires=90), 2) == []
    assert reasons(some.receive(ballot(0, expires=50), 3)) == ["duplicate"]
    assert some.wake(50) == []
    assert len(some) == 1
    assert reasons(some.wake(90)) == ["timeout"]


def test_a_poll_takes_the_same_memory_however_often_its_ballots_are_renewed() -> None:
    some = polls()
    for expires in range(100, 150):
        some.receive(ballot(0, expires=expires), 0)
    assert len(some._due) == 1
    size = len(some.to_bytes())
    assert some.wake(100) == []
    assert some.wake_at == 149
    assert len(some.to_bytes()) == size
    assert reasons(some.wake(149)) == ["timeout"]
    assert (len(some), some.wake_at) == (0, None)


def test_a_member_cannot_crowd_out_the_others() -> None:
    some = polls(crowd=3)
    for i in range(3):
        assert some.receive(ballot(0, subject=f"s{i}"), 0) == []
    assert reasons(some.receive(ballot(0, subject="more"), 0)) == ["crowd"]
    assert some.receive(ballot(1, subject="more"), 0) == []
    assert some.receive(ballot(0, subject="more"), 0) == []  # it may join what others opened
    assert len(some) == 4
    some.wake(500)
    assert some.receive(ballot(0, subject="later", expires=900), 500) == []


def test_epochs_do_not_add_up() -> None:
    some = polls()
    some.receive(ballot(1), 0)
    some.receive(ballot(2), 0)
    assert some.receive(SUCCESSION, 1) == []
    assert some.receive(ballot(3, roster=NEXT), 2) == []
    assert some.receive(ballot(4, roster=NEXT), 2) == []
    assert some.receive(ballot(5, roster=NEXT), 2) == []
    assert some.receive(ballot(2, roster=NEXT), 2) != []  # the quorum of five is four
    (old,) = some.receive(ballot(3), 3)  # and the old epoch is still accepted
    assert isinstance(old, QuorumCertificate)
    assert old.valid(ROSTER)


def test_an_epoch_that_is_not_kept_is_over() -> None:
    some = Polls(TrustStore(ROSTER, keep=0), f=1, patience=100, longest=1000)
    for i in (1, 2):
        some.receive(ballot(i), 0)
    some.receive(SUCCESSION, 1)
    assert reasons(some.receive(ballot(3), 2)) == ["epoch"]
    assert reasons(some.wake(100)) == ["timeout"]


def test_a_succession_again_is_no_error_and_an_earlier_one_is() -> None:
    some = polls()
    assert some.receive(SUCCESSION, 0) == []
    assert some.receive(SUCCESSION, 0) == []
    assert reasons(some.receive(Succession(ROSTER, {}), 0)) == ["roster"]


def test_the_trust_of_the_caller_is_left_alone() -> None:
    trust = TrustStore(ROSTER)
    some = Polls(trust, f=1, patience=1, longest=1)
    some.receive(SUCCESSION, 0)
    assert trust.epochs == (1,)
    assert some.trust.epochs == (1, 2)


def test_settings_that_cannot_be() -> None:
    for name in ("patience", "longest", "crowd"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            polls(**{name: 0})
    with pytest.raises(ValueError, match="4 members cannot bear 2"):
        polls(f=2)
    with pytest.raises(TypeError, match="is no ballot"):
        polls().receive("ballot", 0)  # type: ignore[arg-type]
    with pytest.raises(IdentityError, match="needs a roster"):
        TrustStore()


def test_input_that_ends() -> None:
    some = polls()
    some.receive(ballot(0), 0)
    for i in range(3):
        some.receive(ballot(i, subject="t"), 0)
    (open_,) = some.finish(0)
    assert isinstance(open_, Undecided)
    assert (open_.subject, open_.reason) == ("s", "ended")
    assert some.receive(ballot(1), 1) == []
    assert reasons(some.finish(101)) == ["timeout"]
    assert some.finish(102) == []


# Two subjects, every voter with every choice and some expiries, certificates and tallies of them.
POOL = [
    ballot(i, choice, subject, expires)
    for i in range(4)
    for choice in (YES, NO, ABSTAIN)
    for subject in ("s", "t")
    for expires in (10, 30, 500)
]
steps = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(POOL)), max_size=40)


class Slow:
    """Counts by going through everything that was ever taken, each time."""

    def __init__(self, f: int, patience: int) -> None:
        self.f, self.patience = f, patience
        self.taken: dict[str, list[Ballot]] = {}
        self.started: dict[str, int] = {}
        self.closed: set[str] = set()
        self.out: list[tuple[object, ...]] = []

    def pass_time(self, now: int) -> None:
        for subject in list(self.taken):
            end = max(b.expires for b in self.taken[subject])
            late = self.started.get(subject, now + 1) + self.patience <= now
            if subject not in self.closed and (late or end <= now):
                self.closed.add(subject)
                self.out.append((subject, "timeout"))
            if end <= now:
                del self.taken[subject]
                self.started.pop(subject, None)
                self.closed.discard(subject)

    def receive(self, ballot: Ballot, now: int) -> None:
        self.pass_time(now)
        if ballot.expires <= now:
            return
        subject = ballot.subject
        taken = self.taken.setdefault(subject, [])
        lied = {
            b.voter for b in taken for c in taken if b.voter == c.voter and b.choice != c.choice
        }
        if ballot.voter in lied:
            taken.append(ballot)
            return
        taken.append(ballot)
        if any(b.voter == ballot.voter and b.choice != ballot.choice for b in taken):
            lied.add(ballot.voter)
            self.out.append((subject, "equivocation", ballot.voter))
        if subject in self.closed:
            return
        honest = {b.voter: b.choice for b in taken if b.voter not in lied}
        fresh = {b.voter for b in taken if b.voter not in lied and b.expires > now}
        for choice in (YES, NO):
            if sum(honest[v] == choice for v in fresh) >= 3:
                self.closed.add(subject)
                self.out.append((subject, "decision", choice))
                return
        silent = 4 - len({b.voter for b in taken})
        if max(sum(c == choice for c in honest.values()) for choice in (YES, NO)) + silent < 3:
            self.closed.add(subject)
            abstained = sum(c == ABSTAIN for c in honest.values()) > 1
            self.out.append((subject, "abstained" if abstained else "split"))
        elif silent < 4 - self.f and subject not in self.started:
            self.started[subject] = now


def shown(out: list[object]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for item in out:
        if isinstance(item, QuorumCertificate):
            rows.append((item.subject, "decision", item.choice))
        elif isinstance(item, Equivocation):
            rows.append((item.first.subject, "equivocation", item.voter))
        elif isinstance(item, Undecided):
            rows.append((item.subject, item.reason))
    return rows


@settings(max_examples=200)
@given(steps=steps, restart=st.sets(st.integers(0, 39), max_size=3))
def test_outcomes_are_those_of_a_slow_count(
    steps: list[tuple[int, Ballot]], restart: set[int]
) -> None:
    """With restarts in between, which change nothing."""
    some, slow, now = polls(patience=20), Slow(f=1, patience=20), 0
    for number, (pause, one) in enumerate(steps):
        now += pause
        if number in restart:
            saved = some.to_bytes()
            some = polls(patience=20)
            some.restore(saved)
            assert some.to_bytes() == saved
        known = len(slow.out)
        slow.receive(one, now)
        # Polls that end at the same time are told of in any order.
        assert sorted(map(str, shown(list(some.receive(one, now))))) == sorted(
            map(str, slow.out[known:])
        )


def test_a_restart_keeps_the_later_roster_and_the_counts() -> None:
    some = polls()
    some.receive(SUCCESSION, 0)
    some.receive(ballot(0, roster=ROSTER, expires=1), 1)
    again = polls()
    again.restore(some.to_bytes())
    assert again.trust.epochs == (1, 2)
    (rejected,) = again.receive(ballot(0, expires=1), 1)
    assert isinstance(rejected, Rejected)
    assert rejected.total == 2
    newer = Polls(TrustStore(ROSTER, NEXT), f=1, patience=100, longest=1000)
    newer.restore(polls().to_bytes())
    assert newer.trust.epochs == (1, 2)
    other = Polls(TrustStore(Roster("demo", 1, ROSTER.members[::-1])), f=1, patience=1, longest=1)
    with pytest.raises(ValueError, match="another roster of epoch 1"):
        other.restore(polls().to_bytes())


@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    some = polls()
    some.receive(ballot(0), 0)
    good = some.to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(ValueError):
        polls().restore(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    with pytest.raises(ValueError):
        polls().restore(good[:at])
