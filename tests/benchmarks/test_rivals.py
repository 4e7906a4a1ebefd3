"""The harness of all benchmarks: it alternates, compares, and ends with one JSON line."""

import json

import pytest

from benchmarks.rivals import Timing, alternate, report


def test_sides_alternate_and_results_are_compared() -> None:
    calls: list[str] = []

    def side(name: str, value: int) -> int:
        calls.append(name)
        return value

    timing = alternate(
        lambda: side("ours", 1), lambda: side("theirs", 2), lambda a, b: a + 1 == b, rounds=3
    )
    assert calls == ["ours", "theirs"] * 4
    assert timing.equal
    assert len(timing.ours) == len(timing.theirs) == 3


def test_one_unequal_round_is_not_forgotten() -> None:
    results = iter([1, 1, 2, 1])
    timing = alternate(lambda: next(results), lambda: 1, lambda a, b: a == b, rounds=3, warm=True)
    assert not timing.equal


def test_the_last_line_is_json_with_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    report("x", Timing((1.0, 2.0, 1.0), (10.0, 10.0, 30.0), True), target=5, more="said")
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["ratio_median"] == 10
    assert (line["ratio_min"], line["ratio_max"]) == (5, 30)
    fields = {"name", "ours", "theirs", "unit", "ratio_median", "ratio_min", "ratio_max", "equal"}
    assert fields <= set(line)
    assert line["more"] == "said"
