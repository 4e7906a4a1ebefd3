"""Processes of one job on this machine: started warm, started anew when they are killed."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

_FAILURES = 3
"""So often a process may fail by itself."""


@dataclass(frozen=True, slots=True)
class Node:
    """A process: its name, and its settings as environment variables."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    stdout: bool = False
    """Whether its standard output is passed on; otherwise it goes to its log."""
    stderr: bool = False
    """The same for its standard error."""


class Ended(NamedTuple):
    """A process that has ended."""

    name: str
    code: int
    """Its exit code; negative: the signal that has killed it."""
    again: bool
    """Whether it was started again."""


class Failed(Exception):
    """A process has failed by itself, with settings that cannot be used or again and again."""


class Processes:
    """Nodes that run as processes, forked from a server that is warm.

    A process that is killed is started again, as is one that fails by itself, at first. None
    outlives this process. In `directory` are, for each, ``NAME.pid`` while it runs and ``NAME.log``
    with what it says and is not passed on.

    Args:
        directory: Where their files go.
        nodes: What to run.
        run: What each calls, as ``module:function``, with its settings in the environment.
        prefix: Of the settings: variables that begin so are not inherited.
        warm: A module that the server imports before it forks; it starts no threads.
    """

    def __init__(
        self, directory: Path, nodes: Sequence[Node], *, run: str, prefix: str, warm: str
    ) -> None:
        self.restarts = 0
        """How many processes were started again."""
        self._directory = directory
        self._nodes = {node.name: node for node in nodes}
        self._run, self._prefix = run, prefix
        self._running: dict[str, BaseProcess] = {}
        self._failures: dict[str, int] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([warm])

    @property
    def running(self) -> list[str]:
        """The names of those that run, as far as is known."""
        return list(self._running)

    def pid_file(self, name: str) -> Path:
        """Return where a process' number is while it runs."""
        return self._directory / f"{name}.pid"

    def start(self) -> None:
        """Start all nodes."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in self._nodes:
            self._spawn(name)

    def poll(self) -> list[Ended]:
        """Return those that have ended since the last call; start anew what did not end well.

        Raises:
            Failed: one cannot run.
        """
        ended = []
        for name, process in list(self._running.items()):
            code = process.exitcode
            if code is None:
                continue
            self._forget(name)
            if code > 0:
                self._failures[name] = self._failures.get(name, 0) + 1
                if code == 2 or self._failures[name] >= _FAILURES:
                    log = self._directory / f"{name}.log"
                    raise Failed(f"{name} failed with exit code {code}: see {log}")
            if code != 0:
                self.restarts += 1
                self._spawn(name)
            ended.append(Ended(name, code, code != 0))
        return ended

    def stop(self, patience: float = 10.0) -> dict[str, int | None]:
        """Ask all that still run to end, and end them after `patience` seconds.

        Returns:
            Their exit codes.
        """
        running = dict(self._running)
        for process in running.values():
            process.terminate()
        for name, process in running.items():
            process.join(patience)
            if process.exitcode is None:
                process.kill()
                process.join()
            self._forget(name)
        return {name: process.exitcode for name, process in running.items()}

    def _spawn(self, name: str) -> None:
        process = self._context.Process(
            target=_run_node,
            args=(self._nodes[name], self._directory / f"{name}.log", self._run, self._prefix),
            name=name,
        )
        process.start()
        self._running[name] = process
        self.pid_file(name).write_text(f"{process.pid}\n")

    def _forget(self, name: str) -> None:
        del self._running[name]
        self.pid_file(name).unlink(missing_ok=True)


def in_words(code: int) -> str:
    """Return what an exit code says.

    >>> in_words(-9), in_words(3)
    ('was killed (SIGKILL)', 'failed with 3')
    """
    if code >= 0:
        return f"failed with {code}"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed (signal {-code})"


def free_ports(count: int) -> list[int]:
    """Return UDP ports of loopback that were free just now, all different."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _run_node(node: Node, log: Path, run: str, prefix: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for passed_on, stream in ((node.stdout, 1), (node.stderr, 2)):
        if not passed_on:
            os.dup2(file, stream)
    os.close(file)
    _put_in_environment(node.settings, prefix)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    module, _, function = run.partition(":")
    try:
        getattr(importlib.import_module(module), function)()
    except Exception:
        # As at the end of a program, where multiprocessing would print a traceback.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def _put_in_environment(settings: Mapping[str, str], prefix: str) -> None:
    for name in [name for name in os.environ if name.startswith(prefix)]:
        del os.environ[name]
    os.environ.update(settings)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
