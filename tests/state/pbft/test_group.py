from itertools import combinations

import pytest

from state.pbft.group import Group
from state.pbft.messages import MAX_GROUP


def names(n: int) -> list[str]:
    return [f"r{i}" for i in range(n)]


@pytest.mark.parametrize("n", range(1, 12))
def test_quorums_meet_in_a_correct_replica_and_need_no_faulty_one(n: int) -> None:
    for f in range((n - 1) // 3 + 1):
        group = Group("demo", names(n), f)
        assert 2 * group.quorum - n >= f + 1
        assert group.quorum <= n - f
        # and no smaller ones would do
        assert 2 * (group.quorum - 1) - n < f + 1
    assert Group("demo", names(n)).f == (n - 1) // 3


def test_with_five_replicas_three_are_no_quorum() -> None:
    group = Group("demo", names(5), 1)
    assert group.quorum == 4
    assert any(len({*a} & {*b}) == 1 for a, b in combinations(combinations(names(5), 3), 2))


def test_the_replicas_lead_in_turn_or_as_they_are_told() -> None:
    group = Group("demo", names(4))
    assert [group.primary(view) for view in range(5)] == ["r0", "r1", "r2", "r3", "r0"]
    assert group.primary((1 << 62) - 1) == "r3"
    told = Group("demo", names(4), leaders=["r2", "r0"])
    assert [told.primary(view) for view in range(3)] == ["r2", "r0", "r2"]
    assert group.others("r1") == ("r0", "r2", "r3")


@pytest.mark.parametrize(
    ("n", "f", "leaders", "error"),
    [
        (3, 1, None, "3 members cannot bear 1 faulty ones: at least 4 can"),
        (0, None, None, "a group of 0"),
        (4, -1, None, "f is -1"),
        (4, 1, [], "leader"),
        (4, 1, ["r4"], "leader"),
        (MAX_GROUP + 1, 1, None, "257 replicas: a group has 256 at most"),
    ],
)
def test_what_cannot_be_a_group_is_refused(
    n: int, f: int | None, leaders: list[str] | None, error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        Group("demo", names(n), f, leaders=leaders)
    with pytest.raises(ValueError, match="same name"):
        Group("demo", ["a", "b", "c", "a"])
