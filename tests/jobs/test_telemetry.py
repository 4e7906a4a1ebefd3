"""The telemetry job as a person meets it: what it leaves, and what it says when input is bad."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bytewax.testing import run_main

from connectors.events import Workload
from jobs.keys import make_keys
from jobs.telemetry import flow, recovery_directory

FILES = {"answer.json", "answers.ndjson", "report.html", "run.json", "sample.ndjson"}
SMALL = {"agents": 20_000, "window": "30m", "hosts": 9, "fan_in": 3}

# A feed of our own that kills its process once, in the middle.
FEED = """
import os, signal
from pathlib import Path
import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from connectors.events import Workload

class Part(StatefulSourcePartition):
    def __init__(self, at):
        self.rows = pa.Table.from_batches(list(Workload(agents=20_000).batches()))
        self.rows = self.rows.combine_chunks().to_batches()[0]
        self.at = at or 0

    def next_batch(self):
        batch = self.rows.slice(self.at, 1000)
        if not batch.num_rows:
            raise StopIteration
        killed = Path(os.environ["KILLED"])
        if self.at == 11_000 and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.at += batch.num_rows
        return [batch]

    def snapshot(self):
        return self.at

class Feed(FixedPartitionedSource):
    def list_parts(self):
        return ["feed"]

    def build_part(self, step_id, for_part, resume_state):
        return Part(resume_state)
"""


def run(place: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *(arguments or ("bytewax.run", "jobs.telemetry"))],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(place),
            "KILLED": str(place / "killed"),
            **{f"TELEMETRY_{k.upper()}": str(v) for k, v in settings.items()},
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("default")
    done = run(place, **SMALL)
    assert done.returncode == 0, done.stderr
    (out,) = (place / "runs/telemetry").iterdir()
    said = done.stdout.splitlines()
    assert said[0] == "telemetry: a generated workload of 20,000 agents, no real data"
    assert said[-1] == f"telemetry: see {out.relative_to(place) / 'report.html'}"
    assert any(line.startswith("  distinct users") and "; exact " in line for line in said)
    assert any(line.startswith("  p99 latency") and "rank error 0." in line for line in said)
    assert sum("/service-" in line for line in said) == 10
    return out


def test_a_run_leaves_its_files(default: Path) -> None:
    assert {path.name for path in default.iterdir()} == FILES
    assert json.loads((default / "run.json").read_text())["settings"]["agents"] == 20_000


def test_answers_stand_beside_the_truth(default: Path) -> None:
    answer = json.loads((default / "answer.json").read_text())
    assert answer["complete"] is True
    assert answer["events"]["estimate"] == answer["events"]["exact"] == 20_000
    assert len(answer["windows"]) == 2
    assert sum(w["events"]["estimate"] for w in answer["windows"]) == 20_000
    for place in (answer, *answer["windows"]):
        assert next(iter(place["endpoints"])) == "/service-00/call-00"
        for told in place["endpoints"].values():
            assert told["lower"] <= told["exact"] <= told["upper"]
        users = place["distinct_users"]
        assert abs(users["estimate"] / users["exact"] - 1) < 0.03
        p99 = place["latency_quantiles"]["0.99"]
        assert p99["lower"] <= p99["estimate"] <= p99["upper"]


def test_the_sample_is_of_the_events(default: Path) -> None:
    made = {
        row["agent"]: row["latency_ms"]
        for batch in Workload(agents=20_000).batches()
        for row in batch.to_pylist()
    }
    sample = lines(default / "sample.ndjson")
    assert len(sample) == 256
    assert all(made[row["agent"]] == row["latency_ms"] for row in sample)


def test_two_workers_answer_alike(default: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "bytewax.run", "jobs.telemetry", "-w", "2", **SMALL, out="out")
    assert done.returncode == 0, done.stderr
    for name in ("answers.ndjson", "sample.ndjson"):
        assert (tmp_path / "out" / name).read_bytes() == (default / name).read_bytes()


def test_a_killed_run_answers_as_one_that_was_not(tmp_path: Path) -> None:
    (tmp_path / "feed.py").write_text(FEED)
    settings = {"source": "feed:Feed", "hosts": 4, "fan_in": 2, "epoch": "1ms"}
    command = ("jobs.telemetry",)
    first = run(tmp_path, *command, **settings, out="kept", recovery="snapshots")
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = run(tmp_path, *command, **settings, out="kept", recovery="snapshots")
    assert second.returncode == 0, second.stderr
    whole = run(tmp_path, *command, **settings, out="whole")
    assert whole.returncode == 0, whole.stderr
    for name in ("answers.ndjson", "sample.ndjson"):
        kept = (tmp_path / "kept" / name).read_bytes()
        assert kept == (tmp_path / "whole" / name).read_bytes()


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs the job in this process and returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run_inside(**settings: object) -> str:
        for name, value in settings.items():
            monkeypatch.setenv(f"TELEMETRY_{name.upper()}", str(value))
        run_main(flow())
        return capsys.readouterr().out

    return run_inside


def test_event_files_are_answered_and_bad_rows_counted(
    tmp_path: Path, inside: Callable[..., str]
) -> None:
    rows = [
        {"time": 1767225600 + i, "user": f"u{i % 7}", "endpoint": "/", "latency_ms": i}
        for i in range(500)
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "web.ndjson").write_text(f"{text}\nnot json\n")
    said = inside(path="web.ndjson", out="out")
    assert "telemetry: web.ndjson" in said
    assert "1 bad rows are in out/dead_letters.ndjson" in said
    answer = json.loads((tmp_path / "out/answer.json").read_text())
    assert round(answer["distinct_users"]["estimate"]) == 7
    assert answer["latency_quantiles"]["0.5"]["exact"] == 249
    assert lines(tmp_path / "out/dead_letters.ndjson")[0]["line"] == 501


def test_a_file_of_bad_rows_only_is_an_answer_too(
    tmp_path: Path, inside: Callable[..., str]
) -> None:
    (tmp_path / "web.csv").write_text("time,user,endpoint,latency_ms\nx,u,/,1\n")
    assert "telemetry: no events came through" in inside(path="web.csv", out="out")
    answer = json.loads((tmp_path / "out/answer.json").read_text())
    assert answer == {"complete": True, "windows": []}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_this_machine_is_answered(tmp_path: Path, inside: Callable[..., str]) -> None:
    said = inside(source="host", limit=3, every="100ms", out="out")
    assert "telemetry: the processes of this machine, as sampled" in said
    assert "; exact" not in said
    answer = json.loads((tmp_path / "out/answer.json").read_text())
    assert answer["events"]["estimate"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_an_endless_source_is_answered_at_an_interrupt(tmp_path: Path) -> None:
    settings = {"source": "host", "every": "20ms", "out": "out"}
    command = [sys.executable, "-m", "bytewax.run", "jobs.telemetry"]
    env = {**os.environ, **{f"TELEMETRY_{k.upper()}": v for k, v in settings.items()}}
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "out/answer.json").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "telemetry: see out/report.html" in said
    assert json.loads((tmp_path / "out/answer.json").read_text())["complete"] is True


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_leaf_says_that_its_parent_is_away_and_can_be_stopped(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", ["leaf"])
    settings = {
        "role": "leaf",
        "name": "leaf",
        "agents": "100",
        "parent": "127.0.0.1:9",
        "parent_name": "root",
        "keys": "keys",
        "spool": "spool",
    }
    env = {**os.environ, **{f"TELEMETRY_{k.upper()}": v for k, v in settings.items()}}
    command = [sys.executable, "-m", "jobs.telemetry"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "127.0.0.1:9" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "telemetry: stopped" in said


def test_a_finished_run_that_goes_on_answers_for_all(tmp_path: Path) -> None:
    rows = ["time,user,endpoint,latency_ms", *(f"{i},u{i},/,1" for i in range(50))]
    for count in (20, 20, 50):
        (tmp_path / "web.csv").write_text("\n".join(rows[: 1 + count]) + "\n")
        done = run(
            tmp_path, "jobs.telemetry", path="web.csv", hosts=2, out="out", recovery="snapshots"
        )
        assert done.returncode == 0, done.stderr
    told = [row for row in lines(tmp_path / "out/answers.ndjson") if row["question"] == "events"]
    assert [row["estimate"] for row in told] == [50]
    assert len(lines(tmp_path / "out/sample.ndjson")) == 50
    assert "50 distinct users" in (tmp_path / "out/report.html").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"agent": "3"}, "unknown setting TELEMETRY_AGENT; did you mean TELEMETRY_AGENTS?"),
        ({"path": "missing.csv"}, "missing.csv: no such file"),
        ({"source": "json:loads"}, "json:loads"),
        ({"source": "unheard"}, "unheard"),
        ({"source": "builtins:dict"}, "made a dict, not a source"),
        ({"out": "/proc/no"}, "/proc/no"),
        (
            {
                "role": "root",
                "name": "r",
                "listen": "h:1",
                "children": "a",
                "keys": "k",
                "out": "o",
            },
            "ca.crt is missing",
        ),
    ],
)
def test_a_wrong_setting_ends_with_2_and_one_line(
    given: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name, value in given.items():
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
    with pytest.raises(SystemExit) as end:
        flow()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_a_directory_of_snapshots_is_made_once(tmp_path: Path) -> None:
    made = recovery_directory(tmp_path / "a" / "snapshots")
    assert [path.suffix for path in made.iterdir()] == [".sqlite3"]
    (made / "mark").touch()
    assert recovery_directory(made) == made
    assert (made / "mark").exists()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["snapshots"]
