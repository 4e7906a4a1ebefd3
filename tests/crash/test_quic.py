"""SIGKILL either end of a link at random moments: nothing is lost, nothing comes twice."""

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

from connectors.quic.certificates import make_authority, make_node

ENDS = Path(__file__).with_name("quic_ends.py")


class Ends:
    """The processes of both ends, started again whenever they are killed."""

    def __init__(self, directory: Path, *, hold: bool, count: int) -> None:
        self.directory = directory
        make_authority(directory / "keys")
        for name in ("root", "leaf"):
            make_node(directory / "keys", name)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.environment = {
            **os.environ,
            "ADDRESS": address,
            "LISTEN": address,
            "HOLD": str(int(hold)),
            "COUNT": str(count),
            "PYTHONPATH": str(Path.cwd()),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for role in ("sender", "receiver"):
            (directory / f"recovery-{role}").mkdir()
            init_db_dir(directory / f"recovery-{role}", 1)
            self.start(role)

    def start(self, role: str) -> None:
        with (self.directory / f"{role}.log").open("ab") as log:
            self.running[role] = subprocess.Popen(
                [sys.executable, str(ENDS), role, str(self.directory)],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self, role: str) -> None:
        """Kill a process, and start it again unless it had ended."""
        process = self.running[role]
        process.kill()
        if process.wait() == -signal.SIGKILL:
            self.start(role)
        else:
            assert process.returncode == 0, self.log(role)

    def log(self, role: str) -> str:
        return (self.directory / f"{role}.log").read_text()[-4000:]

    def finish(self) -> None:
        for role, process in self.running.items():
            assert process.wait(120) == 0, self.log(role)

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def check(directory: Path, seed: int, *, hold: bool, kills: int, count: int = 400) -> None:
    chance = random.Random(seed)
    ends = Ends(directory, hold=hold, count=count)
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 2.2))
            ends.kill(chance.choice(["sender", "receiver"]))
        ends.finish()
    finally:
        ends.stop()
    sent = (directory / "sent.ndjson").read_bytes()
    assert (directory / "received.ndjson").read_bytes() == sent, f"seed {seed}"
    assert sent.count(b"\n") == count


@pytest.mark.parametrize("hold", [False, True], ids=["repeatable", "hold"])
@pytest.mark.parametrize("seed", range(2))
def test_killed_ends_lose_and_double_nothing(tmp_path: Path, seed: int, hold: bool) -> None:
    check(tmp_path, seed, hold=hold, kills=4)


@pytest.mark.soak
@pytest.mark.parametrize("hold", [False, True], ids=["repeatable", "hold"])
@pytest.mark.parametrize("seed", range(10, 60))
def test_killed_ends_lose_and_double_nothing_at_length(
    tmp_path: Path, seed: int, hold: bool
) -> None:
    check(tmp_path, seed, hold=hold, kills=8, count=1500)
