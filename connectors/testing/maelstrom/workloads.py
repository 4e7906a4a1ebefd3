"""The workloads: what clients ask, and what the answers must be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

from connectors.testing.maelstrom.history import Operation, Verdict

Body = dict[str, Any]

_SUBSETS = 1 << 16
"""Operations of unknown outcome are tried in all combinations up to so many sums."""


class Workload(Protocol):
    """One kind of service: its requests and its promise."""

    name: str

    def prepare(self, nodes: Sequence[str]) -> Body | None:
        """Return what every node is told before the clients begin."""

    def write(self, number: int, chance: random.Random) -> tuple[Any, Body]:
        """Return the `number`-th value to be written, and the request that writes it."""

    def value(self, reply: Body) -> Any:
        """Return what a ``read_ok`` holds.

        Raises:
            ValueError: the reply is not what the workload demands.
        """

    def check(self, history: Sequence[Operation], nodes: Sequence[str]) -> Verdict:
        """Compare the history with the promise."""


class _Elements:
    """Values that are written once and must be read for ever after."""

    name: str
    request: str
    field: str
    answer: str

    def write(self, number: int, chance: random.Random) -> tuple[Any, Body]:
        """Write the number itself."""
        return number, {"type": self.request, self.field: number}

    def value(self, reply: Body) -> list[int]:
        """Return the elements read."""
        elements = reply.get(self.answer)
        if not isinstance(elements, list) or not all(type(e) is int for e in elements):
            raise ValueError(f"read_ok without a list of integers {self.answer!r}: {reply}")
        if len(set(elements)) != len(elements):
            raise ValueError(f"read_ok holds an element twice: {reply}")
        return elements

    def check(self, history: Sequence[Operation], nodes: Sequence[str]) -> Verdict:
        """Demand that nothing is lost, invented, or read and lost again."""
        verdict = Verdict(True)
        writes = [op for op in history if op.kind == self.request]
        tried = {op.value for op in writes if not op.failed}
        kept = {op.value for op in writes if op.completed is not None and not op.failed}
        last: dict[str, set[int]] = {}
        seen: dict[str, set[int]] = {node: set() for node in nodes}
        for op in _reads(history):
            found = set(op.value)
            if gone := seen[op.node] - found:
                verdict.blame(f"{op.node} showed {_some(gone)} and later not")
            if odd := found - tried:
                verdict.blame(f"{op.node} read {_some(odd)}, which nobody wrote")
            seen[op.node] |= found
            if op.final:
                last[op.node] = found
        for node in nodes:
            if node not in last:
                verdict.blame(f"{node} did not answer the last read")
            elif lost := kept - last[node]:
                verdict.blame(f"{node} lacks {_some(lost)} of {len(kept)} acknowledged")
        if len({frozenset(found) for found in last.values()}) > 1:
            verdict.blame("the last reads differ from node to node")
        verdict.counts |= {"written": len(tried), "acknowledged": len(kept)}
        return verdict


class Broadcast(_Elements):
    """Values told to one node reach all of them; the topology is a grid."""

    name, request, field, answer = "broadcast", "broadcast", "message", "messages"

    def prepare(self, nodes: Sequence[str]) -> Body | None:
        """Tell the topology: a grid as square as it can be."""
        width = max(1, round(len(nodes) ** 0.5))
        topology: dict[str, list[str]] = {node: [] for node in nodes}
        for i, node in enumerate(nodes):
            right, below = i + 1, i + width
            for other in (right, below):
                if other < len(nodes) and (other == below or other % width):
                    topology[node].append(nodes[other])
                    topology[nodes[other]].append(node)
        return {"type": "topology", "topology": topology}


class GSet(_Elements):
    """A set that only grows."""

    name, request, field, answer = "g-set", "add", "element", "value"

    def prepare(self, nodes: Sequence[str]) -> Body | None:
        """Tell nothing."""
        return None


class PNCounter:
    """A number to which clients add."""

    name = "pn-counter"
    smallest = -5

    def prepare(self, nodes: Sequence[str]) -> Body | None:
        """Tell nothing."""
        return None

    def write(self, number: int, chance: random.Random) -> tuple[Any, Body]:
        """Add a small amount."""
        delta = chance.randint(self.smallest, 5)
        return delta, {"type": "add", "delta": delta}

    def value(self, reply: Body) -> int:
        """Return the number read."""
        number = reply.get("value")
        if type(number) is not int:
            raise ValueError(f"read_ok without an integer 'value': {reply}")
        return number

    def check(self, history: Sequence[Operation], nodes: Sequence[str]) -> Verdict:
        """Demand equal last reads of a sum that the answers allow."""
        verdict = Verdict(True)
        writes = [op for op in history if op.kind == "add" and not op.failed]
        sure = sum(op.value for op in writes if op.completed is not None)
        unsure = [op.value for op in writes if op.completed is None]
        last: dict[str, int] = {}
        highest: dict[str, int] = {}
        for op in _reads(history):
            if self.smallest >= 0 and op.value < highest.get(op.node, 0):
                verdict.blame(f"{op.node} fell from {highest[op.node]} to {op.value}")
            highest[op.node] = max(op.value, highest.get(op.node, op.value))
            if op.final:
                last[op.node] = op.value
        for node in nodes:
            if node not in last:
                verdict.blame(f"{node} did not answer the last read")
            elif not _possible(last[node] - sure, unsure):
                verdict.blame(
                    f"{node} ends at {last[node]}: acknowledged were {sure}, and {unsure} perhaps"
                )
        if len(set(last.values())) > 1:
            verdict.blame(f"the last reads differ from node to node: {last}")
        verdict.counts |= {"written": len(writes), "acknowledged": len(writes) - len(unsure)}
        return verdict


class GCounter(PNCounter):
    """A number that only grows."""

    name = "g-counter"
    smallest = 0


WORKLOADS: dict[str, Workload] = {w.name: w for w in (Broadcast(), GSet(), GCounter(), PNCounter())}


def _reads(history: Sequence[Operation]) -> list[Operation]:
    """Return the answered reads, by the time of asking."""
    done = [
        op for op in history if op.kind == "read" and op.completed is not None and not op.failed
    ]
    return sorted(done, key=lambda op: op.invoked)


def _possible(rest: int, unsure: list[int]) -> bool:
    """Return whether some of `unsure` add up to `rest`."""
    sums = {0}
    for delta in unsure:
        sums |= {total + delta for total in sums}
        if len(sums) > _SUBSETS:
            break
    lowest, highest = sum(d for d in unsure if d < 0), sum(d for d in unsure if d > 0)
    return rest in sums or (len(sums) > _SUBSETS and lowest <= rest <= highest)


def _some(elements: set[int]) -> str:
    shown = sorted(elements)[:5]
    return ", ".join(map(str, shown)) + (
        f" and {len(elements) - 5} more" if len(elements) > 5 else ""
    )
