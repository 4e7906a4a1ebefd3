"""What is shown of a running group."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from jobs.replica_board import Board, Latencies, event_text


def standing(**given: Any) -> dict[str, Any]:
    known = {"view": 1, "active": True, "primary": "r2", "stable": 128, "final": 1200}
    rest = {"executed": 1201, "waiting": 2, "evidence": 0, "transferring": False}
    return known | rest | given


def shown(board: Board, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(board.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n").split("\n")


@pytest.mark.parametrize("width", [80, 120])
def test_a_table_for_people(width: int) -> None:
    board = Board(["r1", "r2", "r3", "r4"], 2000, io.StringIO())
    board.mark("r1", "equivocate")
    board.stands("r1", standing(view=0, primary="r1", active=False, evidence=1))
    board.stands("r2", standing())
    board.stands("r3", standing(transferring=True, final=40))
    board.down("r3")
    board.answered(0.010)
    board.note("x" * 300)
    board.hint("kill any")
    head, titles, *rows, note, hint = shown(board, width)
    assert hint == "kill any".ljust(len(hint))
    assert head.startswith("view 1 (r2), batch 1,200: 1/2,000 answered")
    assert head.rstrip().endswith("p50 10.0 ms, p99 10.0 ms")
    assert titles.split() == [
        *("replica", "state", "view", "stable", "final", "executed", "waiting", "evidence")
    ]
    assert [row.split() for row in rows] == [
        ["r1", "equivocate", "changing", "0", "128", "1,200", "1,201", "2", "1"],
        ["*r2", "active", "1", "128", "1,200", "1,201", "2", "0"],
        ["r3", "down", "1", "128", "40", "1,201", "2", "0"],
        ["r4", "starting"],
    ]
    assert note.startswith("xxx")
    assert len(note) <= width
    board.stands("r3", standing(transferring=True))
    assert "transferring" in shown(board, width)[4]


def test_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    board = Board(["r1"], 10, stream)
    board.note("r1: view 0 begins, r1 leads")
    board.say()
    board.close()
    assert stream.getvalue() == "replica: r1: view 0 begins, r1 leads\n"


def test_one_replica_alone() -> None:
    board = Board(["r1"], None, io.StringIO())
    assert shown(board, 80)[0] == "starting"
    board.stands("r1", standing())
    assert shown(board, 80)[0] == "view 1 (r2), batch 1,200"


def test_latencies() -> None:
    latencies = Latencies()
    assert math.isnan(latencies.percentile(0.5))
    for number in range(10):
        latencies.add(number / 1000, now=float(number))
    assert latencies.percentile(0.99) == 0.009
    assert latencies.rate(9.0) == 1.5
    assert latencies.rate(100.0) == 0


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"event": "ViewAbandoned", "view": 3, "reason": "why"}, "wants view 3: why"),
        (
            {"event": "Evidence", "accused": "r1", "kind": "PrePrepare", "view": 0, "seq": 5},
            "evidence: r1 signed two of PrePrepare in view 0, batch 5",
        ),
        (
            {"event": "Evidence", "accused": "r1", "kind": "NewView", "view": 2, "seq": None},
            "evidence: r1 signed two of NewView in view 2",
        ),
        ({"event": "Transferred", "seq": 9}, "was sent the state after batch 9"),
        ({"event": "Diverged", "seq": 9}, "its state after batch 9 differs from a quorum's"),
        ({"event": "Stable", "seq": 9}, None),
    ],
)
def test_events_in_words(row: dict[str, Any], text: str | None) -> None:
    assert event_text(row) == text
