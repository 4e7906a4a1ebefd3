"""What is forked from must have done all that nodes do, and must not have threads of its own."""

import subprocess
import sys


def test_it_is_warm_and_has_no_threads_that_a_fork_would_lose() -> None:
    code = (
        "import sys, threading; from jobs.telemetry_warm import fold_and_merge\n"
        "assert fold_and_merge() == 10_000\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert 'polars' not in sys.modules  # starts a pool at its first use\n"
        "assert 'aioquic' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
