"""What the client of `benchmarks.pbft` asks for: writes to the replicated key-value store.

A request has a number of operations of about 30 bytes each. Requests belong to lanes, each of
which waits for its last answer; the first operation of each expects what the lane's last request
wrote, so that a request that is lost, repeated or out of order changes results. In the end the
state depends on the load alone, whatever order requests of different lanes had.
"""

from __future__ import annotations

import hashlib

import msgspec

from state.pbft.machines.store import CompareAndSet, Put, operation


class Load(msgspec.Struct, frozen=True):
    """Requests to be made.

    Args:
        requests: How many.
        operations: Of each.
        lanes: Requests in flight.
        name: Keys begin with it; loads of one group have different ones.
        patience: Seconds without an answer after which it fails.
    """

    requests: int
    operations: int
    lanes: int
    name: str
    patience: float = 60.0

    def request(self, number: int) -> list[bytes]:
        """Return the operations of a request."""
        lane, turn = number % self.lanes, number // self.lanes
        key = f"{self.name}{lane}.".encode()
        value = turn.to_bytes(12, "big")
        before = (turn - 1).to_bytes(12, "big") if turn else None
        first = operation(CompareAndSet(key, before, value))
        rest = [operation(Put(b"%s%d" % (key, i), value)) for i in range(1, self.operations)]
        return [first, *rest]


class Results:
    """A digest of results that does not depend on the order in which lanes were answered."""

    def __init__(self, load: Load) -> None:
        self._lanes = [hashlib.sha256() for _ in range(load.lanes)]

    def add(self, number: int, results: list[bytes]) -> None:
        """Take the results of a request."""
        lane = self._lanes[number % len(self._lanes)]
        lane.update(msgspec.msgpack.encode(results))

    def digest(self) -> str:
        """Return the digest of all."""
        return hashlib.sha256(b"".join(lane.digest() for lane in self._lanes)).hexdigest()
