"""A replicated machine that bears liars: replicas that agree, and clients that ask them.

    begin, received --> pbft_replica --> say        what is to be sent
                                    --> committed   batches that are final, as rows
                                    --> events      what happened, as rows
                                    --> standing    how far the replica is

    begin, asked, received --> pbft_client --> say, answers, events

All streams are keyed by the local replica's or client's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.operators import KeyedStream

from operators.pbft import Begin, Log, pbft_replica
from operators.pbft_client import Ask, ClientOut, pbft_client
from state.pbft import Client, Committed, Evidence, Standing
from state.pbft.byzantine import Actor
from state.pbft.messages import encode

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplicatedOut:
    """What `replicated` emits, keyed by the local replica's name."""

    say: KeyedStream[Any]
    committed: KeyedStream[Row]
    events: KeyedStream[Row]
    standing: KeyedStream[Standing]


def replicated(
    begin: KeyedStream[Begin],
    received: KeyedStream[Any],
    replica: Callable[[str, Sequence[bytes]], Actor],
    log: Callable[[str], Log],
    *,
    outgoing: Callable[[str, bytes], Any],
    operation: Callable[[bytes], Any],
    result: Callable[[bytes], Any],
) -> ReplicatedOut:
    """Replicate a machine among the local replicas and those that they hear.

    `begin`, `received` and what follows is as in `pbft_replica`; `operation` and `result` put an
    operation and its result in plain values, for rows.
    """
    inputs = op.merge("inputs", begin, received)
    out = pbft_replica("pbft", inputs, replica, log, outgoing=outgoing)

    def row(committed: Committed) -> Row:
        return committed_row(committed, operation, result)

    events = op.branch("events", out.events, lambda item: not isinstance(item[1], Standing))
    return ReplicatedOut(
        out.say,
        op.map_value("row", out.committed, row),
        op.map_value("event", events.trues, event_row),
        events.falses,
    )


def asked(
    begin: KeyedStream[Begin],
    asks: KeyedStream[Ask],
    received: KeyedStream[Any],
    client: Callable[[str, int, float], Client],
    *,
    outgoing: Callable[[str, bytes], Any],
) -> ClientOut:
    """Have the local clients ask replicas; arguments are as in `pbft_client`."""
    inputs = op.merge("inputs", begin, asks, received)
    return pbft_client("pbft_client", inputs, client, outgoing=outgoing)


def committed_row(
    committed: Committed, operation: Callable[[bytes], Any], result: Callable[[bytes], Any]
) -> Row:
    """Return a final batch as a row of plain values."""
    return {
        "seq": committed.seq,
        "view": committed.view,
        "digest": committed.digest.hex(),
        "time_ms": committed.time_ms,
        "requests": [
            {
                "client": request.client,
                "number": request.number,
                "operations": [operation(data) for data in request.operations],
                "results": request.results and [result(data) for data in request.results],
            }
            for request in committed.requests
        ],
    }


def event_row(event: msgspec.Struct) -> Row:
    """Return what happened as a row of plain values; of evidence, who is accused and of what."""
    if isinstance(event, Evidence):
        accused, first, second = msgspec.structs.astuple(event.accusation)
        row = {"accused": accused, "kind": type(first).__name__}
        row |= {name: getattr(first, name, None) for name in ("view", "seq")}
        row |= {"first": encode([first]).hex(), "second": encode([second]).hex()}
    else:
        row = {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in msgspec.structs.asdict(event).items()
        }
    return {"event": type(event).__name__, **row}
