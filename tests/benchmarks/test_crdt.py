"""The benchmark of columnar CRDTs runs, and both sides end with the same keys."""

import json

import pyarrow as pa
import pytest

from benchmarks import crdt


def test_both_sides_merge_the_same_map() -> None:
    column = crdt.keys(pa.string(), 300)
    for timing in (crdt.against_pycrdt(column, 2), crdt.against_loro(column, 2)):
        assert timing.equal
        assert len(timing.ours) == 2


def test_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["crdt", "--rows", "2000", "--keys", "100", "--rounds", "2"])
    crdt.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["equal"]
    assert set(line["ratios"]) == {"pycrdt", "loro"}
    assert len(line["rows_per_second"]) == 4
