"""A flow that kills its own process, and is started again until it is done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir


def run_until_done(place: Path, flow: str, kill_at: list[int]) -> int:
    """Run a script; return how often it was killed.

    It finds its directory in PLACE, a recovery store in PLACE/recovery, and in KILL_AT the numbers
    of the items at which it is to kill itself, once at each: `tests.crash.killing` does that.
    """
    (place / "recovery").mkdir(parents=True)
    init_db_dir(place / "recovery", 1)
    script = place / "flow.py"
    script.write_text(flow)
    env = {
        **os.environ,
        "PYTHONPATH": str(Path.cwd()),
        "PLACE": str(place),
        "KILL_AT": ",".join(map(str, kill_at)),
    }
    kills = 0
    while True:
        done = subprocess.run(
            [sys.executable, str(script)], env=env, capture_output=True, timeout=100, check=False
        )
        if done.returncode == 0:
            return kills
        if done.returncode != -signal.SIGKILL:
            pytest.fail(done.stderr.decode()[-4000:])
        kills += 1
