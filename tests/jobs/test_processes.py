"""Processes that end well, that are killed, and that cannot run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.processes import Ended, Failed, Node, Processes, free_ports, in_words


def processes(directory: Path, run: str, *nodes: Node) -> Processes:
    return Processes(directory, nodes, run=run, prefix="REPLICA_", warm="jobs.replica_settings")


def test_one_that_ends_well_is_not_started_again(tmp_path: Path) -> None:
    made = processes(tmp_path, "time:tzset", Node("a"), Node("b"))
    made.start()
    ended: list[Ended] = []
    while made.running:
        ended += made.poll()
    assert sorted(ended) == [Ended("a", 0, False), Ended("b", 0, False)]
    assert made.restarts == 0
    assert not list(tmp_path.glob("*.pid"))


def test_one_that_is_killed_is(tmp_path: Path) -> None:
    made = processes(tmp_path, "signal:pause", Node("a"))
    made.start()
    try:
        os.kill(int(made.pid_file("a").read_text()), signal.SIGKILL)
        ended: list[Ended] = []
        while not ended:
            ended = made.poll()
        assert ended == [Ended("a", -9, True)]
        assert made.running == ["a"]
        assert made.restarts == 1
    finally:
        codes = made.stop()
    assert codes == {"a": -15}
    assert not made.running


def test_one_with_settings_that_cannot_be_used_ends_all(tmp_path: Path) -> None:
    made = processes(tmp_path, "jobs.replica:run", Node("a", {"REPLICA_ROLE": "replica"}))
    made.start()

    def poll() -> None:
        while True:
            made.poll()

    with pytest.raises(Failed, match=r"a failed with exit code 2: see .*a\.log"):
        poll()
    assert "REPLICA_ROLE=replica needs REPLICA_NAME" in (tmp_path / "a.log").read_text()


def test_codes_in_words() -> None:
    assert in_words(-signal.SIGTERM) == "was killed (SIGTERM)"
    assert in_words(-63) == "was killed (signal 63)"
    assert in_words(1) == "failed with 1"


def test_ports_are_different() -> None:
    assert len({*free_ports(20)}) == 20
