"""The report of a telemetry run: harmless, self-contained, and it says what it shows."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.events import Workload
from flows.telemetry_exact import Truth
from flows.telemetry_state import Telemetry
from jobs.telemetry_report import render
from jobs.telemetry_run import TABLES, RunRecord, finish
from jobs.telemetry_settings import TelemetrySettings
from state.schemas import EVENTS

HOSTILE = "</script><script>alert(1)</script>"
SETTINGS = TelemetrySettings(agents=5000, hosts=16, fan_in=4, window=timedelta(minutes=20))


def write_run(directory: Path, events: list[pa.RecordBatch], settings=SETTINGS) -> Path:
    """Write the result files of a run over these events; return its directory."""
    from connectors.files.ndjson import NdjsonTable

    state = Telemetry(window=settings.window)
    for batch in events:
        state.update(batch)
    answers = Truth(events, settings.window).beside(state.answers()) if events else None
    for name, rows in (("answers.ndjson", answers), ("sample.ndjson", state.sample())):
        table = NdjsonTable(directory / name, TABLES[name], None)
        if rows is not None:
            table.write(rows)
        table.finish()
    record = RunRecord(settings.model_dump(mode="json"), datetime(2026, 1, 1, tzinfo=UTC), 0)
    (directory / "run.json").write_bytes(json.dumps(_plain(record)).encode())
    return directory


def _plain(record: RunRecord) -> dict:
    return {"settings": record.settings, "finished": "2026-01-01T00:00:00Z", "rejected": 0}


def data(page: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(found)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    events = list(Workload(agents=5000, hosts=2).batches())
    return write_run(tmp_path_factory.mktemp("run"), events)


def test_what_was_found_is_said_and_embedded(directory: Path) -> None:
    page = render(directory).read_text()
    assert "a generated workload of 5,000 agents, no real data" in page
    assert "16 → 4 → 1" in page
    assert re.search(r"<h1>[\d,]+ distinct users, p99 latency [\d,.]+ ms, from 5,000 events", page)
    shown = data(page)
    assert len(shown["windows"]) == 3
    assert shown["endpoints"][0][0] == "/service-00/call-00"
    assert all(low <= x <= high for _, x, low, high, _ in shown["quantiles"])


def test_the_page_needs_no_network(directory: Path) -> None:
    page = render(directory).read_text()
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|url\((?!#)", page)


def test_names_cannot_become_code(tmp_path: Path) -> None:
    row = {
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "agent": HOSTILE,
        "user": HOSTILE,
        "endpoint": HOSTILE,
        "latency_ms": 1.0,
    }
    page = render(write_run(tmp_path, [pa.RecordBatch.from_pylist([row], EVENTS)])).read_text()
    assert "<script>alert" not in page
    assert data(page)["endpoints"][0][0] == HOSTILE


def test_an_empty_run_is_said(tmp_path: Path) -> None:
    page = render(write_run(tmp_path, [])).read_text()
    assert "No events came through" in page
    assert data(page)["windows"] == []


def test_other_events_have_other_words(tmp_path: Path) -> None:
    settings = TelemetrySettings(source="host")
    events = list(Workload(agents=100, hosts=1).batches())
    page = render(write_run(tmp_path, events, settings)).read_text()
    assert "distinct processes" in page
    assert "How long it waited for a CPU".lower() in page.lower()
    assert "no real data" not in page


def test_a_run_without_a_record_is_rendered(tmp_path: Path) -> None:
    write_run(tmp_path, list(Workload(agents=100, hosts=1).batches()))
    (tmp_path / "run.json").unlink()
    assert "distinct users" in render(tmp_path).read_text()


def test_damage_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, [])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json"):
        render(tmp_path)
    (tmp_path / "answers.ndjson").write_text("{}\n{\n")
    with pytest.raises(ValueError, match=r"answers\.ndjson, line 2"):
        render(tmp_path)
    (tmp_path / "sample.ndjson").unlink()
    (tmp_path / "answers.ndjson").write_text("")
    with pytest.raises(FileNotFoundError, match=r"sample\.ndjson"):
        render(tmp_path)


def test_finishing_says_what_was_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(directory, RunRecord.of(SETTINGS, 3))
    said = capsys.readouterr().out
    assert "telemetry: 3 bad rows are in" in said
    assert RunRecord.read(directory).rejected == 3
    assert json.loads((directory / "answer.json").read_text())["events"]["estimate"] == 5000


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium: `make browser` installs it")
def test_a_browser_draws_it(directory: Path, tmp_path: Path) -> None:
    page = render(directory)
    shown = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=3000", "--dump-dom"),
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    for chart in ("quantiles", "endpoints", "users", "p99"):
        drawn = re.search(rf'id="{chart}"[^>]*><svg.*?</svg>', shown, flags=re.DOTALL)
        assert drawn, chart
        assert "NaN" not in drawn[0]
        assert drawn[0].count("<circle") >= 3
