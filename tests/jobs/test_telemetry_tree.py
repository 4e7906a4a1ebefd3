"""A tree of processes: its plan, its supervisor, and that it answers as one flow does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.processes import Node
from jobs.telemetry_settings import TelemetrySettings
from jobs.telemetry_tree import Supervisor, main, plan


def load(node: Node, monkeypatch: pytest.MonkeyPatch) -> TelemetrySettings:
    with monkeypatch.context() as patch:
        for name, value in node.settings.items():
            patch.setenv(name, value)
        return TelemetrySettings.load()


def test_a_plan_is_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = TelemetrySettings(agents=900, seed=5, window="5m", top=3)
    nodes = plan(tmp_path, given, regions=3, leaves=12)
    settings = {node.name: load(node, monkeypatch) for node in nodes}
    root = settings.pop("root")
    assert nodes[0].name == "root"
    assert (root.role, root.hosts, root.knows_the_truth, root.top) == ("root", 12, True, 3)
    assert root.children == ["region-1", "region-2", "region-3"]
    below: list[str] = []
    for name in root.children:
        region = settings.pop(name)
        assert (region.role, region.parent, region.parent_name) == ("region", root.listen, "root")
        assert len(region.children) == 4
        below += region.children
        for child in region.children:
            leaf = settings.pop(child)
            assert (leaf.role, leaf.parent, leaf.parent_name) == ("leaf", region.listen, name)
            assert (leaf.seed, leaf.window, leaf.agents) == (5, given.window, 900)
            assert leaf.rate == pytest.approx(7.5)
            assert leaf.slice is not None
            assert leaf.slice.of == 12
            assert leaf.slice.share == below.index(child)
    assert not settings
    assert below == sorted(below)


def test_what_the_tree_sets_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ROLE=root", "NAME=r", "LISTEN=h:1", "CHILDREN=a", "KEYS=k"):
        monkeypatch.setenv(*f"TELEMETRY_{name}".split("="))
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "leave it unset" in capsys.readouterr().err


def test_no_region_goes_without_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--regions", "3", "--leaves", "2"])
    assert "a leaf for each" in capsys.readouterr().err


def test_a_node_that_cannot_run_ends_the_tree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Node("root", {"TELEMETRY_ROLE": "root"})
    assert Supervisor(tmp_path, [bad]).run() == 1
    assert f"root failed with exit code 2: see {tmp_path / 'root'}.log" in capsys.readouterr().err
    assert "TELEMETRY_ROLE=root needs TELEMETRY_NAME" in (tmp_path / "root.log").read_text()
    assert not list(tmp_path.glob("*.pid"))


def test_no_node_outlives_its_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.telemetry_tree", "--regions", "1", "--leaves", "1"]
    with subprocess.Popen([*command, "--out", str(tmp_path / "out")]) as supervisor:
        while len(pids := list((tmp_path / "out").glob("*.pid"))) < 3:
            assert supervisor.poll() is None
            time.sleep(0.02)
        numbers = [int(path.read_text() or 0) for path in pids]
        supervisor.kill()
    for number in filter(None, numbers):
        while Path(f"/proc/{number}").exists():
            time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_processes_answer_as_one_flow_even_when_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = TelemetrySettings(agents=4000, seed=2, every="50ms", window="15m")
    nodes = plan(tmp_path, given, regions=2, leaves=4, seconds=2)
    supervisor = Supervisor(tmp_path, nodes)
    victims = iter(["leaf-3", "region-1", "root"])
    wait = 0.0
    try:
        supervisor.start()
        while (code := supervisor.poll()) is None:
            spool = tmp_path / "leaf-1" / "spool"
            if spool.exists() and time.monotonic() > wait and (victim := next(victims, None)):
                os.kill(int((tmp_path / f"{victim}.pid").read_text()), signal.SIGKILL)
                wait = time.monotonic() + 0.4
            time.sleep(0.02)
    finally:
        supervisor.stop()
    assert code == 0, {p.name: p.read_text()[-500:] for p in tmp_path.glob("*.log")}
    assert supervisor.restarts == 3

    # The same events in the same batches, as fast as they can be made.
    from bytewax.testing import run_main

    from jobs.telemetry import flow

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    alone = {
        **{k: v for k, v in nodes[0].settings.items() if "SEED" in k or "AGENTS" in k},
        "TELEMETRY_WINDOW": "15m",
        "TELEMETRY_HOSTS": "4",
        "TELEMETRY_FAN_IN": "2",
        "TELEMETRY_RATE": "1e9",
        "TELEMETRY_OUT": str(tmp_path / "alone"),
    }
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    run_main(flow())
    for name in ("answers.ndjson", "sample.ndjson"):
        found = (tmp_path / "answer" / name).read_bytes()
        assert found == (tmp_path / "alone" / name).read_bytes()
