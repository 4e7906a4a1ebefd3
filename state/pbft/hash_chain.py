"""A machine for simulations: its state says what its whole history was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from state.pbft.machine import Operation


class HashChain:
    """A machine that tells, when it is asked, what its whole history was, in its order.

    It keeps the number of operations of each client, and a chain of hashes. An operation that
    begins with "?" is answered with the chain, any other with "done", as most are in real machines.
    """

    def __init__(self) -> None:
        self._chain = bytes(16)
        self._counts: dict[str, int] = {}

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        """Chain operations; return for each the chain's hash, 16 bytes, or that it is done."""
        results = []
        for operation in batch:
            what = f"{operation.client} {operation.time_ms} {operation.seq} ".encode()
            self._chain = hashlib.blake2b(
                self._chain + what + operation.data, digest_size=16
            ).digest()
            self._counts[operation.client] = self._counts.get(operation.client, 0) + 1
            results.append(self._chain if operation.data.startswith(b"?") else b"done")
        return results

    def snapshot(self) -> bytes:
        """Return the chain and the counts."""
        return msgspec.msgpack.encode((self._chain, sorted(self._counts.items())))

    def restore(self, snapshot: bytes) -> None:
        """Take over another's."""
        try:
            chain, counts = msgspec.msgpack.decode(
                snapshot, type=tuple[bytes, list[tuple[str, int]]]
            )
        except msgspec.DecodeError as error:
            raise ValueError(f"no hash chain: {error}") from None
        self._chain, self._counts = chain, dict(counts)
