"""Rosters on disk: made in memory first, of whatever bytes are passed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.identities import identity_file, make_roster, read_identity, read_roster, roster_file
from state.identity import IdentityError, PrivateIdentity


def test_seeds_are_passed_in_and_nothing_is_written_before_it_is_asked_for(tmp_path: Path) -> None:
    seeds = iter([bytes([1] * 32), bytes([2] * 32)])
    made = make_roster(
        roster_file(tmp_path / "keys"), ["b", "a"], cluster="c", random=lambda _: next(seeds)
    )
    assert not (tmp_path / "keys").exists()
    assert made.roster.names == ("b", "a")
    written = made.write()
    assert written == [
        identity_file(tmp_path / "keys", "b"),
        identity_file(tmp_path / "keys", "a"),
        roster_file(tmp_path / "keys"),
    ]
    assert read_identity(written[0]) == PrivateIdentity.generate("b", bytes([1] * 32))
    assert read_roster(written[2]) == made.roster
    assert make_roster(roster_file(tmp_path / "keys"), ["b", "a"], cluster="c").write() == []


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"n\.identity\.json"):
        read_identity(identity_file(tmp_path, "n"))
    with pytest.raises(FileNotFoundError, match=r"roster\.json"):
        read_roster(roster_file(tmp_path))


@pytest.mark.parametrize("name", ["../n", "N", ""])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(IdentityError, match="cannot name a member"):
        make_roster(roster_file(tmp_path), [name])
