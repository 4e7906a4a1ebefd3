"""The one protocol that every state obeys, and the envelope its bytes travel in.

A *mergeable* state is an element of a monoid that parts of a distributed system build
separately and then join. Write ``a + b`` for "a copy of ``a`` after ``a.merge(b)``" and ``0``
for a freshly created, empty state. Every state obeys

    identity        0 + a == a == a + 0
    associativity   (a + b) + c == a + (b + c)
    split           folding rows in pieces and merging the pieces == folding them in one pass
    bytes           from_bytes(to_bytes(a)) == a, and anything else raises ValueError

and, where its :class:`Algebra` claims so,

    commutativity   a + b == b + a
    idempotence     a + a == a

Because these hold, one value can be folded by a keyed operator, combined up a tree, gossiped,
snapshotted for recovery or sent over a wire, and none of that code is written twice. The laws
are executable: :func:`state.testing.laws` checks any state, a user's own included.

This module imports the standard library only, so that states that do the same run in a browser.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Container
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa


class Algebra(enum.Enum):
    """The laws a state claims beyond being a monoid."""

    ORDERED_MONOID = "ordered"
    """Associative only: ``other`` in ``merge(other)`` must follow in time."""

    COMMUTATIVE_MONOID = "commutative"
    """Parts merge in any order, each exactly once."""

    SEMILATTICE = "semilattice"
    """Parts merge in any order, any number of times (a join-semilattice)."""

    @property
    def commutative(self) -> bool:
        """Whether ``a + b == b + a``."""
        return self is not Algebra.ORDERED_MONOID

    @property
    def idempotent(self) -> bool:
        """Whether ``a + a == a``."""
        return self is Algebra.SEMILATTICE

    @property
    def ordered(self) -> bool:
        """Whether parts must be merged in the order of their rows."""
        return self is Algebra.ORDERED_MONOID


@runtime_checkable
class Mergeable(Protocol):
    """A state that joins with others of its kind and travels as bytes."""

    algebra: ClassVar[Algebra]

    def merge(self, other: Self) -> None:
        """Join ``other`` into this state and leave ``other`` as it was.

        Raises:
            ValueError: the two were created with different parameters.
        """

    def to_bytes(self) -> bytes:
        """Return the state as versioned, canonical bytes."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that ``data`` holds.

        Raises:
            ValueError: ``data`` is malformed, truncated or of an unknown version.
        """


@runtime_checkable
class Foldable(Mergeable, Protocol):
    """A mergeable state that is fed from columns."""

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the rows of ``batch`` into this state, in their order."""


_MAGIC = b"BRDF"
_HEAD = struct.Struct("<4sBHQ")  # magic, length of kind, version, length of payload
_CRC = struct.Struct("<I")


def seal(kind: str, version: int, payload: bytes) -> bytes:
    """Wrap ``payload`` in the envelope that all states share.

    Layout, little-endian: ``"BRDF"``, u8 length of ``kind``, u16 ``version``, u64 length of
    ``payload``, ``kind`` in ASCII, ``payload``, u32 CRC-32 of everything before it.

    >>> unseal("demo", seal("demo", 1, b"abc"), versions={1})
    (1, b'abc')
    """
    name = kind.encode("ascii")
    body = _HEAD.pack(_MAGIC, len(name), version, len(payload)) + name + payload
    return body + _CRC.pack(zlib.crc32(body))


def unseal(kind: str, data: bytes, *, versions: Container[int]) -> tuple[int, bytes]:
    """Return the version and payload of an envelope made by :func:`seal`.

    The checksum finds damage, not forgery: whoever reads ``payload`` still checks every length
    and range in it.

    Raises:
        ValueError: the envelope is damaged, of another kind, or of a version not in ``versions``.
    """
    if len(data) < _HEAD.size + _CRC.size:
        raise ValueError(f"{kind}: {len(data)} bytes are too few for a state")
    magic, name_length, version, length = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError(f"{kind}: not the bytes of a state (wrong first four bytes)")
    start = _HEAD.size + name_length
    if len(data) != start + length + _CRC.size:
        raise ValueError(f"{kind}: truncated or padded: {len(data)} bytes, header says otherwise")
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, start + length)[0]:
        raise ValueError(f"{kind}: checksum does not match")
    found = data[_HEAD.size : start]
    if found != kind.encode("ascii"):
        raise ValueError(f"expected the bytes of a {kind}, found {found!r}")
    if version not in versions:
        raise ValueError(f"{kind}: format version {version} is not known here")
    return version, bytes(data[start : start + length])


def sealed_kind(data: bytes) -> str:
    """Return the kind that an envelope claims to be of; `unseal` checks the rest.

    >>> sealed_kind(seal("demo", 1, b"abc"))
    'demo'

    Raises:
        ValueError: ``data`` does not begin like an envelope.
    """
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise ValueError("not the bytes of a state (wrong first four bytes)")
    length = data[len(_MAGIC)]
    return data[_HEAD.size : _HEAD.size + length].decode("ascii", "replace")
