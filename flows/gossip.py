"""A document that peers replicate by gossip: edits in, one feed of changes out.

    messages --+
               +-- gossip_round -- say        what is to be sent
    commands --+                -- feed       every visible change, as a row
                                -- refused    what could not be carried out
                                -- members    who came, is suspected, went
                                -- states     what `Look` asked for

All streams are keyed by the local peer's name. `state.crdt.document_replica` has the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bytewax.operators as op
from bytewax.operators import KeyedStream

from operators.gossip import Heard, PeerCommand, Refused, Say, State, gossip_round
from state.crdt.document import DocumentChange
from state.crdt.document_replica import DocumentReplica
from state.gossip import (
    MemberDown,
    MemberLeft,
    MemberSuspected,
    MemberUp,
    Settings,
    Stopped,
)

MemberEvent = MemberUp | MemberSuspected | MemberDown | MemberLeft | Stopped


@dataclass(frozen=True, slots=True)
class DocumentOut:
    """What `replicated_document` emits, keyed by the local peer's name."""

    say: KeyedStream[Say]
    feed: KeyedStream[DocumentChange]
    refused: KeyedStream[Refused]
    members: KeyedStream[MemberEvent]
    states: KeyedStream[State]


def replicated_document(
    messages: KeyedStream[Heard],
    commands: KeyedStream[PeerCommand],
    *,
    settings: Settings | None = None,
    seed: int | None = None,
) -> DocumentOut:
    """Replicate a document among the local peers and those that they hear.

    Args:
        messages: What other peers said.
        commands: What the local peers are to do; an `Edit` holds an operation on the document.
        settings: Of gossip; the same for all peers of a group.
        seed: Of chance; None takes the system's.
    """
    out = gossip_round("gossip", messages, commands, DocumentReplica, settings=settings, seed=seed)

    def only(*kinds: type) -> Any:
        return lambda event: event if isinstance(event, kinds) else None

    return DocumentOut(
        out.say,
        out.changes,
        op.filter_map_value("refused", out.events, only(Refused)),
        op.filter_map_value(
            "members",
            out.events,
            only(MemberUp, MemberSuspected, MemberDown, MemberLeft, Stopped),
        ),
        op.filter_map_value("states", out.events, only(State)),
    )


def row(change: DocumentChange) -> dict[str, Any]:
    """Return a change as a row of the feed, of plain values.

    >>> row(DocumentChange("tags", ("new",), False, True))
    {'name': 'tags', 'path': ['new'], 'old': False, 'new': True}
    """
    return {
        "name": change.name,
        "path": [_plain(key) for key in change.path],
        "old": _plain(change.old),
        "new": _plain(change.new),
    }


def _plain(value: Any) -> Any:
    """Return a value of a document as JSON can hold it: a set as a sorted list, bytes as hex."""
    if isinstance(value, set | frozenset):
        return sorted(map(_plain, value), key=repr)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else repr(_plain(key)): _plain(each)
            for key, each in value.items()
        }
    return value.hex() if isinstance(value, bytes) else value


def plain_document(value: dict[str, Any]) -> dict[str, Any]:
    """Return a document's value as JSON can hold it.

    >>> plain_document({"tags": {"b", "a"}, "map": {1: b"x"}})
    {'tags': ['a', 'b'], 'map': {'1': '78'}}
    """
    return {name: _plain(each) for name, each in value.items()}


__all__ = ["DocumentOut", "MemberEvent", "plain_document", "replicated_document", "row"]
