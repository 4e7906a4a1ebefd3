"""SIGKILL a loop at random points: the resumed run ends as an unbroken one does."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

JOB = Path(__file__).with_name("loop_job.py")
# Epochs of one activation, and epochs in which an async loop goes round many times.
MODES = {"superstep": ("superstep", 0), "async": ("async", 0), "async 5 ms": ("async", 5)}


def prepare(directory: Path) -> Path:
    directory.mkdir()
    (directory / "recovery").mkdir()
    init_db_dir(directory / "recovery", 1)
    return directory


def run(directory: Path, mode: str, kill_at: int = -1) -> int | None:
    """Return how many things happened, or None if it was killed."""
    name, epoch = MODES[mode]
    environment = {
        **os.environ,
        "MODE": name,
        "EPOCH_MS": str(epoch),
        "KILL_AT": str(kill_at),
        "PYTHONPATH": str(Path.cwd()),
    }
    command = [sys.executable, str(JOB), str(directory)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return int(done.stdout)


def sums(directory: Path) -> list[str]:
    return sorted((directory / "sums.ndjson").read_text().splitlines())


@pytest.fixture(scope="module", params=MODES)
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int, list[str]]:
    directory = prepare(tmp_path_factory.mktemp("unbroken") / "run")
    happened = run(directory, request.param)
    assert happened is not None
    return request.param, happened, sums(directory)


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(n, marks=pytest.mark.soak) for n in range(4, 100))]
)
def test_a_killed_loop_goes_on(
    seed: int, tmp_path: Path, unbroken: tuple[str, int, list[str]]
) -> None:
    mode, happened, expected = unbroken
    chance = random.Random(seed)
    directory = prepare(tmp_path / "run")
    at = chance.randint(1, happened * 9 // 10)
    # Every other time, it is killed again on its way back.
    again = chance.randint(1, max(2, (happened - at) // 2)) if seed % 2 else -1
    ended = run(directory, mode, at) is not None
    assert not ended or mode == "async 5 ms", "only there the number of things varies"
    if not ended and run(directory, mode, again) is None:
        assert run(directory, mode) is not None
    assert sums(directory) == expected, f"killed at {at} and {again}"


def test_all_hops_are_made(unbroken: tuple[str, int, list[str]]) -> None:
    _, _, lines = unbroken
    visits = sum(json.loads(line)["count"] for line in lines)
    assert visits == sum((5 + i) + 11 + 2 * i + 3 for i in range(8))
