"""A client of a Byzantine fault tolerant group as an operator: operations in, certain answers out.

`pbft_client` runs one :class:`~state.pbft.Client` for each key. Its streams are keyed by the local
client's name:

    inputs      Begin("c1"), then Ask([b"..."], token), and what replicas say (see operators.pbft)
        |
    pbft_client
        |
    say         what is to be sent to replicas
    answers     Answer: the results of a request, once enough replicas say the same
    events      Rejected: what replicas said that makes no sense; Refused: what cannot be asked

An answer is final: no view change and no f liars can take it back.

Restart: a client keeps nothing on disk, and snapshots hold nothing but its name. What was asked
and not answered when the process died may have been carried out or not, as with any service whose
answer was lost. A new life begins with greater numbers than the old one, by the wall clock, unless
`client` makes one that begins higher. It must where the clock may have been set back
(`jobs.replica_numbers` keeps a file for that), for a number that was used is not carried out again.
What the input then repeats is a new request and is carried out again. Who cannot bear that asks
first what is so, or makes operations that say what they expect (compare-and-set, a lock's token).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.pbft import Begin, Say
from state.pbft import Answer, Client, ClientEvent, Received, Send, Submit, Tick


class Ask(NamedTuple):
    """Have operations carried out, one after the other, at once or not at all."""

    operations: list[bytes]
    token: object = None
    """Comes back in the `Answer`."""


class Refused(NamedTuple):
    """A request that was not sent: it has no operations, or too many or too large ones."""

    token: object
    reason: str


@dataclass(frozen=True, slots=True)
class ClientOut:
    """What `pbft_client` emits, keyed by the local client's name."""

    say: KeyedStream[Any]
    """What `outgoing` makes, for each message."""
    answers: KeyedStream[Answer]
    events: KeyedStream[Any]
    """`Refused`, and `Rejected` of `state.pbft`."""


@operator
def pbft_client(
    step_id: str,
    inputs: KeyedStream[Any],
    client: Callable[[str, int, float], Client],
    *,
    outgoing: Callable[[str, bytes], Any] = Say,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> ClientOut:
    """Ask a replicated state machine that bears liars.

    What is asked in one activation is sent together. Messages that come before a client's `Begin`
    are dropped; an `Ask` before it is an error.

    Args:
        step_id: Unique name.
        inputs: `Ask`, and what replicas say (`operators.pbft.Message`); a `Begin` first, each time
            that the flow is started.
        client: Makes a client from its name, the first request number, and the time.
        outgoing: Makes the item for a message from the receiver's name and the bytes.
        clock: Seconds that never run backwards.
        wall: Seconds since 1970; in the first request number.

    Returns:
        What is to be sent, the answers, and what was refused.

    Raises:
        ValueError: while the flow runs, at an `Ask` before `Begin`, or a second `Begin`.
    """

    def resume(saved: None) -> _Node:
        return _Node(client, outgoing, clock, wall)

    every = op.stateful_batch("client", inputs, resume)
    return ClientOut(
        op.flat_map_value("say", every, lambda out: out.said),
        op.flat_map_value("answers", every, lambda out: out.answers),
        op.flat_map_value("events", every, lambda out: out.events),
    )


class _Out(NamedTuple):
    """What one activation leads to."""

    said: list[Any]
    answers: list[Answer]
    events: list[Any]


class _Node(StatefulBatchLogic[Any, _Out, None]):
    def __init__(
        self,
        client: Callable[[str, int, float], Client],
        say: Callable[[str, bytes], Any],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._make, self._say, self._clock, self._wall = client, say, clock, wall
        self._client: Client | None = None

    @override
    def on_batch(self, values: list[Any]) -> tuple[Iterable[_Out], bool]:
        out = _Out([], [], [])
        bundles = []
        for item in values:
            if type(item) is Begin:
                self._begin(item.name)
            elif type(item) is Ask:
                if self._client is None:
                    raise ValueError("a client is asked before it begins")
                try:
                    self._step(Submit(self._clock(), item.operations, item.token), out)
                except ValueError as error:
                    out.events.append(Refused(item.token, str(error)))
            else:
                bundles.append((item.peer, item.data))
        if bundles and self._client is not None:
            self._step(Received(self._clock(), self._wall(), bundles), out)
        return ([out] if any(out) else []), StatefulBatchLogic.RETAIN

    @override
    def on_notify(self) -> tuple[Iterable[_Out], bool]:
        out = _Out([], [], [])
        if self._client is not None:
            self._step(Tick(self._clock(), self._wall()), out)
        return ([out] if any(out) else []), StatefulBatchLogic.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        if self._client is None or math.isinf(self._client.wake_at):
            return None
        seconds = max(self._client.wake_at - self._clock(), 0)
        return datetime.now(UTC) + timedelta(seconds=seconds)

    @override
    def snapshot(self) -> None:
        return None

    def _begin(self, name: str) -> None:
        if self._client is not None:
            raise ValueError(f"client {name!r} begins twice")
        # Microseconds: no life sends a million requests in a second for long.
        self._client = self._make(name, int(self._wall() * 1e6), self._clock())

    def _step(self, event: ClientEvent, out: _Out) -> None:
        assert self._client is not None
        for effect in self._client.step(event):
            if isinstance(effect, Send):
                out.said.append(self._say(effect.to, effect.data))
            elif isinstance(effect, Answer):
                out.answers.append(effect)
            else:
                out.events.append(effect)
