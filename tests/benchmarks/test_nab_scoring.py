"""The Numenta scoring rules against values worked out by hand from the paper's formulas."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.nab_scoring import (
    PROFILES,
    Labelled,
    Profile,
    normalised,
    probation,
    read_corpus,
    sigma,
)

STANDARD, LOW_FP, LOW_FN = PROFILES
# Windows of 11 rows each in a file whose first 15 rows are not scored.
FILE = Labelled("a.csv", 100, ((40, 50), (80, 90)))
QUIET = Labelled("b.csv", 100, ())
UNIT = 2.0 / (1.0 + math.exp(-5.0)) - 1.0


def alarms(*rows: int) -> np.ndarray:
    fired = np.zeros(100, np.bool_)
    fired[list(rows)] = True
    return fired


def test_the_sigmoid_is_that_of_the_paper() -> None:
    assert sigma(-1.0) == pytest.approx(0.98661, abs=1e-5)
    assert sigma(0.0) == 0.0
    assert sigma(1.0) == pytest.approx(-0.98661, abs=1e-5)
    assert sigma(3.0) == pytest.approx(-1.0, abs=1e-6)
    assert sigma(3.0001) == -1.0


@pytest.mark.parametrize(("rows", "wanted"), [(100, 15), (4032, 604), (5000, 750), (22695, 750)])
def test_probation_is_fifteen_per_cent_of_at_most_5000_rows(rows: int, wanted: int) -> None:
    assert probation(rows) == wanted


@pytest.mark.parametrize("profile", PROFILES)
def test_silence_scores_0_and_perfection_100(profile: Profile) -> None:
    for fired, wanted in ((alarms(), 0.0), (alarms(40, 80), 100.0)):
        raw = FILE.raw(fired, profile) + QUIET.raw(alarms(), profile)
        assert normalised(raw, [FILE, QUIET], profile) == pytest.approx(wanted, abs=1e-12)


def test_a_late_hit_earns_less() -> None:
    # Row 45 is 6 rows from the end of a window of 11, the end included.
    wanted = (2.0 / (1.0 + math.exp(-5.0 * 6 / 11)) - 1.0) / UNIT - 1.0
    assert FILE.raw(alarms(45), STANDARD) == pytest.approx(wanted)
    last = (2.0 / (1.0 + math.exp(-5.0 / 11)) - 1.0) / UNIT - 1.0
    assert FILE.raw(alarms(50), STANDARD) == pytest.approx(last)


def test_only_the_earliest_alarm_of_a_window_counts() -> None:
    assert FILE.raw(alarms(42, 43, 50), STANDARD) == FILE.raw(alarms(42), STANDARD)


def test_a_false_alarm_costs_more_the_further_it_is_behind_a_window() -> None:
    # One row after a window of 11 rows is a tenth of its length less one.
    near = 0.11 * (2.0 / (1.0 + math.exp(0.5)) - 1.0)
    assert FILE.raw(alarms(51), STANDARD) == pytest.approx(-2.0 + near)
    assert FILE.raw(alarms(75), STANDARD) == pytest.approx(-2.0 - 0.11 * (1 - 7.45e-6), abs=1e-6)
    assert FILE.raw(alarms(75), LOW_FP) == pytest.approx(-2.0 - 0.22 * (1 - 7.45e-6), abs=1e-6)


def test_before_any_window_and_without_one_it_costs_the_whole_weight() -> None:
    assert FILE.raw(alarms(20), STANDARD) == pytest.approx(-2.11)
    assert QUIET.raw(alarms(20, 30), LOW_FP) == pytest.approx(-0.44)


def test_a_miss_costs_twice_where_misses_do() -> None:
    assert FILE.raw(alarms(40), LOW_FN) == pytest.approx(1.0 - 2.0)


def test_the_probationary_part_is_free() -> None:
    assert FILE.raw(alarms(0, 14), STANDARD) == FILE.raw(alarms(), STANDARD)
    assert FILE.raw(alarms(15), STANDARD) < FILE.raw(alarms(), STANDARD)


def test_files_without_windows_have_no_scale() -> None:
    with pytest.raises(ValueError, match="without any window"):
        normalised(0.0, [QUIET], STANDARD)


def test_a_corpus_is_read_as_far_as_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "combined_windows.json").write_text(
        '{"x/a.csv": [["2014-01-01 00:05:00.000000", "2014-01-01 00:10:00.000000"]],'
        ' "x/gone.csv": []}'
    )
    with pytest.raises(FileNotFoundError, match="no labelled file"):
        read_corpus(tmp_path)
    (tmp_path / "data" / "x").mkdir(parents=True)
    rows = [f"2014-01-01 00:{5 * n:02d}:00,{n}.5" for n in range(4)]
    (tmp_path / "data" / "x" / "a.csv").write_text("\n".join(["timestamp,value", *rows]) + "\n")
    ((file, times, values),) = read_corpus(tmp_path)
    assert file == Labelled("x/a.csv", 4, ((1, 2),))
    assert values.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert str(times[3]) == "2014-01-01T00:15:00.000000"
