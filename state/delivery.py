"""Exactly-once delivery over a link that breaks, between ends that die: both ends, sans I/O.

A *link* carries numbered frames from one sender to one receiver. The sender numbers what it
sends 0, 1, 2, ... in one *incarnation*, the life of its log, and keeps every frame until the
receiver says that it has it for good. Who calls whom:

    sink      -> Outbox      connect, receive(control), to_send, release, finish
    Outbox    -> Log         read, prune                    (the spool on disk)
    source    -> Inbox       admit(sender, hello) -> Session, taken, snapshot, committed
    transport -> Session     receive(frame) -> Arrival, replies

One exchange, from the first frame of a connection:

    sender    Hello(incarnation, first, next)    what its log is, and what it still keeps
    receiver  Welcome(next, credit), Ack         where to go on, and how many bytes may come
    sender    Data(next), Data(next + 1), ...
    receiver  Ack(durable, credit)               a finished snapshot covers all below `durable`
    sender    End(count)                         there will be no frame after `count - 1`
    receiver  Ended                              a finished snapshot covers the end as well

The laws, for any loss of connections and any death and resumption of either end:

    order     a receiver takes the frames of an incarnation in order, each exactly once
    no loss   a sender forgets a frame only when the receiver's durable state contains it
    bounds    unread bytes at the receiver never exceed its window by more than one frame

They rest on two promises of the callers. A *log* does not lose frames when its process dies. A
sender that resumes either produces equal frames again from where its own snapshot was, or sent
nothing that this snapshot does not cover (:meth:`Outbox.release` decides what may go out).

A receiver that lost its state, or a sender that lost its log, cannot go on without loss: both
raise :class:`LinkError` and say which end it was.

Source: the acknowledgement of what is stable is that of Elnozahy et al., "A survey of
rollback-recovery protocols in message-passing systems", ACM Computing Surveys 34(3), 2002 (output
commit); credit is that of Kung and Morris, "Credit-based flow control for ATM networks", 1995.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

from state.frames import Ack, Data, End, Ended, Frame, Hello, Schema, Welcome

VERSION = 1


_OVERHEAD = 32


def cost(data: Data) -> int:
    """Return what a frame counts against the credit: its bytes, and what keeping it costs."""
    return len(data.body) + _OVERHEAD


class LinkError(Exception):
    """A link cannot go on: an end lost its state, or broke the protocol."""


class Log(Protocol):
    """The frames that a sender keeps: `first` to `next - 1`."""

    @property
    def incarnation(self) -> int:
        """Greater than that of any earlier log of this sender."""

    @property
    def first(self) -> int:
        """The oldest frame that is kept."""

    @property
    def next(self) -> int:
        """One more than the newest frame ever written, which a restart does not take back."""

    @property
    def schemas(self) -> Mapping[int, bytes]:
        """The Arrow schemas that frames refer to."""

    def read(self, sequence: int, limit: int) -> list[Data]:
        """Return frames from `sequence` on, of about `limit` bytes together."""

    def prune(self, sequence: int) -> None:
        """Forget all frames below `sequence`."""


class Outbox:
    """The sender's end of a link.

    Args:
        log: Where the flow appends frames; only read and pruned here.
        channel: The receiver's name for what the link carries.
        part: Tells several links of one sender to one channel apart.
    """

    def __init__(self, log: Log, channel: str, part: str = "") -> None:
        self._log = log
        self._channel = channel
        self._part = part
        self._released = 0
        self._count: int | None = None
        self._ended_at: int | None = None
        self._told_end = False
        self._cursor: int | None = None
        self._credit = 0
        self._sent = 0
        self._schemas: set[int] = set()
        self.ended = False
        """Whether the receiver has all frames and the end for good."""

    @property
    def connected(self) -> bool:
        """Whether the receiver has said where to go on."""
        return self._cursor is not None

    @property
    def released(self) -> int:
        """One more than the last frame that may be sent."""
        return self._released

    def release(self, sequence: int) -> None:
        """Let frames below `sequence` be sent."""
        self._released = max(self._released, sequence)

    def finish(self, count: int) -> None:
        """Say that no frame follows the first `count`."""
        self._count = count
        self._told_end = False
        self.ended = self._ended_at == count

    def connect(self) -> Hello:
        """Begin a new connection with the frame that is returned."""
        self.disconnect()
        log = self._log
        return Hello(VERSION, self._channel, self._part, log.incarnation, log.first, log.next)

    def disconnect(self) -> None:
        """Forget the connection."""
        self._cursor = None
        self._credit = self._sent = 0
        self._told_end = False
        self._schemas.clear()

    def receive(self, frame: Frame) -> None:
        """Take in a control frame of the receiver.

        Raises:
            LinkError: the receiver has lost its state, or broke the protocol.
        """
        if isinstance(frame, Welcome):
            self._welcomed(frame)
        elif isinstance(frame, Ack):
            self._credit = max(self._credit, frame.credit)
            self._log.prune(min(frame.durable, self._log.next))
        elif isinstance(frame, Ended):
            # Told again after a restart, perhaps long before the flow is back at its end.
            self._ended_at = self._log.first
            self.ended = self._ended_at == self._count
        else:
            raise LinkError(f"a receiver sent a {type(frame).__name__}")

    def _welcomed(self, frame: Welcome) -> None:
        if self._cursor is not None:
            raise LinkError("a receiver sent a second Welcome")
        if frame.next > self._log.next:
            raise LinkError(
                f"the receiver of {self._channel!r} has {frame.next} frames of a log that only "
                f"ever held {self._log.next}: the sender's spool was lost or rolled back"
            )
        if frame.next < self._log.first:
            raise LinkError(
                f"the receiver of {self._channel!r} wants frame {frame.next} again, and all below "
                f"{self._log.first} were acknowledged and dropped: the receiver lost its state"
            )
        self._cursor = frame.next
        self._credit = frame.credit

    def to_send(self) -> list[Frame]:
        """Return what may be sent now, and count it as sent."""
        frames: list[Frame] = []
        if self._cursor is None:
            return frames
        end = min(self._released, self._log.next)
        while self._cursor < end and self._sent < self._credit:
            for data in self._log.read(self._cursor, self._credit - self._sent):
                if data.sequence >= end or self._sent >= self._credit:
                    break
                if data.schema and data.schema not in self._schemas:
                    self._schemas.add(data.schema)
                    frames.append(Schema(data.schema, self._log.schemas[data.schema]))
                frames.append(data)
                self._sent += cost(data)
                self._cursor = data.sequence + 1
        if self._count is not None and self._cursor >= self._count and not self._told_end:
            self._told_end = True
            frames.append(End(self._count))
        return frames


class Position(NamedTuple):
    """How far a receiver has taken one sender."""

    incarnation: int
    next: int
    end: int | None = None
    """The number of frames in all, once the end has been taken."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self.end is not None and self.next >= self.end


class Arrival(NamedTuple):
    """A frame on its way to the flow; `size` is None for the end of the sender's frames."""

    session: Session
    next: int
    size: int | None


class Inbox:
    """The receiver's end of all links into one channel.

    Two threads may share it: one admits senders and feeds sessions, the other one takes, makes
    snapshots and commits them. No field is written by both.

    Args:
        positions: What the last snapshot says; empty at the beginning.
        window: Bytes that each sender may have on the way to the flow.
    """

    def __init__(self, positions: Mapping[str, Position], *, window: int) -> None:
        self._window = window
        self._taken = dict(positions)
        self._pending = dict(positions)
        self._durable = dict(positions)
        self._received = dict(positions)
        self.sessions: dict[str, Session] = {}
        """The newest connection of each sender."""

    def admit(self, sender: str, hello: Hello) -> Session:
        """Begin a connection of `sender`; the session of an earlier one must be closed.

        Raises:
            LinkError: the sender speaks another version, is a stale one, or goes on from where
                this receiver never was.
        """
        if hello.version != VERSION:
            raise LinkError(f"version {hello.version} of the link is not {VERSION}")
        known = self._received.get(sender)
        if known is None or known.incarnation < hello.incarnation:
            if hello.first > 0:
                raise LinkError(
                    f"{sender} has dropped its first {hello.first} frames as acknowledged, and "
                    "none of them is here: the receiver lost its state"
                )
            known = self._received[sender] = Position(hello.incarnation, 0)
        elif known.incarnation > hello.incarnation:
            raise LinkError(f"a newer incarnation of {sender} was here before")
        session = Session(self, sender, known, self._window, self.sessions.get(sender))
        self.sessions[sender] = session
        return session

    def taken(self, arrival: Arrival) -> None:
        """Note that the flow has got `arrival`; called in the order of arrival."""
        session = arrival.session
        if arrival.size is None:
            position = Position(session.incarnation, arrival.next, arrival.next)
        else:
            session.consumed += arrival.size
            position = Position(session.incarnation, arrival.next)
        self._taken[session.sender] = position

    def snapshot(self) -> dict[str, Position]:
        """Return how far each sender was taken; remembered until :meth:`committed`."""
        self._pending = dict(self._taken)
        return dict(self._pending)

    def committed(self) -> bool:
        """Note that the last snapshot is durable; return whether that is news."""
        news = self._durable != self._pending
        self._durable = self._pending
        return news

    def senders(self) -> Collection[str]:
        """Return all that ever began a connection; how far each was taken is never forgotten."""
        return self._received.keys()

    def durable(self, sender: str) -> Position | None:
        """Return how far `sender` is covered by a finished snapshot."""
        return self._durable.get(sender)

    def ended(self, senders: Iterable[str]) -> bool:
        """Return whether all of `senders` have ended, for good."""
        return all((at := self._durable.get(name)) is not None and at.ended for name in senders)

    def _arrived(self, sender: str, position: Position) -> None:
        self._received[sender] = position


class Session:
    """One connection of one sender, as the receiver sees it."""

    def __init__(
        self,
        inbox: Inbox,
        sender: str,
        position: Position,
        window: int,
        before: Session | None = None,
    ) -> None:
        self._inbox = inbox
        self._earlier = [] if before is None else before._unfinished()
        self.sender = sender
        self.incarnation = position.incarnation
        self._at = position
        self._window = window
        self.consumed = 0
        """Bytes of this connection that the flow has taken."""
        self._got = 0
        self._granted = max(self._credit(), 0)
        self._acknowledged = 0
        self._told_ended = False

    @property
    def unread(self) -> int:
        """Bytes that arrived, in earlier connections too, and that the flow has not taken."""
        return self._got - self.consumed + sum(each._got - each.consumed for each in self._earlier)

    def _unfinished(self) -> list[Session]:
        """Return the connections of which something waits for the flow, this one among them."""
        return [each for each in (*self._earlier, self) if each._got > each.consumed]

    def _credit(self) -> int:
        """Return how many bytes may have come in this connection at most."""
        return self._window + self._got - self.unread

    def welcome(self) -> list[Frame]:
        """Return the answer to the sender's Hello."""
        return [Welcome(self._at.next, self._granted), *self.replies()]

    def receive(self, frame: Frame) -> Arrival | None:
        """Take in a frame; return what is to go to the flow.

        Raises:
            LinkError: the frame is out of order, beyond the credit, or not a sender's.
        """
        if isinstance(frame, Data):
            return self._data(frame)
        if isinstance(frame, End):
            if frame.count != self._at.next:
                raise LinkError(f"{self.sender} ends at {frame.count}, not at {self._at.next}")
            if self._at.ended:
                self._told_ended = False
                return None
            self._move(Position(self.incarnation, frame.count, frame.count))
            return Arrival(self, frame.count, None)
        if isinstance(frame, Schema):
            return None
        raise LinkError(f"{self.sender} sent a {type(frame).__name__} as a sender")

    def _data(self, frame: Data) -> Arrival:
        if frame.sequence != self._at.next:
            raise LinkError(
                f"{self.sender} sent frame {frame.sequence} where {self._at.next} was due"
            )
        if self._got >= self._granted:
            raise LinkError(f"{self.sender} sent more than its credit of {self._granted} bytes")
        size = cost(frame)
        self._got += size
        self._told_ended = False
        self._move(Position(self.incarnation, frame.sequence + 1))
        return Arrival(self, frame.sequence + 1, size)

    def _move(self, position: Position) -> None:
        self._at = position
        self._inbox._arrived(self.sender, position)

    def replies(self) -> list[Frame]:
        """Return what the sender should be told now."""
        durable = self._inbox.durable(self.sender)
        if durable is None or durable.incarnation != self.incarnation:
            durable = Position(self.incarnation, 0)
        credit = self._credit()
        frames: list[Frame] = []
        if durable.next > self._acknowledged or credit - self._granted >= self._window // 4:
            self._acknowledged, self._granted = durable.next, credit
            frames.append(Ack(durable.next, credit))
        if durable.ended and durable == self._at and not self._told_ended:
            self._told_ended = True
            frames.append(Ended())
        return frames
