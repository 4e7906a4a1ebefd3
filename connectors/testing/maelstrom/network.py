"""The network between nodes that are processes: lines of JSON, delayed, lost and cut."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

Body = dict[str, Any]

_LINE = 16 << 20
_PATIENCE = 30.0
"""Seconds that a node has to start."""


class NodeError(Exception):
    """A node died, or wrote what is no message."""


class Network:
    """Processes that exchange messages through this one.

    ``async with`` starts a process for each node and tells it who it is; leaving ends them.

    Args:
        command: The program of a node and its arguments.
        nodes: How many.
        latency: Mean delay of a message between nodes in seconds, exponentially distributed;
            messages therefore overtake each other. Clients are not delayed.
        loss: Probability that a message between nodes is lost.
        seed: Of delays and losses.
        logs: Where a file `<node>.log` of each node's standard error is left.
    """

    def __init__(
        self,
        command: Sequence[str],
        nodes: int,
        *,
        latency: float = 0.0,
        loss: float = 0.0,
        seed: int = 0,
        logs: Path,
    ) -> None:
        if nodes < 1 or latency < 0 or not 0 <= loss < 1:
            raise ValueError("at least 1 node, a latency that is not negative, a loss in [0, 1)")
        self.nodes = [f"n{i}" for i in range(nodes)]
        self.messages = 0
        """Messages from node to node so far, the lost ones included."""
        self._command = list(command)
        self._latency, self._loss = latency, loss
        self._chance = random.Random(seed)
        self._logs = logs
        self._groups: dict[str, int] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[tuple[str, int], asyncio.Future[Body]] = {}
        self._asked = 0
        self._broken: Exception | None = None

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for node in self.nodes:
                with (self._logs / f"{node}.log").open("wb") as log:
                    self._processes[node] = await asyncio.create_subprocess_exec(
                        *self._command,
                        stdin=asyncio.subprocess.PIPE,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=log,
                        limit=_LINE,
                    )
                self._start(self._listen(node))
            for node in self.nodes:
                init = {"type": "init", "node_id": node, "node_ids": self.nodes}
                await self.request("c0", node, init, _PATIENCE)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Let only messages within a group pass; a node that is in none is alone."""
        self._groups = {node: -1 - i for i, node in enumerate(self.nodes)}
        for i, group in enumerate(groups):
            self._groups |= dict.fromkeys(group, i)

    def heal(self) -> None:
        """Let all messages pass."""
        self._groups = {}

    async def request(self, client: str, node: str, body: Body, timeout: float) -> Body:
        """Ask a node and return the body of its answer.

        Raises:
            TimeoutError: none came in `timeout` seconds; what was asked may have happened.
            NodeError: some node died, or wrote what is no message.
        """
        if self._broken:
            raise self._broken
        self._asked += 1
        key = client, self._asked
        self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            self._write(
                {"src": client, "dest": node, "body": {**body, "msg_id": self._asked}}, node
            )
            return await asyncio.wait_for(self._waiting[key], timeout)
        finally:
            del self._waiting[key]

    def _write(self, message: Body, node: str) -> None:
        stdin = self._processes[node].stdin
        assert stdin is not None
        stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def _listen(self, node: str) -> None:
        stdout = self._processes[node].stdout
        assert stdout is not None
        while line := await stdout.readline():
            try:
                message = json.loads(line)
                source, to, body = message["src"], message["dest"], message["body"]
                kind = body["type"]
            except (ValueError, KeyError, TypeError):
                raise NodeError(f"{node} wrote what is no message: {line[:200]!r}") from None
            if source != node:
                raise NodeError(f"{node} wrote in the name of {source!r}")
            if to in self._processes:
                self.messages += 1
                self._start(self._carry(message, node, to))
            elif waiting := self._waiting.get((to, body.get("in_reply_to", 0))):
                if not waiting.done():
                    waiting.set_result(body)
            elif kind != "error" and not str(to).startswith("c"):
                raise NodeError(f"{node} wrote to {to!r}, whom nobody knows")
        status = await self._processes[node].wait()
        log = (self._logs / f"{node}.log").read_text(errors="replace").strip()
        raise NodeError(f"{node} ended with status {status}: {log[-2000:] or 'it said nothing'}")

    async def _carry(self, message: Body, source: str, to: str) -> None:
        lost = self._chance.random() < self._loss
        if self._latency:
            await asyncio.sleep(self._chance.expovariate(1 / self._latency))
        cut = self._groups.get(source) != self._groups.get(to)
        if not lost and not cut:
            self._write(message, to)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or not (error := task.exception()):
            return
        self._broken = self._broken or NodeError(str(error))
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._broken)

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()
            # Or the pipes' transports are collected after the loop has closed.
            process._transport.close()  # type: ignore[attr-defined]
