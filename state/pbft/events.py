"""What goes into a :class:`~state.pbft.Replica` or :class:`~state.pbft.Client` and comes out.

`now` is seconds on any clock that does not run backwards; `wall` is seconds since 1970 on one that
may jump, and matters only for the time that batches carry. Peers are named; the transport says who
sent something, and the MAC proves it.
"""

from __future__ import annotations

import enum
from typing import Literal

import msgspec

from state.pbft.messages import MAX_OPERATIONS, MAX_SLOTS, Accusation


class Phase(enum.IntEnum):
    """How certain a reply is; the numbers are those on the wire."""

    COMMITTED = 0
    TENTATIVE = 1
    SPECULATIVE = 2


# -- events -------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Begin, or go on after a restart."""

    now: float
    wall: float


class Received(msgspec.Struct, frozen=True):
    """Bundles came in: who sent each, and its bytes. Many at once are answered together."""

    now: float
    wall: float
    bundles: list[tuple[str, bytes]]


class Tick(msgspec.Struct, frozen=True):
    """Time has passed: due at `wake_at`, harmless at any other time."""

    now: float
    wall: float


class Submit(msgspec.Struct, frozen=True):
    """A client's application wants operations carried out, one after the other.

    `token` comes back in :class:`Answer`.
    """

    now: float
    operations: list[bytes]
    token: object = None


Event = Start | Received | Tick
ClientEvent = Received | Tick | Submit


# -- effects ------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True):
    """Send a bundle to a peer. It may be lost: what matters is sent again."""

    to: str
    data: bytes


class Persist(msgspec.Struct, frozen=True):
    """Append records to the vote log, durably, before any later effect is carried out."""

    records: list[bytes]


class Rewrite(msgspec.Struct, frozen=True):
    """Put these records in the place of the whole vote log, at once or not at all."""

    records: list[bytes]


class Committed(msgspec.Struct, frozen=True):
    """A batch is final: in order, without gaps but for state transfers, once for each life.

    After a restart those since the last stable checkpoint come again.
    """

    seq: int
    view: int
    """In which it was committed, as far as this replica knows; others may tell another."""
    digest: bytes
    time_ms: int
    """What the primary proposed, which never runs backwards: milliseconds since 1970."""
    requests: list[CommittedRequest]


class CommittedRequest(msgspec.Struct, frozen=True):
    """A request in a final batch."""

    client: str
    number: int
    operations: list[bytes]
    results: list[bytes] | None
    """None if it had been executed before, under an earlier sequence number."""


class ViewEntered(msgspec.Struct, frozen=True):
    """A view has begun; its number is the leader's epoch."""

    view: int
    primary: str


class ViewAbandoned(msgspec.Struct, frozen=True):
    """This replica has given up on the view before `view`, and why."""

    view: int
    reason: str


class Stable(msgspec.Struct, frozen=True):
    """A quorum has the same state after `seq`."""

    seq: int
    digest: bytes


class Transferred(msgspec.Struct, frozen=True):
    """The state after `seq` came from others: there are no `Committed` for what led to it."""

    seq: int
    digest: bytes


class Diverged(msgspec.Struct, frozen=True):
    """A quorum has another state after `seq` than this replica, which takes theirs."""

    seq: int


class Evidence(msgspec.Struct, frozen=True):
    """A replica has signed two messages that no correct one signs both; anyone can check it."""

    accusation: Accusation


class Rejected(msgspec.Struct, frozen=True):
    """Something was refused, and changed nothing: who sent it and what is wrong with it."""

    sender: str
    reason: str


class Answer(msgspec.Struct, frozen=True):
    """A client's request was carried out."""

    number: int
    token: object
    results: list[bytes]
    phase: Phase
    """The weakest rule by which the answer is certain; all are final."""
    view: int
    seq: int
    seconds: float
    """Since it was submitted."""


Effect = (
    Send
    | Persist
    | Rewrite
    | Committed
    | ViewEntered
    | ViewAbandoned
    | Stable
    | Transferred
    | Diverged
    | Evidence
    | Rejected
)
ClientEffect = Send | Answer | Rejected


# -- settings -----------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True):
    """How fast and how large; all replicas of a group, and its clients, must have the same.

    Times are in seconds, sizes in bytes.

    Raises:
        ValueError: a setting is out of its range.
    """

    checkpoint: int = 128
    """Slots between two checkpoints; twice as many may be under way (the watermarks)."""
    batch_operations: int = 1000
    """Operations of one batch, unless a single request has more."""
    batch_bytes: int = 1 << 20
    """Bytes of their operations."""
    pipeline: int = 8
    """Slots that the primary proposes before the first of them is executed."""
    timeout: float = 1.0
    """Until a replica gives up on a view in which nothing is executed though something waits;
    doubles with each view that fails. One request may wait four times as long while others are
    executed: where more waits than is done in that time, leaders change for that alone."""
    longest_timeout: float = 60.0
    resend: float = 0.03
    """Until a replica that waits says what it lacks, at least: at first longer where commits
    usually take longer, then twice as long each time, up to `longest_resend`. Clients wait twice
    as long before they send a request again."""
    longest_resend: float = 1.0
    """Between two signs of life of a replica that waits for nothing, and two tries of a client."""
    tentative: bool = True
    """Execute and answer what is prepared, before it is committed."""
    fast: bool = False
    """Execute and answer what is proposed, before it is prepared."""
    lazy: float = 0.02
    """How long votes wait for another message to travel with, where nobody waits for them."""
    lazy_fast: float = 0.1
    """The same with `fast`, while clients are content with speculative answers."""
    votes: Literal["mac", "signature"] = "mac"
    """How PREPARE and COMMIT are authenticated: see :mod:`state.pbft`."""
    max_skew: float = 10.0
    """How far a proposal's time may be from a backup's clock."""
    max_request: int = 1 << 20
    """Bytes of one request's operations."""
    max_waiting: int = 1024
    """Requests of one client that are held before they are executed, and numbers between its
    oldest unanswered request and its newest."""
    max_state: int = 256 << 20
    """Bytes of a state that is transferred. Who is behind does not take a larger one: it says so
    (:class:`Rejected`), and stays behind."""
    chunk: int = 64 << 10
    """Bytes of its parts."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for name, most in (
            ("checkpoint", MAX_SLOTS // 2),
            ("batch_operations", MAX_OPERATIONS),
            ("batch_bytes", None),
            ("pipeline", None),
            ("max_request", None),
            ("max_waiting", 1 << 20),
            ("chunk", None),
            ("max_state", None),
        ):
            value = getattr(self, name)
            if value < 1 or (most is not None and value > most):
                within = "be positive" if most is None else f"lie between 1 and {most}"
                raise ValueError(f"`{name}` is {value}: it must {within}")
        for name in ("timeout", "resend", "max_skew"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be positive")
        for name in ("lazy", "lazy_fast"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must not be negative")
        for name, least in (("longest_timeout", self.timeout), ("longest_resend", self.resend)):
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` is {getattr(self, name)}: it must be {least} or more")
