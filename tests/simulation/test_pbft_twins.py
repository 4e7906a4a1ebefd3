"""Twins: every way in which one who runs twice can lie while the network is cut at will."""

import itertools

import pytest

from tests.simulation.pbft_twins import (
    distinct,
    partitions,
    play,
    play_in_turn,
    rounds,
    sampled,
    symmetries,
)

FOUR = ["r0", "r1", "r2", "r3"]
ONE = ["r0"]
IN_TURN = [[name] for name in FOUR]
"""Who leads the first four views of a group of four."""
MODES = pytest.mark.parametrize("fast", [False, True], ids=["full", "fast"])


def test_scenarios_are_counted_as_by_brute_force() -> None:
    every = rounds(FOUR, ONE)
    assert len(partitions([*FOUR, "r0'"])) == 16
    assert len(every) == 64
    assert len(symmetries(FOUR, ONE)) == 12

    def renamed(place: int, names: dict[str, str]) -> tuple[str, frozenset[frozenset[str]]]:
        leader, side = every[place]
        nodes = {*FOUR, "r0'"}
        sides = (frozenset(names[each] for each in part) for part in (set(side), nodes - set(side)))
        return names[leader][:2], frozenset(sides)

    classes = {
        min(
            str([(leader, sorted(map(sorted, sides))) for leader, sides in images])
            for names in symmetries(FOUR, ONE)
            for images in [[renamed(place, names) for place in pair]]
        )
        for pair in itertools.product(range(64), repeat=2)
    }
    assert len(classes) == sum(1 for _ in distinct(FOUR, ONE, [FOUR] * 2)) == 510


@pytest.mark.parametrize("twin", FOUR)
def test_where_all_lead_in_turn_only_the_halves_of_a_twin_are_alike(twin: str) -> None:
    """All 16^4 choices of sides, less one of each two that the halves' names tell apart.

    In 8^4 of them both halves are on the same side in all views; these are their own counterparts.
    """
    assert sum(1 for _ in distinct(FOUR, [twin], IN_TURN)) == (16**4 + 8**4) // 2 == 34_816


@MODES
@pytest.mark.parametrize("block", range(6))
def test_all_pairs_of_views(fast: bool, block: int) -> None:
    """All 510 scenarios of two views with four replicas, one twin and two partitions."""
    for places in itertools.islice(distinct(FOUR, ONE, [FOUR] * 2), block, None, 6):
        play(4, ONE, places, fast=fast)


@MODES
@pytest.mark.parametrize("block", range(4))
def test_samples_of_four_views(fast: bool, block: int) -> None:
    for seed in range(block * 75, block * 75 + 75):
        play(4, ONE, sampled(seed, 4, ONE, 4), fast=fast)


@MODES
def test_samples_of_seven_with_two_twins(fast: bool) -> None:
    for seed in range(40):
        play(7, ["r0", "r1"], sampled(seed, 7, ["r0", "r1"], 4), fast=fast)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@MODES
@pytest.mark.parametrize("block", range(16))
def test_all_scenarios_of_three_views(fast: bool, block: int) -> None:
    """All 25,740 scenarios of three views."""
    for places in itertools.islice(distinct(FOUR, ONE, [FOUR] * 3), block, None, 16):
        play(4, ONE, places, fast=fast)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@MODES
@pytest.mark.parametrize("twin", FOUR)
@pytest.mark.parametrize("first", range(16))
def test_all_scenarios_of_four_views_led_in_turn(fast: bool, twin: str, first: int) -> None:
    """All 139,264 scenarios of four views that are led as the protocol has them led."""
    play_in_turn(4, twin, first, fast=fast)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@MODES
@pytest.mark.parametrize("block", range(16))
def test_all_scenarios_of_four_views_that_twins_lead(fast: bool, block: int) -> None:
    """All 6,936 scenarios of four views, each led by the twin."""
    for places in itertools.islice(distinct(FOUR, ONE, [ONE] * 4), block, None, 16):
        play(4, ONE, places, fast=fast)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@MODES
@pytest.mark.parametrize("block", range(32))
def test_many_scenarios_of_four_views_that_anyone_leads(fast: bool, block: int) -> None:
    """Every fiftieth of the 1.4 million scenarios of four views."""
    for places in itertools.islice(distinct(FOUR, ONE, [FOUR] * 4), 50 * block + 7, None, 50 * 32):
        play(4, ONE, places, fast=fast)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@MODES
@pytest.mark.parametrize("block", range(16))
def test_many_samples_of_seven_with_two_twins(fast: bool, block: int) -> None:
    for seed in range(1000 + block * 250, 1000 + block * 250 + 250):
        play(7, ["r0", "r1"], sampled(seed, 7, ["r0", "r1"], 4), fast=fast)
