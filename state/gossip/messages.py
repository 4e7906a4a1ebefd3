"""What peers say to each other, and its bytes: a version byte and the msgpack of one message.

| message | answered by | carried as |
| --- | --- | --- |
| `Join`, `ForwardJoin`, `Neighbour`, `Disconnect`, `Shuffle`, `Shuffled` | each other | reliable |
| `Ping`, `PingFor` | `Ack`, `Nack` | datagram |
| `Digest`, each round, to one neighbour | `Rows`, `Facts`, `Sketch` when it differs | datagram |
| `Sketch`, `Spans` | `Rows`, `Facts`, or the next finer one | datagram, bulk when long |
| `Have`, `Rows` | `Want` | datagram, bulk when long |
| `Want` | `News`, `Snapshot` | datagram, bulk when long |
| `Facts` | `Facts` where the receiver knows better | datagram, bulk when long |
| `Cut` | `Cut` where the receiver knows better | datagram, bulk when long |

A message is refused with :class:`MessageError` when it is longer than allowed, of an unknown
version or kind, has unknown fields or a field out of its range. Reading costs time and memory in
proportion to the length of the bytes, whatever they claim.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from state.gossip.events import Ordinal, ReplicaId, Status, Update

VERSION: Final = 1
MAX_ROWS: Final = 4096
"""Entries of any list in a message."""
MAX_CELLS: Final = 512
"""Cells of a sketch; a difference that needs more is found by spans."""

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Hash = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Address = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern="^[^#]+$")]
Table = Literal[0, 1]
Hops = Annotated[int, msgspec.Meta(ge=0, le=16)]
Hashes = Annotated[list[Hash], msgspec.Meta(max_length=MAX_ROWS)]


class MessageError(ValueError):
    """Bytes of a peer are no message, or one beyond the limits."""


class Fact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is said of a member; see :mod:`state.gossip.members` for which fact wins."""

    name: Name
    address: Address
    incarnation: Count
    revision: Count
    status: Status
    accuser: Annotated[str, msgspec.Meta(max_length=200)] = ""
    """Who suspects it: several accusers shorten the time to refute."""


Facts_ = Annotated[list[Fact], msgspec.Meta(max_length=MAX_ROWS)]


class Range(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The updates `first` to `last` of replica `origin`."""

    origin: ReplicaId
    first: Ordinal
    last: Ordinal

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"range {self.first} to {self.last} of {self.origin} is empty")


Ranges = Annotated[list[Range], msgspec.Meta(max_length=MAX_ROWS)]


class Span(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The rows whose keys lie in [low, high): how many there are, and the sum of their hashes."""

    low: Hash
    high: Annotated[int, msgspec.Meta(ge=1)]
    count: Count
    total: Hash

    def __post_init__(self) -> None:
        if not self.low < self.high <= 1 << 63:
            raise ValueError(f"span {self.low} to {self.high} is not one of 63-bit keys")


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all messages have in common: nothing but their form."""


class Join(Message, frozen=True, tag=1):
    """Let me in: to a bootstrap peer, which tells others with `ForwardJoin`."""

    fact: Fact


class ForwardJoin(Message, frozen=True, tag=2):
    """A random walk for a peer that joins, with hops left."""

    fact: Fact
    hops: Hops


class Neighbour(Message, frozen=True, tag=3):
    """Be my neighbour; `urgent` when I have no other. `answer` says that it is agreed."""

    urgent: bool
    answer: bool


class Disconnect(Message, frozen=True, tag=4):
    """Be my neighbour no more (or: you are not)."""


class Shuffle(Message, frozen=True, tag=5):
    """A random walk that exchanges addresses of passive views with who is at its end."""

    origin: Address
    hops: Hops
    addresses: Annotated[list[Address], msgspec.Meta(max_length=64)]


class Shuffled(Message, frozen=True, tag=6):
    """The answer to `Shuffle`, straight to its origin."""

    addresses: Annotated[list[Address], msgspec.Meta(max_length=64)]


class Ping(Message, frozen=True, tag=7):
    """Do you live? `linked` says that I take you for a neighbour, `sure`: answer reliably."""

    number: Count
    linked: bool
    sure: bool
    facts: Facts_


class Ack(Message, frozen=True, tag=8):
    """I live (or the one that I was asked to ping does)."""

    number: Count
    facts: Facts_


class PingFor(Message, frozen=True, tag=9):
    """Ping `target` for me: I got no answer."""

    number: Count
    target: Address


class Nack(Message, frozen=True, tag=10):
    """I pinged, as you asked, and got no answer either: so at least we two are well."""

    number: Count


class Digest(Message, frozen=True, tag=11):
    """Count and fingerprint of the updates seen, and of the facts known."""

    origins: Count
    updates: Hash
    members: Count
    facts: Hash
    news: Facts_


class Have(Message, frozen=True, tag=12):
    """Updates that I have and that may be new to you."""

    ranges: Ranges


class Want(Message, frozen=True, tag=13):
    """Send me these updates, or what stands for them."""

    ranges: Ranges


class News(Message, frozen=True, tag=14):
    """Updates; `more` when not all that was wanted fitted in."""

    updates: Annotated[list[Update], msgspec.Meta(max_length=MAX_ROWS)]
    more: bool


class Rows(Message, frozen=True, tag=15):
    """All that I have seen of some origins; `wanted` are hashes of rows that I lack.

    With a span it is all that I have seen of the origins whose keys lie in it.
    """

    ranges: Ranges
    wanted: Hashes
    span: tuple[Hash, int] | None


class Facts(Message, frozen=True, tag=16):
    """Facts about members, otherwise as `Rows`."""

    facts: Facts_
    wanted: Hashes
    span: tuple[Hash, int] | None


class Sketch(Message, frozen=True, tag=17):
    """An invertible Bloom lookup table of the rows of a table: 0 the updates, 1 the facts."""

    table: Table
    cells: Annotated[bytes, msgspec.Meta(max_length=MAX_CELLS * 20)]


class Spans(Message, frozen=True, tag=18):
    """Counts and sums of parts of a table, as in a Merkle tree."""

    table: Table
    spans: Annotated[list[Span], msgspec.Meta(max_length=MAX_ROWS)]


class Snapshot(Message, frozen=True, tag=19):
    """A state that stands for the updates in `seen`; `stable` is what it may be compacted to."""

    state: bytes
    seen: Annotated[list[Range], msgspec.Meta(max_length=1 << 20)]
    stable: Annotated[list[Range], msgspec.Meta(max_length=1 << 20)]


class Cut(Message, frozen=True, tag=20):
    """One round of agreeing on the stable cut; see :mod:`state.gossip.stability`."""

    epoch: Count
    cut: Annotated[list[Range], msgspec.Meta(max_length=1 << 20)]
    voters: Annotated[bytes, msgspec.Meta(max_length=8 * 100_000)]
    stable: Annotated[list[Range], msgspec.Meta(max_length=1 << 20)]


AnyMessage = (
    Join
    | ForwardJoin
    | Neighbour
    | Disconnect
    | Shuffle
    | Shuffled
    | Ping
    | Ack
    | PingFor
    | Nack
    | Digest
    | Have
    | Want
    | News
    | Rows
    | Facts
    | Sketch
    | Spans
    | Snapshot
    | Cut
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)
_structure = msgspec.msgpack.Decoder(msgspec.Raw)
_VERSION_BYTE = bytes([VERSION])


def encode(message: Message) -> bytes:
    """Return the bytes of `message`.

    >>> encode(Neighbour(urgent=True, answer=False)).hex(" ")
    '01 93 03 c3 c2'
    """
    buffer = bytearray(_VERSION_BYTE)
    _encoder.encode_into(message, buffer, 1)
    return bytes(buffer)


def encode_news(updates: list[Update], *, more: bool) -> bytes:
    """Return the bytes of a `News` message."""
    return _VERSION_BYTE + _encoder.encode((14, updates, more))


def decode(data: bytes, max_size: int) -> AnyMessage:
    """Return the message that `data` holds.

    >>> decode(encode(Nack(7)), 1000)
    Nack(number=7)

    Raises:
        MessageError: `data` is no message of this version within the limits.
    """
    if len(data) > max_size:
        raise MessageError(f"a message of {len(data)} bytes; at most {max_size}")
    if data[:1] != _VERSION_BYTE:
        raise MessageError(f"version {data[:1].hex() or 'none'} is not {VERSION:02x}")
    body = memoryview(data)[1:]
    try:
        # Reading as Raw builds nothing: an array that claims four billion items in five bytes
        # fails here, before a list is made for it.
        _structure.decode(body)
        return _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MessageError(f"malformed: {error}") from error
