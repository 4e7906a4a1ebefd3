"""One run: clients, faults, the last reads, the verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.testing.maelstrom.history import Operation, Verdict
from connectors.testing.maelstrom.network import Body, Network, NodeError
from connectors.testing.maelstrom.workloads import Workload

_DEFINITE = {1, 10, 11, 12, 14, 20, 21, 22, 30}
"""Error codes of the protocol that say that nothing happened."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how fast, and what goes wrong meanwhile."""

    nodes: int = 5
    rate: float = 20.0
    """Requests of clients in a second, over all nodes."""
    seconds: float = 5.0
    """How long clients ask."""
    partitions: bool = False
    """Whether the network is cut in two, at random, half of the time."""
    latency: float = 0.0
    """Mean delay between nodes in seconds."""
    loss: float = 0.0
    """Probability that a message between nodes is lost."""
    timeout: float = 2.0
    """Seconds that a client waits."""
    settle: float = 10.0
    """Seconds that the nodes have at most after the last fault, until their reads are right."""
    seed: int = 0


def run(workload: Workload, command: Sequence[str], plan: Plan, logs: Path) -> Verdict:
    """Run the nodes under the workload; return what the checker says.

    Args:
        workload: One of `WORKLOADS`.
        command: The program of a node and its arguments.
        plan: How long, how fast, and what goes wrong.
        logs: Where each node's standard error is left, as `<node>.log`.
    """
    return asyncio.run(_run(workload, command, plan, logs))


async def _run(workload: Workload, command: Sequence[str], plan: Plan, logs: Path) -> Verdict:
    network = Network(
        command, plan.nodes, latency=plan.latency, loss=plan.loss, seed=plan.seed, logs=logs
    )
    try:
        async with network:
            return await _Run(workload, network, plan).all()
    except NodeError as error:
        return Verdict(False, [str(error)])


class _Run:
    def __init__(self, workload: Workload, network: Network, plan: Plan) -> None:
        self._workload, self._network, self._plan = workload, network, plan
        self._chance = random.Random(plan.seed)
        self._history: list[Operation] = []
        self._clock = asyncio.get_running_loop().time
        self._start = self._clock()

    async def all(self) -> Verdict:
        network, plan = self._network, self._plan
        if told := self._workload.prepare(network.nodes):
            for node in network.nodes:
                await network.request("c0", node, told, plan.timeout)
        faults = asyncio.create_task(self._faults()) if plan.partitions else None
        before = network.messages
        await self._clients()
        asked = len(self._history)
        if faults:
            faults.cancel()
        network.heal()
        verdict = await self._last_reads()
        verdict.counts |= {
            "operations": asked,
            "unknown": sum(op.completed is None for op in self._history),
            "messages_per_operation": round((network.messages - before) / max(asked, 1), 2),
            "settled_after_seconds": round(verdict.counts["settled_after_seconds"], 2),
        }
        return verdict

    async def _clients(self) -> None:
        """Ask at random times, a read for each write."""
        asking: list[asyncio.Task[None]] = []
        until, number = self._start + self._plan.seconds, 0
        while self._clock() < until:
            node = self._chance.choice(self._network.nodes)
            if self._chance.random() < 0.5:
                value, body = self._workload.write(number, self._chance)
                number += 1
                asked = self._ask(node, body, value)
            else:
                asked = self._ask(node, {"type": "read"})
            asking.append(asyncio.create_task(asked))
            await asyncio.sleep(self._chance.expovariate(self._plan.rate))
        await asyncio.gather(*asking)

    async def _ask(
        self, node: str, body: Body, value: object = None, *, final: bool = False
    ) -> None:
        op = Operation(node, body["type"], value, self._clock() - self._start, final=final)
        self._history.append(op)
        try:
            reply = await self._network.request(
                f"c{len(self._history)}", node, body, self._plan.timeout
            )
        except TimeoutError:
            return
        if reply["type"] == "error":
            op.failed = reply.get("code") in _DEFINITE
            return
        if reply["type"] != f"{op.kind}_ok":
            raise NodeError(f"{node} answered {op.kind} with {reply}")
        if op.kind == "read":
            try:
                op.value = self._workload.value(reply)
            except ValueError as error:
                raise NodeError(f"{node}: {error}") from None
        op.completed = self._clock() - self._start

    async def _faults(self) -> None:
        nodes = list(self._network.nodes)
        while True:
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            self._chance.shuffle(nodes)
            cut = self._chance.randrange(1, max(2, len(nodes)))
            self._network.partition([nodes[:cut], nodes[cut:]])
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            self._network.heal()

    async def _last_reads(self) -> Verdict:
        """Read everywhere until the reads are right, or the time to settle is over."""
        history, began = self._history, self._clock()
        while True:
            self._history = list(history)
            await asyncio.gather(
                *(self._ask(node, {"type": "read"}, final=True) for node in self._network.nodes)
            )
            verdict = self._workload.check(self._history, self._network.nodes)
            verdict.counts["settled_after_seconds"] = self._clock() - began
            if verdict.valid or self._clock() - began > self._plan.settle:
                return verdict
            await asyncio.sleep(0.1)
