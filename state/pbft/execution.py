"""Executing batches in order, once each request, and undoing what was executed too early."""

from __future__ import annotations

from typing import Annotated

import msgspec

from state.pbft.events import Settings
from state.pbft.machine import MachineError, Operation, StateMachine
from state.pbft.messages import Batch, Count, Digest, Request, digest
from state.pbft.sessions import Result, Row, Sessions


class _State(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    history: Digest
    time_ms: Count
    sessions: Annotated[list[Row], msgspec.Meta(max_length=1 << 20)]
    machine: bytes


_START = digest("history", b"")
_decoder = msgspec.msgpack.Decoder(_State)


class Execution:
    """The replicated state: the machine, the clients' sessions, the time, and the history.

    `history` is a chain of digests: equal histories mean the same batches in the same order.
    """

    def __init__(self, machine: StateMachine, settings: Settings) -> None:
        self._machine = machine
        self.sessions = Sessions(settings.max_waiting)
        self.seq = 0
        """The last slot executed."""
        self.time_ms = 0
        self.history = _START

    def execute(self, seq: int, batch_digest: bytes, batch: Batch) -> list[list[bytes] | None]:
        """Execute the batch of the next slot; return the results of each request.

        They are None for a request that was executed before or is not to be.

        Raises:
            MachineError: the machine raised something, or gave no result for each operation.
        """
        assert seq == self.seq + 1
        self.seq = seq
        self.time_ms = max(self.time_ms, batch.time_ms)
        self.history = digest("history", self.history + batch_digest)
        due: list[Request] = []
        chosen: set[tuple[str, int]] = set()
        for request in batch.requests:
            key = (request.client, request.number)
            if key not in chosen and self.sessions.due(request):
                chosen.add(key)
                due.append(request)
        results = self._apply(
            [
                Operation(request.client, data, self.time_ms, seq)
                for request in due
                for data in request.operations
            ]
        )
        start, by_request = 0, dict[int, list[bytes]]()
        for request in due:
            part = results[start : start + len(request.operations)]
            start += len(request.operations)
            by_request[id(request)] = part
            self.sessions.put(request, Result(seq, self.history, part))
        return [by_request.get(id(request)) for request in batch.requests]

    def _apply(self, operations: list[Operation]) -> list[bytes]:
        where = f"{type(self._machine).__name__}.apply in slot {self.seq}"
        try:
            results = self._machine.apply(operations)
        except Exception as error:
            raise MachineError(f"{where} raised {error!r}: it must answer with a result") from error
        if len(results) != len(operations) or set(map(type, results)) - {bytes}:
            raise MachineError(
                f"{where} returned {len(results)} results for {len(operations)} operations: "
                "it must return bytes for each"
            )
        return results

    def snapshot(self) -> bytes:
        """Return the whole state as canonical bytes."""
        return msgspec.msgpack.encode(
            _State(self.history, self.time_ms, self.sessions.rows(), self._machine.snapshot())
        )

    def restore(self, seq: int, state: bytes) -> None:
        """Take over the state after `seq`.

        Raises:
            ValueError: the bytes are malformed.
        """
        try:
            read = _decoder.decode(state)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"the state after {seq} is malformed: {error}") from None
        self._machine.restore(read.machine)
        self.sessions.restore(read.sessions)
        self.seq, self.history, self.time_ms = seq, read.history, read.time_ms
