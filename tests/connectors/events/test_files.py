"""Event files: every format reads alike, and every bad row is a dead letter with its line."""

import gzip
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from connectors.events.files import EventFileSource
from connectors.testing import check_source
from state.schemas import EVENTS

ROWS = [
    {
        "time": datetime(2026, 1, 1, 0, 0, i, tzinfo=UTC),
        "agent": f"a{i % 3}",
        "user": f"u{i % 5}",
        "endpoint": "/x" if i % 2 else "/y, z",
        "latency_ms": i + 0.5,
    }
    for i in range(40)
]
TABLE = pa.Table.from_pylist(ROWS, schema=EVENTS)


def as_csv(path: Path) -> Path:
    pl.DataFrame(TABLE.to_pylist()).write_csv(path, datetime_format="%Y-%m-%dT%H:%M:%SZ")
    return path


def as_ndjson(path: Path) -> Path:
    lines = [json.dumps({**row, "time": row["time"].isoformat()}) for row in ROWS]
    path.write_text("\n".join(lines) + "\n")
    return path


def as_parquet(path: Path) -> Path:
    pl.DataFrame(TABLE.to_pylist()).write_parquet(path)
    return path


def zipped(path: Path) -> Path:
    made = path.with_name(path.name + ".gz")
    made.write_bytes(gzip.compress(path.read_bytes()))
    return made


def letters(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_formats_read_alike(tmp_path: Path) -> None:
    csv, ndjson = as_csv(tmp_path / "e.csv"), as_ndjson(tmp_path / "e.ndjson")
    for path in (csv, ndjson, as_parquet(tmp_path / "e.parquet"), zipped(csv), zipped(ndjson)):
        source = EventFileSource(path)
        assert source.table.equals(TABLE), path
        assert (source.total_rows, source.rejected) == (40, 0)


def test_the_contract_is_kept(tmp_path: Path) -> None:
    path = as_ndjson(tmp_path / "e.ndjson")
    check_source(lambda: EventFileSource(path, batch_rows=7), schema=EVENTS)


def test_several_files_come_in_their_order(tmp_path: Path) -> None:
    as_csv(tmp_path / "b.csv")
    as_csv(tmp_path / "a.csv")
    assert EventFileSource(f"{tmp_path}/*.csv").table.equals(pa.concat_tables([TABLE, TABLE]))


def test_other_names_are_known_and_a_file_may_be_one_agent(tmp_path: Path) -> None:
    path = tmp_path / "web-1.jsonl"
    path.write_text(
        '{"ts": 1767225600, "user_id": 17, "URL": "/", "duration_ms": "2.5", "more": [1]}\n'
    )
    (row,) = EventFileSource(path).table.to_pylist()
    assert row == {
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "agent": "web-1",
        "user": "17",
        "endpoint": "/",
        "latency_ms": 2.5,
    }


def test_bad_lines_of_ndjson_are_dead_letters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = '{"time": "2026-01-01", "user": "u", "endpoint": "/", "latency_ms": 1, "agent": "a"}'
    bad = {
        "{": "not a JSON object",
        "[1]": "not a JSON object",
        good.replace("2026-01-01", "soon"): "time 'soon' is not a time",
        good.replace('"2026-01-01"', "null"): "no time",
        good.replace('"u"', '""'): "no user",
        good.replace('"u"', "[1]"): "no user",
        good.replace('"/"', "true"): "no endpoint",
        good.replace('"a"', '" "'): "no agent",
        good.replace(": 1,", ": -1,"): "latency '-1' is not a finite number of 0 or more",
        good.replace(": 1,", ': "NaN",'): "latency 'NaN' is not a finite number",
        good.replace(": 1,", ": null,"): "no latency",
        "\x00": "not a JSON object",
    }
    path = tmp_path / "e.ndjson"
    path.write_text("\n".join([good, "", *bad, good]))
    out = tmp_path / "made" / "dead.ndjson"
    source = EventFileSource(path, dead_letters=out)
    assert (source.total_rows, source.rejected) == (2, len(bad))
    with caplog.at_level(logging.WARNING):
        source.build_part("s", "events", None)
    assert f"{len(bad)} rejected row(s)" in caplog.text
    found = letters(out)
    assert [letter["line"] for letter in found] == list(range(3, 3 + len(bad)))
    for letter, (text, reason) in zip(found, bad.items(), strict=True):
        assert reason in letter["reason"]
        assert letter["text"] == text
        assert letter["file"] == str(path)


def test_bad_rows_of_csv_and_parquet_are_dead_letters(tmp_path: Path) -> None:
    csv = as_csv(tmp_path / "e.csv")
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([*lines[:3], "1,2", "x,a,u,/,1", *lines[3:]]))
    out = tmp_path / "dead.ndjson"
    EventFileSource(csv, dead_letters=out).build_part("s", "events", None)
    assert [letter["line"] for letter in letters(out)] == [4, 5]
    parquet = tmp_path / "e.parquet"
    rows = TABLE.to_pylist()
    rows[7]["latency_ms"] = None
    pl.DataFrame(rows).write_parquet(parquet)
    EventFileSource(parquet, dead_letters=out).build_part("s", "events", None)
    ((row),) = letters(out)
    assert (row["row"], row["reason"]) == (8, "no latency")


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "empty.json").touch()
    (tmp_path / "no.csv").write_text("time,user,latency_ms\n")
    (tmp_path / "torn.ndjson.gz").write_bytes(gzip.compress(b"{}\n" * 50)[:-9])
    for name, message in (
        ("missing.csv", "no such file"),
        ("missing.ndjson", "no such file"),
        ("empty.csv", "the file is empty"),
        ("empty.json", "no line is a JSON object"),
        ("no.csv", "no column of endpoints"),
        ("torn.ndjson.gz", "gzip data is damaged"),
        ("*.parquet", "no file matches"),
        (".", "is a directory"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            EventFileSource(tmp_path / name)
        assert name in str(error.value) or name == "."
    with pytest.raises(ValueError, match="no event file"):
        EventFileSource([])


def test_a_header_alone_is_an_empty_stream(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("time,agent,user,endpoint,latency_ms\n")
    source = EventFileSource(path)
    assert source.total_rows == 0
    with pytest.raises(StopIteration):
        source.build_part("s", "events", None).next_batch()


def test_a_file_that_shrank_is_refused_on_resume(tmp_path: Path) -> None:
    source = EventFileSource(as_csv(tmp_path / "e.csv"))
    with pytest.raises(ValueError, match="40 rows, but was left at row 41"):
        source.build_part("s", "events", 41)
