"""That the tests of PBFT catch deliberate bugs (:mod:`tests.simulation.mutants`)."""

from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS, copy, hunt

QUICK = ["committed-f", "no-sessions", "lowest-view", "client-f", "amnesia"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_each_bug_can_still_be_made(mutant: object, tmp_path: Path) -> None:
    copy(tmp_path, mutant)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", QUICK)
def test_some_bugs_are_caught(name: str) -> None:
    mutant = next(each for each in MUTANTS if each.name == name)
    assert hunt(mutant).caught


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_all_bugs_are_caught(mutant: object) -> None:
    assert hunt(mutant).caught  # type: ignore[arg-type]
