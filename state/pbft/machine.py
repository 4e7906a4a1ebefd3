"""What is replicated: any deterministic machine that can be written down and read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation of a client, with what every replica agrees on about it."""

    client: str
    """Who signed it."""
    data: bytes
    """What is to be done, in the machine's own terms."""
    time_ms: int = 0
    """The agreed time, milliseconds since 1970: proposed by the primary, never running backwards,
    and within `Settings.max_skew` of the clock of some correct replica."""
    seq: int = 0
    """The sequence number of its batch: it grows from batch to batch, with gaps."""


class MachineError(RuntimeError):
    """A state machine did what none may do; its replica is of no use any more."""


class StateMachine(Protocol):
    """A deterministic machine: the same operations in the same order give the same results.

    It must depend on nothing but its state and what `apply` is given: no clock, no randomness, no
    order of a set or of hashes. An operation that makes no sense is answered with an error in its
    result, at every replica the same; `apply` does not raise. How the operations of a history are
    cut into batches must make no difference.
    """

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        """Carry out operations one after the other; return a result for each."""

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes, whatever led to them."""

    def restore(self, snapshot: bytes) -> None:
        """Take over a state.

        Raises:
            ValueError: the bytes are malformed; nothing has changed.
        """
