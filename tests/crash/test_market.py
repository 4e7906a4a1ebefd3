"""SIGKILL the market job at many points: the resumed run leaves the files of an unbroken one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.market_run import TABLES

# A feed of our own that kills its process, once at each of the row numbers in KILL_AT.
FEED = """
import os, signal
from datetime import date
from pathlib import Path
from connectors.market import ReplaySource, daily_prices

class KillingFeed(ReplaySource):
    def __init__(self):
        names = ["S&P 500", "NASDAQ", "WTI"]
        prices = daily_prices(names, start=date(2007, 6, 1), end=date(2009, 12, 31))
        super().__init__(prices, batch_rows=60)

    def build_part(self, step_id, for_part, resume_state):
        part = super().build_part(step_id, for_part, resume_state)
        points = [int(p) for p in os.environ.get("KILL_AT", "").split(",") if p]
        done = Path(os.environ["KILLED"])
        next_batch, rows = part.next_batch, 0

        def killing():
            nonlocal rows
            batches = list(next_batch())
            rows += sum(b.num_rows for b in batches)
            position = part.snapshot()[0]
            killed = done.read_text().split() if done.exists() else []
            for point in points:
                if position >= point and str(point) not in killed:
                    with done.open("a") as file:
                        file.write(f"{point} ")
                    os.kill(os.getpid(), signal.SIGKILL)
            return batches

        part.next_batch = killing
        return part
"""


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "bytewax.run", "jobs.market", *more]


def environment(directory: Path, out: str, kill_at: list[int]) -> dict[str, str]:
    (directory / "killing_feed.py").write_text(FEED)
    return {
        **os.environ,
        "PYTHONPATH": str(directory),
        "MARKET_SOURCE": "killing_feed:KillingFeed",
        "MARKET_OUT": str(directory / out),
        "KILL_AT": ",".join(map(str, kill_at)),
        "KILLED": str(directory / f"{out}.killed"),
    }


def run(env: dict[str, str], *more: str) -> int:
    done = subprocess.run(command(*more), env=env, capture_output=True, timeout=120, check=False)
    if done.returncode not in (0, -signal.SIGKILL):
        pytest.fail(done.stderr.decode()[-4000:])
    return done.returncode


def recovery(directory: Path, partitions: int = 1) -> list[str]:
    place = directory / "recovery"
    place.mkdir()
    subprocess.run(
        [sys.executable, "-m", "bytewax.recovery", str(place), str(partitions)], check=True
    )
    # An epoch for every activation: as many snapshots as there can be.
    return ["-r", str(place), "-s", "0", "-b", "0"]


def files(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("unbroken")
    assert run(environment(directory, "out", [])) == 0
    return files(directory / "out")


def test_killed_at_many_points_of_the_input(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    points = [1, 60, 120, 300, 545, 777, 1000, 1234, 1500, 1800, 1950]
    env = environment(tmp_path, "out", points)
    arguments = recovery(tmp_path)
    kills = 0
    while run(env, *arguments) != 0:
        kills += 1
    assert kills >= len(points) - 2, "the feed dies at nearly every point"
    assert files(tmp_path / "out") == unbroken


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 40))]
)
def test_killed_at_any_moment(seed: int, tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    random_ = random.Random(seed)
    env = environment(tmp_path, "out", [])
    arguments = recovery(tmp_path)
    for _ in range(4):
        process = subprocess.Popen(
            command(*arguments), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=random_.uniform(1.0, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert run(env, *arguments) == 0
    assert files(tmp_path / "out") == unbroken


def test_running_again_after_the_end_changes_nothing(
    tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    env = environment(tmp_path, "out", [])
    arguments = recovery(tmp_path)
    assert run(env, *arguments) == 0
    assert run(env, *arguments) == 0
    assert files(tmp_path / "out") == unbroken


def test_two_processes_killed_together(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    env = environment(tmp_path, "out", [600, 1500])
    arguments = recovery(tmp_path, partitions=2)
    addresses = "127.0.0.1:18671;127.0.0.1:18672"
    for _ in range(3):
        processes = [
            subprocess.Popen(
                command(*arguments, "-i", str(i), "-a", addresses),
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for i in (0, 1)
        ]
        deadline = time.monotonic() + 60
        while all(p.poll() is None for p in processes) and time.monotonic() < deadline:
            time.sleep(0.05)
        if any(p.poll() not in (0, None) for p in processes):
            # A supervisor restarts the whole cluster when one process is gone.
            for process in processes:
                process.kill()
        codes = [process.wait(timeout=30) for process in processes]
        if codes == [0, 0]:
            break
    assert codes == [0, 0]
    assert files(tmp_path / "out") == unbroken
