r"""A node for Maelstrom: gossip over lines of JSON on standard input and output.

    maelstrom test -w broadcast --bin ./node --node-count 5 --time-limit 20 --nemesis partition
    python -m connectors.testing.maelstrom -w broadcast --nemesis partition -- \
        python -m jobs.gossip --maelstrom

It serves the workloads broadcast, g-set, g-counter and pn-counter with one dataflow: requests of
clients are edits of a replica and its answers are changes; what nodes tell each other are the
messages of `state.gossip`, in base64. The topology that the workload broadcast proposes is
acknowledged and not used: peers choose their neighbours. Nothing tells a node whether it is a set
or a counter until something was written, so until then a read is answered with the error 11,
"temporarily unavailable", which says that it may be asked again.

Source: the protocol and workloads of Maelstrom, https://github.com/jepsen-io/maelstrom.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

from connectors.lines import Line, LinesSource
from operators.gossip import Begin, Edit, Heard, gossip_round
from state.crdt.document import Document
from state.gossip import Settings

GOSSIP = Settings(round=0.1, min_gap=0.01)
_NOT_SUPPORTED, _UNAVAILABLE, _MALFORMED = 10, 11, 12
_SET, _COUNTER = "set", "counter"

Message = dict[str, Any]


class Service:
    """One node's replica: a set of integers and a counter; an edit is a client's request.

    The answers are among the changes, as bodies of messages with their destination.

    Args:
        replica: Its id, new for each incarnation.
        state: The bytes of its document to begin with.
    """

    def __init__(self, replica: str, state: bytes | None = None) -> None:
        self._replica = replica
        self._document = Document(replica)
        self._answers: list[tuple[str, Message]] = []
        self._broadcasts = False
        if state is not None:
            self._document.apply(state)

    def edit(self, operation: Message, now_ms: int) -> bytes | None:
        """Carry out a request, answer it, and return what the other nodes need to know."""
        body, source = operation["body"], operation["src"]
        kind, update = body["type"], None
        answer: Message = {"type": f"{kind}_ok", "in_reply_to": body.get("msg_id")}
        try:
            if kind == "read":
                answer |= self._read()
            elif kind in ("add", "broadcast"):
                update = self._write(body)
            elif kind == "topology":
                self._broadcasts = True
            elif kind != "init":
                answer |= _error(_NOT_SUPPORTED, f"no {kind!r} here")
        except (KeyError, TypeError, ValueError) as error:
            answer |= _error(_MALFORMED, repr(error))
        self._answers.append((source, answer))
        return update

    def _read(self) -> Message:
        value = self._document.value
        if self._broadcasts or _SET in value:
            elements = sorted(value.get(_SET, ()))
            return {"messages": elements, "value": elements}
        if _COUNTER in value:
            return {"value": value[_COUNTER]}
        return _error(_UNAVAILABLE, "nothing was written: this may be a set or a counter")

    def _write(self, body: Message) -> bytes:
        delta: Document
        if "delta" in body:
            by, replica = _integer(body["delta"]), self._replica
            delta, _ = self._document.edit(
                _COUNTER,
                "pn-counter",
                lambda n: (n.increment if by >= 0 else n.decrement)(replica, abs(by)),
            )
        else:
            element = _integer(body["element"] if "element" in body else body["message"])
            delta, _ = self._document.edit(
                _SET, "or-set", lambda elements: elements.add(element, self._replica)
            )
        return delta.to_bytes()

    def deliver(self, update: bytes) -> None:
        """Take in what another node wrote.

        Raises:
            ValueError: it is malformed.
        """
        self._document.apply(update)

    def to_bytes(self) -> bytes:
        """Return the document."""
        return self._document.to_bytes()

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Merge another node's document; nothing is ever deleted, so there is no replacing.

        Raises:
            ValueError: it is malformed.
        """
        self._document.apply(state)

    def compact(self, cut: Mapping[str, int]) -> None:
        """Forget nothing: there are no deletions."""

    def changes(self) -> list[tuple[str, Message]]:
        """Return the answers since the last call."""
        answers, self._answers = self._answers, []
        return answers


def _error(code: int, text: str) -> Message:
    return {"type": "error", "code": code, "text": text}


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"an integer is wanted, not {value!r}")
    return value


class _Node:
    """Turns lines into messages and commands; knows who this node is once it was told."""

    def __init__(self) -> None:
        self.id = ""

    def read(self, line: Line) -> list[tuple[str, Heard | Begin | Edit]]:
        """Return what a line says.

        Raises:
            ValueError: it is no message.
        """
        try:
            message = json.loads(line.data)
            body, source = message["body"], message["src"]
            kind = body["type"]
            if kind == "gossip":
                return [(self.id, Heard(source, base64.b64decode(body["data"], validate=True)))]
            if kind != "init":
                return [(self.id, Edit(message))]
            self.id = body["node_id"]
            # Any node will do: those that are asked tell of the others.
            others = tuple(node for node in body["node_ids"] if node != self.id)
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise ValueError(f"line {line.number} is no message: {error!r}") from None
        now = int(time.time() * 1000)
        return [(self.id, Begin(self.id, now, others[:3])), (self.id, Edit(message))]


def flow() -> Dataflow:
    """Build the node's dataflow."""
    node = _Node()

    def say(item: tuple[str, tuple[str, Message]]) -> str:
        name, (to, body) = item
        return json.dumps({"src": name, "dest": to, "body": body})

    def only(*kinds: type) -> Any:
        return lambda item: isinstance(item[1], kinds)

    flow = Dataflow("maelstrom")
    lines = op.input("stdin", flow, LinesSource(None, longest=16 << 20))
    items = op.flat_map("read", lines, node.read)
    heard = op.branch("heard", items, only(Heard))
    out = gossip_round("gossip", heard.trues, heard.falses, Service, settings=GOSSIP)
    gossip = op.map_value(
        "wrap",
        out.say,
        lambda say: (say.to, {"type": "gossip", "data": base64.b64encode(say.data).decode()}),
    )
    said = op.map("line", op.merge("said", gossip, out.changes), say)
    op.output("stdout", said, StdOutSink())
    return flow


def main() -> None:
    """Run the node until standard input ends."""
    cluster_main(flow(), [], 0, epoch_interval=timedelta(seconds=10))
