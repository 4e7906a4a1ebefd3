"""Checkpoints: states that a quorum shares, and getting one from others when too far behind.

A state is cut into chunks; its digest is of the list of their hashes, so that each chunk can be
checked when it comes, whoever sent it.
"""

from __future__ import annotations

import hashlib
from collections import Counter

from state.pbft.events import Settings
from state.pbft.group import Group
from state.pbft.messages import Checkpoint, FetchState, StatePart, digest

_VOTES = 8
"""Checkpoints of one replica whose votes are kept."""
_HELD = 3
"""States kept for others beside those that are not stable yet."""
_PARALLEL = 8
"""Chunks asked for at a time."""


class Snapshot:
    """A state as bytes, in chunks.

    Args:
        seq: The last slot whose batch is in it.
        data: The bytes.
        chunk: Bytes of each chunk.
    """

    def __init__(self, seq: int, data: bytes, chunk: int) -> None:
        self.seq = seq
        self.data = data
        self._chunk = chunk
        chunks = [data[i : i + chunk] for i in range(0, len(data), chunk)]
        self.hashes = b"".join(hashlib.sha256(part).digest() for part in chunks)
        self.digest = digest("state", self.hashes)

    def part(self, index: int) -> bytes:
        """Return a chunk, or the list of their hashes for -1."""
        return (
            self.hashes if index < 0 else self.data[index * self._chunk : (index + 1) * self._chunk]
        )


class Checkpoints:
    """This replica's snapshots, and what others say of theirs."""

    def __init__(self, group: Group, settings: Settings, genesis: Snapshot) -> None:
        self._group = group
        self._settings = settings
        self.stable = genesis
        self._own: dict[int, Snapshot] = {genesis.seq: genesis}
        self._served: dict[tuple[int, bytes], Snapshot] = {(0, genesis.digest): genesis}
        self._votes: dict[str, dict[int, bytes]] = {}

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot of this replica's state, which may still be undone."""
        self._own[snapshot.seq] = snapshot

    def undo(self, final: int) -> None:
        """Drop the snapshots after `final`."""
        for seq in [seq for seq in self._own if seq > final]:
            del self._own[seq]

    def own(self, seq: int) -> Snapshot | None:
        """Return this replica's snapshot after `seq`."""
        return self._own.get(seq)

    def until(self, final: int) -> list[Snapshot]:
        """Return this replica's snapshots from the stable one to `final`."""
        return [self._own[seq] for seq in sorted(self._own) if seq <= final]

    def vote(self, replica: str, seq: int, digest: bytes) -> None:
        """Note what a replica says; of each only the last few count."""
        votes = self._votes.setdefault(replica, {})
        if seq > self.stable.seq:
            votes.setdefault(seq, digest)
            if len(votes) > _VOTES:
                del votes[min(votes)]

    def agreed(self, least: int) -> list[Checkpoint]:
        """Return the checkpoints for which at least `least` replicas voted, in order."""
        counts = Counter(vote for votes in self._votes.values() for vote in votes.items())
        return [Checkpoint(*vote) for vote in sorted(counts) if counts[vote] >= least]

    def settle(self, snapshot: Snapshot) -> None:
        """Take a snapshot as the last stable one."""
        self.stable = snapshot
        self._own = {seq: own for seq, own in self._own.items() if seq > snapshot.seq}
        self._own[snapshot.seq] = snapshot
        self._served[snapshot.seq, snapshot.digest] = snapshot
        while len(self._served) > _HELD:
            del self._served[min(self._served)]
        for votes in self._votes.values():
            for seq in [seq for seq in votes if seq <= snapshot.seq]:
                del votes[seq]

    def serve(self, wanted: FetchState) -> StatePart | None:
        """Return part of a state, if it is here."""
        snapshot = self._served.get((wanted.seq, wanted.digest)) or self._own.get(wanted.seq)
        if snapshot is None or snapshot.digest != wanted.digest:
            return None
        data = snapshot.part(wanted.index)
        return StatePart(wanted.seq, wanted.digest, wanted.index, data)


class Transfer:
    """Getting the state at a checkpoint from others.

    Args:
        target: What f + 1 replicas say it is, so that one correct replica has it.
        settings: Sizes.
        now: The time.
    """

    def __init__(self, target: Checkpoint, settings: Settings, now: float) -> None:
        self.target = target
        self._settings = settings
        self.too_large = False
        """Whether the state has more bytes than the settings allow: nothing of it is asked for."""
        self._heard = now
        self._asked: set[int] = set()
        self._hashes: bytes | None = None
        self._parts: dict[int, bytes] = {}

    def wanted(self) -> list[FetchState]:
        """Return what is to be asked for next."""
        target = self.target
        if self.too_large:
            wanted = []
        elif self._hashes is None:
            wanted = [-1]
        else:
            wanted = [i for i in range(self._count) if i not in self._parts][:_PARALLEL]
        self._asked = set(wanted)
        return [FetchState(target.seq, target.digest, i) for i in wanted]

    @property
    def idle(self) -> bool:
        """Whether all that was asked for has come."""
        return not self._asked

    def stuck(self, now: float) -> bool:
        """Return whether nothing new has come for long: others may not have that state any more."""
        return now > self._heard + 2 * self._settings.longest_resend

    @property
    def _count(self) -> int:
        return len(self._hashes or b"") // 32

    def take(self, part: StatePart, now: float) -> bool:
        """Take a part that came; return whether it is what was asked for."""
        if (part.seq, part.digest) != (self.target.seq, self.target.digest):
            return False
        if part.index < 0:
            if len(part.data) % 32 or digest("state", part.data) != part.digest:
                return False
            self._arrived(part.index, now, new=self._hashes is None and not self.too_large)
            most = self._settings.max_state // self._settings.chunk + 1
            self.too_large = len(part.data) > 32 * most
            self._hashes = None if self.too_large else part.data
            return True
        if self._hashes is None or part.index >= self._count:
            return False
        if hashlib.sha256(part.data).digest() != self._hashes[32 * part.index :][:32]:
            return False
        self._arrived(part.index, now, new=part.index not in self._parts)
        self._parts[part.index] = part.data
        return True

    def _arrived(self, index: int, now: float, *, new: bool) -> None:
        self._asked.discard(index)
        if new:
            self._heard = now

    def done(self) -> Snapshot | None:
        """Return the state when all of it is here."""
        if self._hashes is None or len(self._parts) < self._count:
            return None
        data = b"".join(self._parts[i] for i in range(self._count))
        return Snapshot(self.target.seq, data, self._settings.chunk)
