"""A process of this project that takes orders as lines of JSON, and answers so."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import msgspec


class ProcessFailed(Exception):
    """A process failed or did not answer; the message is its own."""


class JsonProcess:
    """A Python process; it is killed in the end.

    Args:
        arguments: Python's.
        patience: Seconds that an answer may take.
    """

    def __init__(self, *arguments: str, patience: float) -> None:
        self._patience = patience
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process' number."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it; who waits for its answer gets none."""
        self._process.kill()

    def close(self) -> None:
        """End it, and let go of it."""
        self._process.kill()
        self._process.communicate()

    def give(self, order: object) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()

    def answer(self) -> bytes:
        """Wait for the next line.

        Raises:
            ProcessFailed: there is none.
        """
        assert self._process.stdout is not None
        # Killed, the process ends the line that is waited for.
        timer = threading.Timer(self._patience, self._process.kill)
        timer.start()
        line: bytes = self._process.stdout.readline()
        timer.cancel()
        if not line:
            raise ProcessFailed(f"no answer in {self._patience:g} s, or a crash")
        return line
