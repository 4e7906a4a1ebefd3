from pathlib import Path

import pytest

from jobs.replica_numbers import claim

HOUR = 3600 * 10**6


def test_no_life_begins_with_numbers_of_an_earlier_one(tmp_path: Path) -> None:
    now = 1_795_711_756_417_487
    first = claim(tmp_path, "c1", now)
    assert first == now
    back = claim(tmp_path, "c1", now - HOUR)  # the clock was set back
    assert back == now + 10**9
    assert claim(tmp_path, "c1", now - HOUR) == now + 2 * 10**9
    assert claim(tmp_path, "c1", now + HOUR) == now + HOUR
    assert claim(tmp_path, "c2", 5) == 5  # each for itself


def test_a_file_that_is_damaged_is_not_passed_over(tmp_path: Path) -> None:
    claim(tmp_path, "c1", 7)
    for text in ("", "seven", "-3", "1" * 20, "\ufffd"):
        (tmp_path / "c1.numbers").write_text(text)
        with pytest.raises(ValueError, match=r"c1\.numbers is no number"):
            claim(tmp_path, "c1", 7)
