"""Loops over two processes: the sums are those of one, also when a process is killed."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

JOB = Path(__file__).parent.parent / "crash" / "loop_job.py"
MODES = {"superstep": ("superstep", 0), "async": ("async", 5)}


def free() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


def prepare(directory: Path, partitions: int) -> Path:
    directory.mkdir()
    (directory / "recovery").mkdir()
    init_db_dir(directory / "recovery", partitions)
    return directory


def run(
    directory: Path, mode: str, processes: int, kill: tuple[int, int] = (-1, -1)
) -> list[int] | None:
    """Return how many things happened in each process, or None if ``kill`` (index, at) killed."""
    name, epoch = MODES[mode]
    environment = {
        **os.environ,
        "MODE": name,
        "EPOCH_MS": str(epoch),
        "PYTHONPATH": str(Path.cwd()),
    }
    if processes > 1:
        environment["CLUSTER"] = ",".join(free() for _ in range(processes))
    victim, at = kill
    running = []
    for index in range(processes):
        mine = environment | {"KILL_AT": str(at if index == victim else -1)}
        log, out = directory / f"{index}.log", directory / f"{index}.out"
        with log.open("ab") as errors, out.open("wb") as told:
            command = [sys.executable, str(JOB), str(directory), str(index)]
            running.append(subprocess.Popen(command, env=mine, stdout=told, stderr=errors))
    try:
        deadline = time.monotonic() + 300
        while any(process.poll() is None for process in running):
            if any(process.poll() == -signal.SIGKILL for process in running):
                return None
            assert time.monotonic() < deadline, "it hangs"
            time.sleep(0.02)
        codes = [process.returncode for process in running]
        if -signal.SIGKILL in codes:
            return None
        logs = "".join((directory / f"{i}.log").read_text()[-2000:] for i in range(processes))
        assert codes == [0] * processes, logs
        return [counted(directory / f"{index}.out") for index in range(processes)]
    finally:
        # When one process is gone, a supervisor restarts the whole cluster.
        for process in running:
            process.kill()
            process.wait()


def counted(out: Path) -> int:
    """Return the last line: the engine writes there too."""
    return int(out.read_text().splitlines()[-1])


def sums(directory: Path) -> list[str]:
    return sorted((directory / "sums.ndjson").read_text().splitlines())


@pytest.fixture(scope="module", params=MODES)
def unbroken(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[int], list[str]]:
    mode: str = request.param
    alone = prepare(tmp_path_factory.mktemp("alone") / "run", 1)
    assert run(alone, mode, 1) is not None
    together = prepare(tmp_path_factory.mktemp("together") / "run", 2)
    happened = run(together, mode, 2)
    assert happened is not None
    assert sums(together) == sums(alone)
    return mode, happened, sums(alone)


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 100))]
)
def test_a_killed_process_is_made_good(
    seed: int, tmp_path: Path, unbroken: tuple[str, list[int], list[str]]
) -> None:
    mode, happened, expected = unbroken
    chance = random.Random(seed)
    directory = prepare(tmp_path / "run", 2)
    victim = chance.randrange(2)
    at = chance.randint(1, happened[victim] * 9 // 10)
    ended = run(directory, mode, 2, (victim, at)) is not None
    assert not ended or mode == "async", "only there the number of things varies"
    # Every other time, the other one dies on the way back.
    again = chance.randint(1, 100) if seed % 2 else -1
    if not ended and run(directory, mode, 2, (1 - victim, again)) is None:
        assert run(directory, mode, 2) is not None
    assert sums(directory) == expected, f"process {victim} killed at {at}"
