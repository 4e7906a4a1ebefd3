"""What the README says is run: its connector, its commands, its links."""

import ast
import json
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from connectors.market import ReplaySource
from connectors.testing import check_source
from jobs.gossip_settings import GossipSettings
from jobs.market_settings import MarketSettings
from jobs.replica_settings import ReplicaSettings
from jobs.settings import JobSettings
from jobs.telemetry_settings import TelemetrySettings
from state.crdt.document_replica import DocumentReplica
from state.schemas import TICKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def myfeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the README's feed and a file of random walks for it."""
    (code,) = re.findall(r"```python\n(# myfeed\.py.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 30
    (tmp_path / "myfeed.py").write_text(code)
    rng = np.random.default_rng(5)
    prices = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((500, 3)), axis=0))
    rows = [
        f"{86_400 * day} {name} {price:.4f}\n"
        for day, row in enumerate(prices)
        for name, price in zip("abc", row, strict=True)
    ]
    (tmp_path / "prices.txt").write_text("".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_connector_runs_the_job(myfeed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "jobs.market"],
        env={**os.environ, "MARKET_SOURCE": "myfeed:MyFeed", "MARKET_OUT": str(myfeed / "out")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1,500 ticks" in done.stdout


def test_the_connector_keeps_the_contract(myfeed: Path) -> None:
    from myfeed import MyFeed

    check_source(MyFeed, schema=TICKS)


def test_the_operators_example_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# highs\.py\n.*?)```", README, flags=re.DOTALL)
    (tmp_path / "highs.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "highs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if "'series': 'S&P 500'" in line]
    assert len(rows) == 21
    assert any("'high': 1527.459961" in row for row in rows), "the peak of 24 March 2000"


@pytest.fixture
def run_example(tmp_path: Path) -> Callable[[str], list[str]]:
    """Return a function that runs a flow of the README by its command and returns its lines."""

    def run(name: str) -> list[str]:
        (code,) = re.findall(rf"```python\n(# {name}\.py\n.*?)```", README, flags=re.DOTALL)
        (command,) = re.findall(
            rf"^python ((?:-m bytewax\.run )?{name}\b.*)$", README, re.MULTILINE
        )
        (tmp_path / f"{name}.py").write_text(code)
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_the_sketches_example_runs(run_example: Callable[[str], list[str]]) -> None:
    lines = run_example("movers")
    assert len(lines) == 1 + 2 + 1 + 3
    assert sum("'upper_bound'" in line for line in lines) == 4
    assert sum("'inclusion'" in line for line in lines) == 3


def test_the_tree_example_runs(run_example: Callable[[str], list[str]]) -> None:
    (line,) = run_example("levels")
    (answer,) = ast.literal_eval(line)
    prices = np.concatenate([batch["price"].to_numpy() for batch in replay()])
    assert answer["count"] == len(prices)
    assert answer["lower_bound"] <= np.median(prices) <= answer["upper_bound"]


def replay() -> Iterator[pa.RecordBatch]:
    source = ReplaySource()
    for name in source.list_parts():
        part = source.build_part("prices", name, None)
        with suppress(StopIteration):
            while True:
                yield from part.next_batch()


def test_the_loop_example_runs(run_example: Callable[[str], list[str]]) -> None:
    labels = {1: 1, 2: 1, 3: 3, 5: 3, 7: 3}
    expected = [str({"vertex": vertex, "label": label}) for vertex, label in labels.items()]
    assert sorted(run_example("graph")) == expected


def test_the_telemetry_nodes_run(tmp_path: Path) -> None:
    (block,) = re.findall(r"```console\n(python -m jobs keys keys root .*?)```", README, re.DOTALL)
    (tmp_path / "events.csv").write_text(
        "time,user,endpoint,latency_ms\n"
        + "".join(f"2026-01-01T00:00:{i % 60:02d}Z,u{i % 7},/,{i}\n" for i in range(500))
    )
    done = subprocess.run(
        ["bash", "-ec", f"python() {{ '{sys.executable}' \"$@\"; }}\n{block}wait"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  events +500  \(exact\)$", done.stdout, re.MULTILINE)
    assert (tmp_path / "answer/report.html").exists()


def test_the_operations_of_the_gossip_job_are_carried_out() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
    replica = DocumentReplica("ann#1")
    for line in text.splitlines():
        replica.edit(json.loads(line), 1000)
    assert replica.document.value == {
        "notes": "Hello",
        "settings": {"colour": "red"},
        "tags": {"new"},
        "votes": 2,
    }


def test_the_vote_example_runs(run_example: Callable[[str], list[str]], tmp_path: Path) -> None:
    (make_keys,) = re.findall(r"^python -m (jobs keys votes .* --roster)$", README, re.M)
    subprocess.run([sys.executable, "-m", *make_keys.split()], cwd=tmp_path, timeout=60, check=True)
    assert run_example("colours") == ["('door', 'n4 voted twice')", "('door', ('blue', 3))"]


def test_the_replicas_answer(tmp_path: Path) -> None:
    (block,) = re.findall(r"```console\n(python -m jobs keys keys r1 .*?)```", README, re.DOTALL)
    done = subprocess.run(
        ["bash", "-ec", f"{block}wait"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert json.loads(line)["results"] == [{"result": "written", "done": True, "value": None}]
    for name in ("r1", "r2", "r3", "r4"):
        assert f"replica: {name} has ended" in done.stderr


def test_the_linked_dataflows_run(tmp_path: Path) -> None:
    for name in ("leaf", "root"):
        (code,) = re.findall(rf"```python\n(# {name}\.py\n.*?)```", README, flags=re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code)

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    (make_keys,) = re.findall(r"console\npython -m (jobs keys .* root)\n", README)
    start(*make_keys.split()).communicate(timeout=60)
    root, leaf = (start("bytewax.run", name, "-s", "1") for name in ("root", "leaf"))
    lines = root.communicate(timeout=60)[0].splitlines()
    leaf.communicate(timeout=60)
    assert leaf.returncode == root.returncode == 0
    assert sum(int(line.split()[0]) for line in lines) == 10_051
    assert all(line.endswith("rows from leaf") for line in lines)


def test_commands_name_what_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", README)) <= targets
    modules = set(re.findall(r"python -m ([a-z_.]+)", README)) - {"bytewax.run"}
    assert modules
    for module in modules | set(re.findall(r"bytewax\.run (jobs[a-z_.]+)", README)):
        assert find_spec(module.removesuffix("."))


@pytest.mark.parametrize(
    "settings", [GossipSettings, MarketSettings, ReplicaSettings, TelemetrySettings]
)
def test_settings_it_names_exist(settings: type[JobSettings]) -> None:
    named = set(re.findall(rf"\b{settings.prefix()}([A-Z_]+)", README))
    assert named
    assert {name.lower() for name in named} <= set(settings.model_fields)


def test_names_it_mentions_exist() -> None:
    names = re.findall(r"`((?:state|operators|connectors|flows|jobs)(?:\.\w+)+)", README)
    assert names
    for name in names:
        assert pkgutil.resolve_name(name)


def test_files_it_links_to_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
