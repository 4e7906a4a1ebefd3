"""The board: a live table for a terminal, lines for anything else."""

import io

import pyarrow as pa

from connectors.events import Workload
from flows.telemetry_state import Telemetry
from jobs.telemetry_board import Board
from jobs.telemetry_run import words

EVENTS = Workload(agents=1000, hosts=1).host(0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def answers() -> list[dict]:
    state = Telemetry()
    state.update(EVENTS)
    rows: pa.RecordBatch = state.answers(top=2)
    return rows.to_pylist()


def test_a_terminal_gets_a_table_of_the_newest_answers() -> None:
    terminal = Terminal()
    board = Board("made up", words("generated"), 5000, terminal)
    board.advance(EVENTS)
    board.answer(answers())
    board.close()
    said = terminal.getvalue()
    assert "made up: 1,000 of 5,000 events" in said
    assert "distinct users" in said
    assert "/service-00/call-00" in said
    board.close()


def test_who_reads_no_events_shows_how_many_were_answered() -> None:
    terminal = Terminal()
    board = Board("made up", words("generated"), None, terminal)
    board.answer(answers())
    board.close()
    assert "made up: 1,000 events" in terminal.getvalue()


def test_a_pipe_gets_lines() -> None:
    pipe = io.StringIO()
    board = Board("made up", words("generated"), 1000, pipe)
    board.advance(EVENTS)
    board.answer(answers())
    board.close()
    assert pipe.getvalue() == "telemetry: 1,000 of 1,000 rows, at 2026-01-01 00:59\n"
