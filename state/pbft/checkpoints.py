"""Checkpoints: states that a quorum shares, and getting one from others when too far behind.

A state is cut into chunks (:mod:`state.pbft.chunks`); its digest is of its length and the list of
their hashes, so that each chunk can be checked when it comes, whoever sent it, and need not come if
it is in a state that is here.

A large state takes longer than others keep it, where they go on meanwhile. Then the replica begins
to get a later one, and has of that what it has in common with what has come. So it gets there as
long as a chunk comes sooner than one changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Final

from state.pbft.chunks import cuts
from state.pbft.events import Settings
from state.pbft.group import Group
from state.pbft.messages import Checkpoint, FetchState, StatePart, digest

_VOTES = 8
"""Checkpoints of one replica whose votes are kept."""
_HELD = 3
"""States kept for others beside those that are not stable yet."""
_PARALLEL = 8
"""Chunks asked for at a time."""
_LENGTH: Final = 8
_HASH: Final = 32

Bytes = bytes | memoryview


class Snapshot:
    """A state as bytes, in chunks.

    Args:
        seq: The last slot whose batch is in it.
        data: The bytes.
        chunk: Bytes of each chunk, at most.
    """

    def __init__(self, seq: int, data: bytes, chunk: int) -> None:
        self.seq = seq
        self.data = data
        self._cuts = [0, *cuts(data, chunk)]
        self._hashes = [sha256(each).digest() for each in self._chunks()]
        self.contents = len(data).to_bytes(_LENGTH, "big") + b"".join(self._hashes)
        """How long it is, and the hash of each chunk."""
        self.digest = digest("state", self.contents)

    def part(self, index: int) -> bytes:
        """Return a chunk, empty if there is none, or the contents for -1."""
        if index < 0:
            return self.contents
        start, *end = self._cuts[index : index + 2] or [0]
        return self.data[start : end[0]] if end else b""

    def by_hash(self) -> dict[bytes, Bytes]:
        """Return the chunks by their hashes."""
        return dict(zip(self._hashes, self._chunks(), strict=True))

    def _chunks(self) -> Iterator[memoryview]:
        view = memoryview(self.data)
        return (view[start:end] for start, end in pairwise(self._cuts))


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
        here: Chunks that are here, by their hashes: these are not asked for.
    """

    def __init__(
        self,
        target: Checkpoint,
        settings: Settings,
        now: float,
        here: Mapping[bytes, Bytes] | None = None,
    ) -> None:
        self.target = target
        self._settings = settings
        self.too_large = False
        """Whether the state has more bytes than the settings allow: nothing of it is asked for."""
        self._heard = now
        self._asked: set[int] = set()
        """What was asked for and has not come."""
        self._ahead = 0
        """The first chunk that was not asked for."""
        self._here = here or {}
        self._hashes: list[bytes] | None = None
        self._parts: dict[int, Bytes] = {}

    def wanted(self) -> list[FetchState]:
        """Return what is to be asked for, or asked for again."""
        if self._hashes is None and not self.too_large:
            self._asked.add(-1)
        while self._ask() is not None:
            pass
        return [self._fetch(i) for i in sorted(self._asked)]

    def next(self) -> FetchState | None:
        """Return what is to be asked of who has just answered, if anything is."""
        index = self._ask()
        return None if index is None else self._fetch(index)

    def _ask(self) -> int | None:
        """Choose a chunk that was not asked for, if not too many are asked for already."""
        count = len(self._hashes or ())
        while self._ahead < count and self._ahead in self._parts:
            self._ahead += 1
        if self._ahead == count or len(self._asked) >= _PARALLEL:
            return None
        self._asked.add(self._ahead)
        self._ahead += 1
        return self._ahead - 1

    def _fetch(self, index: int) -> FetchState:
        return FetchState(self.target.seq, self.target.digest, index)

    @property
    def idle(self) -> bool:
        """Whether all that was asked for has come."""
        return not self._asked

    def gives_way(self, to: Checkpoint, now: float) -> bool:
        """Return whether to get a later state instead, for others may not have this any more.

        They do not keep it so long, or nothing new has come for long.
        """
        later = to.seq - self.target.seq
        stuck = now > self._heard + 2 * self._settings.longest_resend
        gone = later >= _HELD * self._settings.checkpoint and not self.too_large
        return gone or (later > 0 and stuck)

    def by_hash(self) -> dict[bytes, Bytes]:
        """Return the chunks that have come, or were here, by their hashes."""
        if self._hashes is None:
            return dict(self._here)
        return {self._hashes[i]: part for i, part in self._parts.items()}

    def take(self, part: StatePart, now: float) -> bool:
        """Take a part that came; return whether it is what was asked for."""
        if (part.seq, part.digest) != (self.target.seq, self.target.digest):
            return False
        if part.index < 0:
            return self._take_contents(part, now)
        hashes = self._hashes
        if hashes is None or part.index >= len(hashes):
            return False
        if sha256(part.data).digest() != hashes[part.index]:
            return False
        self._arrived(part.index, now, new=part.index not in self._parts)
        self._parts[part.index] = part.data
        return True

    def _take_contents(self, part: StatePart, now: float) -> bool:
        if digest("state", part.data) != part.digest or len(part.data) % _HASH != _LENGTH:
            return False
        self._arrived(part.index, now, new=self._hashes is None and not self.too_large)
        self.too_large = int.from_bytes(part.data[:_LENGTH], "big") > self._settings.max_state
        if self._hashes is None and not self.too_large:
            places = range(_LENGTH, len(part.data), _HASH)
            self._hashes = [part.data[at : at + _HASH] for at in places]
            here, self._here = self._here, {}
            self._parts = {i: here[key] for i, key in enumerate(self._hashes) if key in here}
        return True

    def _arrived(self, index: int, now: float, *, new: bool) -> None:
        self._asked.discard(index)
        if new:
            self._heard = now

    def done(self) -> Snapshot | None:
        """Return the state when all of it is here."""
        if self._hashes is None or len(self._parts) < len(self._hashes):
            return None
        data = b"".join(self._parts[i] for i in range(len(self._hashes)))
        return Snapshot(self.target.seq, data, self._settings.chunk)
