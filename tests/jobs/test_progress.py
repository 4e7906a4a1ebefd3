"""Progress: plain lines for a pipe, a bar for a terminal."""

import io
import os
import pty
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from jobs.progress import RunProgress
from state.schemas import TIME


def batch(rows: int) -> pa.RecordBatch:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    return pa.record_batch(
        {"time": pa.array([start + timedelta(days=n) for n in range(rows)], TIME)}
    )


def test_a_pipe_gets_a_line_per_tenth() -> None:
    stream = io.StringIO()
    progress = RunProgress("market", 100, stream)
    for _ in range(20):
        progress.advance(batch(5))
    progress.advance(batch(0))
    progress.close()
    said = stream.getvalue().splitlines()
    assert len(said) == 10
    assert said[-1] == "market: 100 of 100 rows, at 2020-01-05"


def test_a_stream_without_an_end_gets_a_line_now_and_then() -> None:
    stream = io.StringIO()
    progress = RunProgress("market", None, stream)
    for _ in range(3):
        progress.advance(batch(60_000))
    assert stream.getvalue().startswith("market: 120,000 rows, at ")
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        progress = RunProgress("market", 10, stream)
        progress.advance(batch(10))
        progress.close()
        print("end", file=stream, flush=True)
        shown = ""
        while "end" not in shown:
            shown += os.read(ours, 1 << 16).decode(errors="replace")
    os.close(ours)
    assert "10/10" in shown
    assert "at 2020-01-10" in shown
