"""That the tests of PBFT catch deliberate bugs (:mod:`tests.simulation.mutants`)."""

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, edited, hunt

QUICK = ["committed-f", "no-sessions", "lowest-view", "client-f", "amnesia"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_each_bug_can_still_be_made(mutant: Mutant) -> None:
    assert edited(mutant)


@pytest.mark.parametrize("name", QUICK)
def test_some_bugs_are_caught(name: str) -> None:
    mutant = next(each for each in MUTANTS if each.name == name)
    assert hunt(mutant).caught


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_all_bugs_are_caught(mutant: Mutant) -> None:
    assert hunt(mutant).caught
