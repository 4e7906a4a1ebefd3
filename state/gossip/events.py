"""What goes into a :class:`~state.gossip.Peer` and what comes out of it.

Every event carries `now`: seconds of any clock that does not run backwards (a loop's time, or a
simulated one). Peers never compare their clocks, so each may have its own. Addresses are strings
that only the transport understands.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

ReplicaId = Annotated[
    str, msgspec.Meta(min_length=3, max_length=220, pattern="^[^#]+#(0|[1-9][0-9]{0,18})$")
]
Ordinal = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Update(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One immutable thing that a replica said: number `seq` (from 1) of replica `origin`.

    The payload is bytes that mean something to the application: mostly a CRDT's delta, for
    updates arrive in any order.
    """

    origin: ReplicaId
    seq: Ordinal
    payload: bytes


class Status(enum.IntEnum):
    """What is believed of a member; the numbers are those on the wire.

    For one incarnation and revision of a member the greater number wins.
    """

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    """Did not answer: it may come back, and counts for the stable cut until then."""
    LEFT = 3
    """Said that it leaves: final for this incarnation."""
    EXPELLED = 4
    """An operator said that it will not come back: final for this incarnation."""


class Member(msgspec.Struct, frozen=True):
    """A member as this peer sees it; `id` is its replica id."""

    name: str
    address: str
    incarnation: int
    status: Status

    @property
    def id(self) -> str:
        """The replica id: the name and the incarnation."""
        return f"{self.name}#{self.incarnation}"


# -- events -------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Begin, and join the group that any of the `bootstrap` addresses belongs to.

    With no address (or only its own) the peer is the first of a group. A bootstrap peer that does
    not answer is asked again until there is a neighbour.
    """

    now: float
    bootstrap: tuple[str, ...] = ()


class Received(msgspec.Struct, frozen=True):
    """The transport got `data` from the peer that can be reached at `sender`.

    The transport vouches for `sender`: it is the address under which that peer is a member, and
    an answer sent to it arrives there.
    """

    now: float
    sender: str
    data: bytes


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: due at :attr:`Peer.wake_at`, harmless at any other time."""

    now: float


class Publish(msgspec.Struct, frozen=True):
    """The application made an update. It is not delivered back; see :class:`Published`."""

    now: float
    payload: bytes


class SnapshotTaken(msgspec.Struct, frozen=True):
    """The answer to :class:`TakeSnapshot`: the application's whole state as bytes.

    It must contain every update published or delivered before this event.
    """

    now: float
    to: str
    state: bytes


class Unreachable(msgspec.Struct, frozen=True):
    """The transport lost its link to `address`, or could not make one."""

    now: float
    address: str


class Expel(msgspec.Struct, frozen=True):
    """An operator declares that member `name` will not come back as the incarnation it was.

    Without this a member that crashed for good holds the stable cut back for ever. If it does
    come back, it must do so under a new incarnation.
    """

    now: float
    name: str


class Leave(msgspec.Struct, frozen=True):
    """Leave the group in good order: tell the others, hand over what they lack, and stop."""

    now: float


Event = Start | Received | Tick | Publish | SnapshotTaken | Unreachable | Expel | Leave


# -- effects ------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Send `data` to the peer at address `to`.

    Not reliable: one datagram, that may be lost. Reliable: bulk, or a change of links, that
    should arrive (a stream); if it is lost all the same, things only take longer. Messages of
    either kind may overtake each other.
    """

    to: str
    data: bytes
    reliable: bool


class Deliver(msgspec.Struct, frozen=True):
    """Hand these updates of others to the application: each once, in any order."""

    updates: list[Update]


class Published(msgspec.Struct, frozen=True):
    """The number that the application's own update got."""

    update: Update


class TakeSnapshot(msgspec.Struct, frozen=True):
    """Peer `to` lacks updates that the log no longer has: answer with :class:`SnapshotTaken`."""

    to: str


class Restore(msgspec.Struct, frozen=True):
    """Take over another peer's state, which stands for the updates that were not delivered.

    With `replace` unset: merge `state` into the application's. With `replace` set the group has
    passed a stable cut that this peer is behind (it is new, or came back with an old state), so
    that what is absent from `state` may have been deleted and forgotten: put `state` in the
    place of the application's own. Updates that `state` lacks are delivered (again) after it.
    """

    state: bytes
    replace: bool


class MemberUp(msgspec.Struct, frozen=True):
    """A member is new, came back, or refuted a suspicion."""

    member: Member


class MemberSuspected(msgspec.Struct, frozen=True):
    """A member does not answer; it has time left to say that it lives."""

    member: Member


class MemberDown(msgspec.Struct, frozen=True):
    """A member did not answer, nor refute the suspicion in time."""

    member: Member


class MemberLeft(msgspec.Struct, frozen=True):
    """A member left or was expelled."""

    member: Member


class NeighbourUp(msgspec.Struct, frozen=True):
    """Keep a link to `address` open: gossip goes over it."""

    address: str


class NeighbourDown(msgspec.Struct, frozen=True):
    """No gossip goes to `address` any more: the link may be closed once it is idle."""

    address: str


class StableAdvanced(msgspec.Struct, frozen=True):
    """:meth:`Peer.stable` grew: what lies below may be compacted."""

    cut: dict[str, int]


class Rejected(msgspec.Struct, frozen=True):
    """A message was refused, and changed nothing: who sent it and what is wrong with it."""

    sender: str
    reason: str


class Superseded(msgspec.Struct, frozen=True):
    """The group knows a newer incarnation of this name: this peer has stopped.

    To take part again, start with a greater `incarnation`.
    """

    incarnation: int


class Stopped(msgspec.Struct, frozen=True):
    """The peer has left; the last effect it ever has."""


Effect = (
    Send
    | Deliver
    | Published
    | TakeSnapshot
    | Restore
    | MemberUp
    | MemberSuspected
    | MemberDown
    | MemberLeft
    | NeighbourUp
    | NeighbourDown
    | StableAdvanced
    | Rejected
    | Superseded
    | Stopped
)


# -- settings -----------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True):
    """How fast, how wide and how large; all peers of a group should have the same.

    Times are in seconds, sizes in bytes.
    """

    round: float = 0.2
    """Between two rounds of gossip; should exceed three one-way delays of the network."""
    fanout: int = 3
    """Neighbours that hear of an update in one round."""
    eager: int = 2
    """How many of them get the payload at once; the others hear the number and may ask."""
    eager_bytes: int = 1000
    """Payloads above this are only ever sent to who asks."""
    rumour_rounds: int = 8
    """Rounds after which a peer stops telling of an update; anti-entropy does the rest."""
    min_gap: float = 0.005
    """Between two waves of news from one peer: under load news is told in batches."""
    active: int = 5
    """Links of the active view."""
    passive: int = 30
    """Addresses of the passive view, that replace links that break."""
    shuffle: float = 10.0
    """Between two exchanges of passive views."""
    probe: float = 1.0
    """Between two probes of the failure detector."""
    probe_timeout: float = 0.5
    """Until a direct probe is followed by indirect ones."""
    indirect: int = 3
    """Members that are asked to probe on this one's behalf."""
    suspicion: float = 4.0
    """A suspect has at least this many probe intervals, times log10 of the members, to refute."""
    awareness: int = 8
    """How far a peer that doubts its own health slows its judgement of others."""
    stability: float = 2.0
    """Between two exchanges about the stable cut."""
    log_updates: int = 10_000
    """Updates kept to serve others; older ones are served as a snapshot. A peer that has not had
    part in a stable cut yet keeps more: all its own."""
    log_bytes: int = 64 << 20
    """Bytes of their payloads."""
    max_payload: int = 1 << 20
    """Bytes of one update's payload."""
    max_snapshot: int = 32 << 20
    """Bytes of one snapshot, and so of any message."""
    max_datagram: int = 1200
    """Bytes of a message that is sent as a datagram; what is longer goes as bulk."""
    max_members: int = 10_000
    """Members, dead ones included, of one group."""
    max_origins: int = 100_000
    """Replica ids that ever published."""
