"""The market job leaves the same files with one worker, two workers and two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.market_run import TABLES

COMMAND = [sys.executable, "-m", "bytewax.run", "jobs.market"]


def start(out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "MARKET_OUT": str(out)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors.decode()[-4000:]


def files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("alone") / "out"
    finish(start(out))
    return files(out)


def test_two_workers(tmp_path: Path, alone: dict[str, bytes]) -> None:
    finish(start(tmp_path / "out", "-w", "2"))
    assert files(tmp_path / "out") == alone


def test_two_processes(tmp_path: Path, alone: dict[str, bytes]) -> None:
    addresses = "127.0.0.1:18681;127.0.0.1:18682"
    processes = [start(tmp_path / "out", "-i", str(index), "-a", addresses) for index in (0, 1)]
    for process in processes:
        finish(process)
    assert files(tmp_path / "out") == alone
