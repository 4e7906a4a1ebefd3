"""Recompute: equal when nothing was touched, and every difference is named."""

import json
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bytewax.testing import TestingSource, run_main

from connectors.market import ReplaySource, daily_prices
from jobs.market import build
from jobs.market_run import RunRecord, finish
from jobs.market_settings import MarketSettings
from jobs.recompute import compare, main, newest_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run over two years, streamed in small batches."""
    out = tmp_path_factory.mktemp("runs") / "one"
    settings = MarketSettings.load(window=120)
    prices = daily_prices(["S&P 500", "WTI"], start=date(2008, 1, 1), end=date(2009, 12, 31))
    source = ReplaySource(prices, batch_rows=37)
    record = RunRecord.of(settings, 0)
    run_main(build(settings, source, out, finished=lambda directory: finish(directory, record)))
    return out


@pytest.fixture
def run_directory(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "one"))


def test_batch_equals_stream(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["market", "--once", "--of", str(run_directory)]) == 0
    said = capsys.readouterr().out
    assert "batch equals stream" in said
    assert said.count(" rows, equal") == 5
    # Once more over its own leftovers.
    assert main(["market", "--once", "--runs", str(run_directory.parent)]) == 0


def test_differences_are_named(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alerts = run_directory / "alerts.ndjson"
    rows = [json.loads(line) for line in alerts.read_text().splitlines()]
    rows[2]["score"] *= 1 + 1e-6
    alerts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    edges = run_directory / "edges.parquet"
    pq.write_table(pq.read_table(edges).slice(1), edges)
    assert main(["market", "--once", "--of", str(run_directory)]) == 1
    said = capsys.readouterr().out
    assert "row 2, score:" in said
    assert "rows instead of" in said
    assert "batch DIFFERS from stream" in said


def test_late_ticks_are_the_reason_that_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = daily_prices(["S&P 500", "WTI"], start=date(2008, 1, 1), end=date(2008, 12, 31))
    order = [*range(100), *range(110, 200), *range(100, 110), *range(200, ticks.num_rows)]
    batches = ticks.take(pa.array(order)).combine_chunks().to_batches(max_chunksize=50)
    out, settings = tmp_path / "late", MarketSettings.load(window=120)
    record = RunRecord.of(settings, 0)
    run_main(build(settings, TestingSource(batches), out, finished=lambda d: finish(d, record)))
    assert "10 ticks came too late" in capsys.readouterr().out
    assert main(["market", "--once", "--of", str(out)]) == 1
    assert "10 ticks came too late for the stream" in capsys.readouterr().out


def test_rounding_is_not_a_difference(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0 + 1e-12), ("c", 1.0 + 1e-7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.ndjson").write_text(json.dumps({"v": value, "n": None}) + "\n")
    a, b, c = (tmp_path / name / "x.ndjson" for name in "abc")
    assert compare(a, b).differences == ()
    assert len(compare(a, c).differences) == 1


def test_a_null_is_not_a_number(tmp_path: Path) -> None:
    for name, value in (("a", [1.0, None]), ("b", [1.0, 2.0])):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"v": v}) + "\n" for v in value]
        (tmp_path / name / "x.ndjson").write_text("".join(lines))
    assert compare(tmp_path / "a/x.ndjson", tmp_path / "b/x.ndjson").differences == (
        "row 1, v: 2.0 instead of None",
    )


def test_what_did_not_finish_is_refused(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_directory / "run.json").unlink()
    assert main(["market", "--once", "--of", str(run_directory)]) == 2
    assert "run.json" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="no finished run"):
        newest_run(run_directory.parent)


def test_an_error_of_the_flow_is_told_by_its_cause(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_directory / "recompute").mkdir()
    (run_directory / "recompute" / "alerts.ndjson").mkdir()
    assert main(["market", "--once", "--of", str(run_directory)]) == 2
    assert "alerts.ndjson" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--every", "61 * * * *"], ["--once", "--every", "x"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["market", *arguments])
    assert error.value.code == 2


def test_runs_on_a_schedule_until_it_is_stopped(run_directory: Path) -> None:
    every_second = ["--every", "* * * * * *", "--of", str(run_directory)]
    with subprocess.Popen(
        [sys.executable, "-m", "jobs.recompute", "market", *every_second],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        said: list[str] = []
        assert process.stdout is not None
        while said.count("batch equals stream\n") < 2:
            said.append(process.stdout.readline())
            assert said[-1], "it ended"
            assert "DIFFERS" not in said[-1], said
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert said[0].startswith("recompute: next at ")
