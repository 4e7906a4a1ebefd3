"""What other peers say: decoded, and given to the parts of the protocol that it concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from state.gossip.detector import Detector
from state.gossip.events import Rejected
from state.gossip.log import Log
from state.gossip.members import Members
from state.gossip.messages import (
    Ack,
    AnyMessage,
    Cut,
    Digest,
    Disconnect,
    Facts,
    ForwardJoin,
    Have,
    Join,
    MessageError,
    Nack,
    Neighbour,
    News,
    Ping,
    PingFor,
    Rows,
    Shuffle,
    Shuffled,
    Sketch,
    Snapshot,
    Spans,
    Want,
    decode,
)
from state.gossip.overlay import Overlay
from state.gossip.port import Port
from state.gossip.reconciler import Reconciler
from state.gossip.seen import Seen
from state.gossip.snapshots import Snapshots
from state.gossip.spreader import Spreader
from state.gossip.stability import Stability

_ANSWER = 4 << 20
_ENVELOPE = 1 << 20


class Inbox:
    """Joins the parts of a peer where one message concerns several of them."""

    def __init__(
        self,
        port: Port,
        members: Members,
        overlay: Overlay,
        detector: Detector,
        seen: Seen,
        log: Log,
        spreader: Spreader,
        reconciler: Reconciler,
        snapshots: Snapshots,
        stability: Stability,
    ) -> None:
        self._port = port
        self._members = members
        self._overlay = overlay
        self._detector = detector
        self._seen = seen
        self._log = log
        self._spreader = spreader
        self._reconciler = reconciler
        self._snapshots = snapshots
        self._stability = stability
        self.received = 0
        self.rejected = 0
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            Join: self._on_join,
            ForwardJoin: self._on_forward,
            Neighbour: self._on_neighbour,
            Disconnect: lambda sender, message: self._overlay.disconnected(sender),
            Shuffle: self._overlay.shuffled,
            Shuffled: lambda sender, message: self._overlay.offered(message.addresses),
            Ping: self._on_ping,
            Ack: self._detector.answered,
            PingFor: self._detector.asked,
            Nack: lambda sender, message: self._detector.refused(message),
            Digest: self._reconciler.digest,
            Have: lambda sender, message: self._spreader.offered(sender, message.ranges),
            Want: self._on_want,
            News: self._on_news,
            Rows: self._reconciler.rows,
            Facts: self._reconciler.facts,
            Sketch: self._reconciler.sketch,
            Spans: self._reconciler.spans,
            Snapshot: self._on_snapshot,
            Cut: self._stability.receive,
        }

    def take(self, sender: str, data: bytes) -> None:
        """Take in a message from the address `sender`; bytes that are none are reported."""
        self.received += 1
        try:
            if sender == self._port.address or not 0 < len(sender) <= 255:
                raise MessageError("it does not come from another peer")
            message: AnyMessage = decode(data, self._port.settings.max_snapshot + _ENVELOPE)
            self._handlers[type(message)](sender, message)
        except MessageError as error:
            self.rejected += 1
            self._port.emit(Rejected(sender, str(error)))

    def _on_join(self, sender: str, message: Join) -> None:
        if message.fact.address != sender:
            raise MessageError(f"it asks to let {message.fact.address} in")
        better = self._members.learn([message.fact])
        if better:
            self._reconciler.tell(sender, better)
            known = self._members.get(message.fact.name)
            if known is not None and known.incarnation > message.fact.incarnation:
                return
        self._overlay.joined(sender, message)
        self._reconciler.begin(sender)

    def _on_forward(self, sender: str, message: ForwardJoin) -> None:
        self._members.learn([message.fact])
        self._overlay.forwarded(sender, message)

    def _on_neighbour(self, sender: str, message: Neighbour) -> None:
        self._overlay.neighbour(sender, message)
        if message.answer:
            self._reconciler.begin(sender)

    def _on_ping(self, sender: str, message: Ping) -> None:
        self._overlay.pinged(sender, message.linked)
        self._detector.pinged(sender, message)

    def _on_want(self, sender: str, message: Want) -> None:
        updates, absent, whole = self._log.select(message.ranges, _ANSWER)
        if updates or not whole:
            self._spreader.send_news([sender], updates, more=not whole)
        if any(self._seen.has_any(row) for row in absent):
            self._snapshots.want(sender)

    def _on_news(self, sender: str, message: News) -> None:
        self._spreader.receive(sender, message.updates)
        if self._spreader.requests.hurry(sender, more=message.more):
            self._reconciler.begin(sender)

    def _on_snapshot(self, sender: str, message: Snapshot) -> None:
        cut = self._snapshots.take(message, self._stability.stable)
        if cut is not None:
            self._spreader.requests.settled(sender)
            self._stability.advance(cut)
