"""The market job as a person meets it: what it leaves, and what it says when input is bad."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.market_run import TABLES
from jobs.market_settings import MarketSettings
from jobs.settings import SettingsError
from state.schemas import EDGES, SCORED, TICKS

FILES = {*TABLES, "report.html", "run.json"}


def run(directory: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bytewax.run", "jobs.market", *arguments],
        cwd=directory,
        env={**os.environ, **{f"MARKET_{k.upper()}": str(v) for k, v in settings.items()}},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def walks(names: list[str], days: int = 400, seed: int = 1) -> dict[str, list[str]]:
    """Return a wide table of random walks, a simulation, as text columns."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2020-01-01") + np.arange(days)
    columns = {"time": [str(t) for t in times]}
    for name in names:
        prices = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(days)))
        columns[name] = [f"{p:.4f}" for p in prices]
    return columns


def write(path: Path, columns: dict[str, list[str]]) -> Path:
    rows = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(rows) + "\n")
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("default")
    done = run(place)
    assert done.returncode == 0, done.stderr
    (out,) = (place / "runs/market").iterdir()
    assert f"see {out.relative_to(place) / 'report.html'}" in done.stdout
    assert "market: 16,376 of 16,376 rows" in done.stderr or "rows, at 20" in done.stderr
    return out


def test_the_default_run_leaves_its_files(default: Path) -> None:
    assert {path.name for path in default.iterdir()} == FILES
    assert pq.read_schema(default / "ticks.parquet").equals(TICKS)
    assert pq.read_schema(default / "returns.parquet").equals(SCORED)
    assert pq.read_schema(default / "edges.parquet").equals(EDGES)
    assert (default / "late.ndjson").read_bytes() == b""


def test_the_default_run_finds_the_falls_that_people_remember(default: Path) -> None:
    months = {(a["series"], a["time"][:7]) for a in lines(default / "alerts.ndjson")}
    for month in ("2000-04", "2001-09", "2008-10", "2010-05", "2011-08", "2015-08", "2018-02"):
        assert {("S&P 500", month), ("NASDAQ", month)} & months, month
    assert ("WTI", "2008-10") in months
    assert not any(series == "VIX" for series, _ in months)


def test_hypotheses_are_readable(default: Path) -> None:
    hypotheses = lines(default / "hypotheses.ndjson")
    assert hypotheses
    for row in hypotheses:
        assert re.match(r".+ led .+ at lag \d, q = \S+, \d{4}-\d\d\.\.\d{4}-\d\d", row["text"])
        assert 0 < row["confidence"] < 1
        assert row["q"] <= 0.05
        assert row["start"] < row["end"]


def test_the_record_counts_what_is_there(default: Path) -> None:
    record = json.loads((default / "run.json").read_text())
    assert record["rows"]["alerts.ndjson"] == len(lines(default / "alerts.ndjson"))
    assert record["rows"]["edges.parquet"] == pq.read_metadata(default / "edges.parquet").num_rows
    assert record["settings"]["window"] == 360


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lag": 3}, "unknown setting MARKET_LAG; did you mean MARKET_LAGS?"),
        ({"lags": "x"}, "MARKET_LAGS=x"),
        ({"path": "missing.csv"}, "missing.csv: no such file"),
        ({"source": "nowhere:Feed"}, "nowhere"),
        ({"source": "json:Feed"}, "Feed"),
        ({"source": "json:loads"}, "json:loads"),
        ({"source": "unheard"}, "unheard"),
        ({"series": "DAX"}, "unknown daily series 'DAX'"),
        ({"url": "ws://127.0.0.1:1"}, "MARKET_URL is for live feeds, not MARKET_SOURCE=replay"),
        ({"source": "kraken", "series": "X", "speed": 2}, "MARKET_SPEED is for replay and files"),
        ({"out": "/proc/no"}, "/proc/no"),
    ],
)
def test_a_wrong_setting_ends_with_2_and_one_line(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, **settings)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ("time,price\n", "only a header"), ("a,b\n1,2\n", "time")],
)
def test_files_without_prices_end_with_2(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(content)
    done = run(tmp_path, path="prices.csv", out="out")
    assert done.returncode == 2, done.stderr
    assert "prices.csv" in done.stderr
    assert message in done.stderr


def test_a_file_of_bad_rows_alone_leaves_empty_results_and_all_reasons(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("time,price\nyesterday,1\n2020-01-01,free\n")
    done = run(tmp_path, path="prices.csv", out="out")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES | {"dead_letters.ndjson"}
    assert lines(tmp_path / "out/alerts.ndjson") == []
    assert "2 bad rows" in done.stdout


def test_one_series_gives_alerts_and_no_links(tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", walks(["only"]))
    done = run(tmp_path, path="prices.csv", out="out")
    assert done.returncode == 0, done.stderr
    assert pq.read_metadata(tmp_path / "out/edges.parquet").num_rows == 0
    assert "no links were tested" in done.stdout
    assert (tmp_path / "out/report.html").stat().st_size


def test_a_constant_series_is_said_to_be_one(tmp_path: Path) -> None:
    columns = walks(["a", "b"]) | {"flat": ["5.0"] * 400}
    write(tmp_path / "prices.csv", columns)
    done = run(tmp_path, path="prices.csv", out="out")
    assert done.returncode == 0, done.stderr
    edges = pq.read_table(tmp_path / "out/edges.parquet").to_pylist()
    of_flat = [e for e in edges if "flat" in (e["cause"], e["effect"])]
    assert of_flat
    assert all(e["p"] is None and e["note"] for e in of_flat)
    assert all(e["p"] is not None for e in edges if e not in of_flat)


def test_bad_rows_are_counted_and_kept_with_their_line(tmp_path: Path) -> None:
    columns = walks(["a", "b"])
    columns["a"][10] = "NaN"
    columns["b"][11] = "-3"
    columns["a"][12] = ""
    columns["time"][13] = "not a day"
    columns["time"][20] = columns["time"][19]
    write(tmp_path / "prices.csv", columns)
    done = run(tmp_path, path="prices.csv", out="out")
    assert done.returncode == 0, done.stderr
    bad = lines(tmp_path / "out/dead_letters.ndjson")
    assert {row["line"] for row in bad} == {12, 13, 15, 22}
    assert f"{len(bad)} bad rows" in done.stdout


def test_unsorted_input_gives_the_result_of_sorted_input(tmp_path: Path) -> None:
    columns = walks(["a", "b"])
    write(tmp_path / "sorted.csv", columns)
    order = np.random.default_rng(3).permutation(400)
    write(tmp_path / "shuffled.csv", {k: [v[i] for i in order] for k, v in columns.items()})
    for name in ("sorted", "shuffled"):
        assert run(tmp_path, path=f"{name}.csv", out=name).returncode == 0
    for table in ("ticks.parquet", "edges.parquet", "alerts.ndjson"):
        first, second = (tmp_path / name / table for name in ("sorted", "shuffled"))
        assert first.read_bytes() == second.read_bytes()


def test_parquet_in_long_form_is_read(tmp_path: Path) -> None:
    columns = walks(["a", "b"])
    table = pa.table(
        {
            "timestamp": columns["time"] * 2,
            "symbol": ["a"] * 400 + ["b"] * 400,
            "close": [float(p) for p in columns["a"] + columns["b"]],
        }
    )
    pq.write_table(table, tmp_path / "prices.parquet")
    write(tmp_path / "prices.csv", columns)
    for name in ("prices.csv", "prices.parquet"):
        done = run(tmp_path, path=name, out=f"of_{name}")
        assert done.returncode == 0, done.stderr
    csv, parquet = (
        (tmp_path / f"of_{name}" / "edges.parquet").read_bytes()
        for name in ("prices.csv", "prices.parquet")
    )
    assert csv == parquet


def test_recovery_needs_a_place_that_stays(tmp_path: Path) -> None:
    done = run(tmp_path, "-r", "recovery", "-s", "1", "-b", "0")
    assert done.returncode == 2
    assert "MARKET_OUT" in done.stderr


def test_an_error_of_the_running_flow_is_told_by_its_cause(tmp_path: Path) -> None:
    (tmp_path / "feed.py").write_text(
        "from bytewax.testing import TestingSource\n"
        "import pyarrow as pa\n"
        "def feed():\n"
        "    return TestingSource([pa.record_batch({'time': [1], 'price': [2.0]})])\n"
    )
    done = run(tmp_path, source="feed:feed", out="out")
    assert done.returncode == 1
    assert "KeyError" in done.stderr or "ValueError" in done.stderr
    assert "Traceback" not in done.stderr
    assert "stack backtrace" not in done.stderr


def test_moments_alone_find_the_same_links(tmp_path: Path) -> None:
    write(tmp_path / "prices.csv", walks(["a", "b"]))
    done = run(tmp_path, path="prices.csv", out="out", robust="false")
    assert done.returncode == 0, done.stderr
    assert pq.read_metadata(tmp_path / "out/edges.parquet").num_rows > 0


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"gossip_listen": "127.0.0.1:1"}, "MARKET_GOSSIP_LISTEN needs MARKET_GOSSIP_NAME"),
        ({"gossip_round": "1s"}, "MARKET_GOSSIP_ROUND is for a monitor that MARKET_GOSSIP_NAME"),
        ({"gossip_name": "a"}, "MARKET_GOSSIP_NAME needs MARKET_GOSSIP_LISTEN"),
        (
            {"gossip_name": "a", "gossip_listen": "127.0.0.1:1"},
            "MARKET_GOSSIP_NAME needs MARKET_GOSSIP_KEYS, or MARKET_GOSSIP_TRANSPORT=udp",
        ),
        (
            {
                "gossip_name": "a",
                "gossip_listen": "127.0.0.1:1",
                "gossip_transport": "udp",
                "gossip_monitors": "b,c",
            },
            "MARKET_GOSSIP_MONITORS does not name a itself",
        ),
        (
            {
                "gossip_name": "a",
                "gossip_listen": "127.0.0.1:1",
                "gossip_transport": "udp",
                "gossip_bootstrap": "b",
            },
            "MARKET_GOSSIP_BOOTSTRAP: 'b' is not name@host:port",
        ),
    ],
)
def test_settings_of_monitors_that_cannot_work(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(problem)):
        MarketSettings.load(**settings)
