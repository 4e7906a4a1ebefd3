"""Logs of committed batches: over restarts and torn ends, and what an audit of several finds."""

from pathlib import Path
from typing import Any

import pytest

from jobs.committed import CommittedFile, audit, read

Row = dict[str, Any]


def row(seq: int, digest: str = "d", *requests: tuple[str, int, Any]) -> Row:
    asked = [
        {"client": client, "number": number, "operations": ["x"], "results": results}
        for client, number, results in requests
    ]
    return {"seq": seq, "view": 0, "digest": digest, "time_ms": 0, "requests": asked}


def written(path: Path, *rows: Row) -> CommittedFile:
    file = CommittedFile(path)
    for each in rows:
        file.write(each)
    file.close()
    return file


def test_each_batch_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "committed.ndjson"
    written(path, row(1), row(2), row(3))
    assert written(path, row(2), row(3), row(4)).last == 4
    assert [each["seq"] for each in read(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_line_is_written_again(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "committed.ndjson"
    written(path, row(1), row(2))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [each["seq"] for each in read(path)] == [1]
    written(path, row(2), row(3))
    assert [each["seq"] for each in read(path)] == [1, 2, 3]


@pytest.mark.parametrize("size", [10, 65_000, 65_536, 200_000])
@pytest.mark.parametrize("torn", [b"", b'{"seq": 3, "view', b"x" * 150_000])
def test_lines_of_any_length(size: int, torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "committed.ndjson"
    written(path, row(1), row(2, "d" * size))
    path.write_bytes(path.read_bytes() + torn)
    assert written(path, row(2, "d" * size), row(3)).last == 3
    assert list(read(path)) == [row(1), row(2, "d" * size), row(3)]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "committed.ndjson"
    path.write_text('{"seq": "one"}\n')
    with pytest.raises(ValueError, match="is no committed batch"):
        CommittedFile(path)
    with pytest.raises(ValueError, match="is no committed batch"):
        list(read(path))


def test_logs_that_agree() -> None:
    a = [row(1, "d1", ("ann", 1, ["r"])), row(2, "d2"), row(3, "d3", ("ann", 1, None))]
    found = audit({"a": a, "b": a[:2], "c": a[2:]}, {("ann", 1): (1, ["r"])})
    assert found.faults == []
    assert found.batches == 3
    assert found.last == {"a": 3, "b": 2, "c": 3}
    assert found.left_out == {"a": 0, "b": 0, "c": 2}
    assert found.executed == {("ann", 1): (1, ["r"])}


def test_what_a_log_lacks_was_sent_as_a_state() -> None:
    a = [row(n, f"d{n}") for n in range(1, 8)]
    logs = {"a": a, "b": [a[0], *a[3:5], a[6]]}
    assert audit(logs, transfers={"b": {3, 6}}).faults == []
    assert audit(logs, transfers={"b": {2, 6}}).faults == ["b lacks the batches 2 to 3"]
    assert audit(logs, transfers={}).faults == [
        "b lacks the batches 2 to 3",
        "b lacks the batches 6 to 6",
    ]


@pytest.mark.parametrize(
    ("b", "fault"),
    [
        ([row(1, "other", ("ann", 1, ["r"]))], "batch 1: b has other, a d1"),
        ([row(1, "d1", ("ann", 1, ["s"]))], "batch 1: b and a have other results"),
        (
            [row(1, "d1", ("ann", 1, ["r"])), row(2, "d2", ("ann", 1, ["r"]))],
            "('ann', 1) was executed in batches 1 and 2",
        ),
        ([row(2, "d2"), row(1, "d1", ("ann", 1, ["r"]))], "b has batch 1 after 2"),
    ],
)
def test_logs_that_do_not(b: list[Row], fault: str) -> None:
    assert fault in audit({"a": [row(1, "d1", ("ann", 1, ["r"]))], "b": b}).faults


@pytest.mark.parametrize("answer", [(1, ["s"]), (2, ["r"])])
def test_what_was_answered_was_executed(answer: tuple[int, list[Any]]) -> None:
    logs = {"a": [row(1, "d1", ("ann", 1, ["r"]))]}
    assert audit(logs, {("ann", 1): (1, ["r"])}).faults == []
    assert audit(logs, {("ann", 1): answer}).faults
    assert audit(logs, {("ann", 2): (1, ["r"])}).faults
