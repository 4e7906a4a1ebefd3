"""`select` against a model of what may happen before: it never contradicts what was decided.

What the rules mean is also shown case by case, after the model.
"""

import random
from collections.abc import Sequence
from itertools import permutations

import pytest

from state.pbft.group import Group
from state.pbft.messages import (
    MAX_CLAIMS,
    MAX_GROUP,
    MAX_SLOTS,
    NULL_DIGEST,
    Checkpoint,
    Claim,
    Selected,
    ViewChange,
    decode,
    encode,
)
from state.pbft.selection import Selection, most_claims, select, well_formed
from tests.state.pbft.view_histories import Contradiction, History, Select

SEEDS = 1000
START = Checkpoint(0, bytes(32))
A, B = bytes([1] * 32), bytes([2] * 32)
GROUP = Group("demo", ["r0", "r1", "r2", "r3"])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("n", [4, 5, 7])
def test_no_view_begins_with_what_contradicts_a_decision(n: int, fast: bool) -> None:
    decided = selections = 0
    for seed in range(SEEDS if n < 7 else SEEDS // 3):
        history = History(random.Random(seed), n, fast=fast)
        try:
            history.play(views=6)
        except Contradiction as error:
            pytest.fail(f"History(random.Random({seed}), {n}, fast={fast}).play(6): {error}")
        decided += len(history.decided)
        selections += history.selections
    assert decided > SEEDS // 4
    assert selections > SEEDS


def without_speculation(
    changes: Sequence[ViewChange], group: Group, *, window: int, fast: bool
) -> Selection | None:
    """Select as if no speculative answers had been given."""
    return select(changes, group, window=window, fast=False)


def trusting(
    changes: Sequence[ViewChange], group: Group, *, window: int, fast: bool
) -> Selection | None:
    """Select as if nobody lied."""
    return select(changes, Group("demo", group.replicas, f=0), window=window, fast=fast)


@pytest.mark.parametrize("rule", [without_speculation, trusting])
def test_the_model_finds_what_is_wrong_with_weaker_rules(rule: Select) -> None:
    def play_all() -> None:
        for seed in range(SEEDS):
            History(random.Random(seed), 4, fast=True, select=rule).play(views=6)

    with pytest.raises(Contradiction):
        play_all()


def change(
    replica: int,
    prepared: Sequence[Claim] = (),
    accepted: Sequence[Claim] = (),
    marks: Sequence[Checkpoint] = (START,),
    view: int = 9,
) -> ViewChange:
    return ViewChange(
        view, f"r{replica}", marks[0].seq, list(marks), list(prepared), list(accepted)
    )


def selected(*changes: ViewChange, fast: bool = False, group: Group = GROUP) -> object:
    """Return what is selected; in whatever order the messages came."""
    found = {str(select(order, group, window=8, fast=fast)) for order in permutations(changes)}
    assert len(found) == 1
    return select(changes, group, window=8, fast=fast)


def test_fewer_than_a_quorum_select_nothing() -> None:
    assert selected(change(0), change(1)) is None
    assert selected(change(0), change(1), change(2)) == Selection(START, [])


def test_a_prepared_batch_needs_f_plus_1_who_accepted_it() -> None:
    claim = Claim(1, A, 3)
    lie = change(0, [claim], [claim])
    assert selected(lie, change(1), change(2)) is None  # B wants another that has nothing
    assert selected(lie, change(1), change(2), change(3)) == Selection(START, [])
    vouched = selected(lie, change(1, [], [claim]), change(2))
    assert vouched == Selection(START, [Selected(1, A)])


def test_who_accepted_it_must_have_done_so_in_that_view_or_later() -> None:
    new, old = Claim(1, A, 3), Claim(1, A, 2)
    assert selected(change(0, [new], [new]), change(1, [], [old]), change(2)) is None


def test_the_batch_that_was_prepared_in_the_highest_view_is_chosen() -> None:
    old, new = Claim(1, A, 1), Claim(1, B, 2)
    found = selected(change(0, [old], [old]), change(1, [new], [new]), change(2, [new], [old, new]))
    assert found == Selection(START, [Selected(1, B)])


def test_a_gap_is_filled_with_the_null_batch_and_the_end_stays_free() -> None:
    claim = Claim(3, A, 1)
    found = selected(change(0, [claim], [claim]), change(1, [claim], [claim]), change(2), change(3))
    assert found == Selection(
        START, [Selected(1, NULL_DIGEST), Selected(2, NULL_DIGEST), Selected(3, A)]
    )
    beyond = Claim(3, A, 1)
    lie = change(0, [beyond], [beyond])
    assert selected(lie, change(1), change(2), change(3)) == Selection(START, [])


def test_speculation_chooses_what_f_plus_1_accepted_but_what_was_prepared_there_before_it() -> None:
    a, b = Claim(1, A, 1), Claim(1, B, 1)
    accepted = [change(0, [], [a]), change(1, [], [a]), change(2, [], [b])]
    assert selected(*accepted) == Selection(START, [])
    assert selected(*accepted, fast=True) == Selection(START, [Selected(1, A)])
    prepared = [change(0, [], [a]), change(1, [], [a, b]), change(2, [b], [b])]
    assert selected(*prepared, fast=True) == Selection(START, [Selected(1, B)])


def test_the_checkpoint_is_the_last_that_f_plus_1_have_and_a_quorum_has_not_passed() -> None:
    four, wrong = Checkpoint(4, A), Checkpoint(4, B)
    found = selected(change(0, marks=[START, four]), change(1, marks=[four]), change(2))
    assert found == Selection(four, [])
    assert selected(change(0, marks=[START, wrong]), change(1, marks=[four]), change(2)) is None
    # r0 has forgotten what came before 4: without a second witness of 4, others are waited for.
    assert selected(change(0, marks=[four]), change(1), change(2)) is None
    assert selected(change(0, marks=[four]), change(1), change(2), change(3)) == Selection(
        START, []
    )


def test_claims_beyond_the_window_of_the_checkpoint_count_for_nothing() -> None:
    far = Claim(9, A, 1)
    lie = change(0, [far], [far], marks=[Checkpoint(4, B)])
    assert selected(lie, change(1), change(2), change(3), fast=True) == Selection(START, [])


@pytest.mark.parametrize(
    "wrong",
    [
        change(0, marks=[Checkpoint(4, A), Checkpoint(4, B)]),
        ViewChange(9, "r0", 4, [START], [], []),
        ViewChange(9, "r0", 0, [], [], []),
        change(0, [Claim(0 + 9, A, 1)]),
        change(0, [Claim(4, A, 1)], marks=[Checkpoint(4, A)]),
        change(0, [Claim(2, A, 1), Claim(1, A, 1)]),
        change(0, [Claim(1, A, 1), Claim(1, B, 1)]),
        change(0, [Claim(1, A, 9)]),
        change(0, [], [Claim(1, A, 9)]),
        change(0, [], [Claim(1, A, 1), Claim(1, A, 2)]),
        change(0, [], [Claim(1, B, 1), Claim(1, A, 2)]),
    ],
)
def test_a_view_change_that_no_correct_replica_sends_is_not_well_formed(wrong: ViewChange) -> None:
    assert not well_formed(wrong, 8, 4)


def test_a_view_change_of_a_correct_replica_is_well_formed() -> None:
    claims = [Claim(1, A, 8), Claim(1, B, 1), Claim(8, A, 3)]
    assert well_formed(change(0, claims[1:], claims, [START, Checkpoint(4, A)]), 8, 4)


def test_nobody_can_have_accepted_more_than_n_replicas_were_offered() -> None:
    most = most_claims(4, 8)
    claims = [Claim(1 + i % 8, i.to_bytes(32, "big"), 1) for i in range(most + 1)]
    claims.sort(key=lambda each: (each.seq, each.digest))
    assert not well_formed(change(0, [], claims), 8, 4)
    largest = change(0, [], claims[:-1])
    assert well_formed(largest, 8, 4)
    assert decode(encode([largest])) == [largest]
    sizes = range(1, MAX_GROUP + 1)
    assert max(most_claims(n, MAX_SLOTS) for n in sizes) == MAX_CLAIMS
