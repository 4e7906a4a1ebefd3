"""What the two ends of a link say to each other beside the data.

A sender opens with `Hello`; the receiver answers `Welcome`. Data follows, and `Ack` for it; when
the sender's stream is complete, `End`, which the receiver answers with `Ended`. A peer that refuses
closes the connection, and the transport carries the reason. Fields have limits, unknown fields and
kinds are errors.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Hello(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A sender's first frame: who it is, and that it keeps the frames [first, next)."""

    version: _Count
    channel: _Name
    part: Annotated[str, msgspec.Meta(max_length=255)]
    incarnation: _Count
    first: _Count
    next: _Count

    def __post_init__(self) -> None:
        if self.next < self.first:
            raise ValueError(f"first {self.first} is after next {self.next}")


class Welcome(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The receiver's answer: the sequence it wants next, and how many bytes it can take."""

    next: _Count
    credit: _Count


class Ack(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Everything below `durable` is the receiver's for good; `credit` as in `Welcome`."""

    durable: _Count
    credit: _Count


class End(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The sender has no more items than the `count` it numbered from 0."""

    count: _Count


class Ended(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The receiver has all items, for good."""


Control = Hello | Welcome | Ack | End | Ended
