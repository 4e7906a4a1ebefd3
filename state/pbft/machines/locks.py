"""A lock service with leases and fencing tokens as a replicated state machine.

A lock is granted for a time, its *lease* (Gray and Cheriton, "Leases", SOSP 1989), so that a holder
that dies does not hold it for ever. Time is the agreed time that operations carry: every replica
expires a lease at the same operation, and it never runs backwards.

A lease does not exclude. A holder may be paused, or its clock may be wrong, and it then goes on
after its lease has ended while another holds the lock; no choice of times helps, since a message
of the old holder may also be delayed on its way. So each grant comes with a *fencing token*, a
number greater than all that this service has granted before, and the resource refuses what carries
a lower one than it has seen (:class:`FencedResource`; Kleppmann, "How to do distributed locking",
2016). What the resource admits is thus in the order of the grants, whatever clocks say: between
two writes of one holder there is none of another. Clocks decide only how soon a lock that was not
released is granted again.

    acquire   granted with a new token unless somebody holds the lock, be it the same client
    renew     the lease is as long as asked for, from now on; the token stays
    release   the lock is free
    inspect   who holds it, under which token, until when

Only the holder can renew and release, and only with its token. A lease that has ended stays so:
to renew or release it is refused even if nobody has acquired the lock since, because somebody may
have seen it free. Its holder acquires again, and gets a greater token.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from state.pbft.machine import Operation

MAX_NAME: Final = 200
MAX_TTL_MS: Final = 24 * 3600 * 1000
MAX_LOCKS: Final = 100_000
"""Locks that are held at a time."""
_VERSION = 1
_MAX = (1 << 62) - 1

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Time = Annotated[int, msgspec.Meta(ge=0, le=_MAX)]
Duration = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)]
Token = Annotated[int, msgspec.Meta(ge=1, le=_MAX)]


class _Form(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Acquire(_Form, frozen=True, tag=1):
    """Ask for a lock: :class:`Granted` or :class:`Held`."""

    name: Name
    ttl_ms: Duration


class Renew(_Form, frozen=True, tag=2):
    """Ask for a lease of this length from now on: :class:`Granted` or :class:`Lost`."""

    name: Name
    token: Token
    ttl_ms: Duration


class Release(_Form, frozen=True, tag=3):
    """Give a lock back: :class:`Released` or :class:`Lost`."""

    name: Name
    token: Token


class Inspect(_Form, frozen=True, tag=4):
    """Ask who holds a lock: :class:`Held` or :class:`Free`."""

    name: Name


class Granted(_Form, frozen=True, tag=1):
    """The client holds the lock until the agreed time `expires_ms`."""

    token: int
    expires_ms: int


class Held(_Form, frozen=True, tag=2):
    """A client holds the lock, perhaps the one that asks."""

    holder: str
    token: int
    expires_ms: int


class Released(_Form, frozen=True, tag=3):
    """The client held the lock, and holds it no more."""


class Lost(_Form, frozen=True, tag=4):
    """The client does not hold the lock under this token: released, expired or never granted."""


class Free(_Form, frozen=True, tag=5):
    """Nobody holds the lock."""


class Refused(_Form, frozen=True, tag=6):
    """The operation makes no sense or has no room, and changed nothing."""

    reason: str


LockOperation = Acquire | Renew | Release | Inspect
LockResult = Granted | Held | Released | Lost | Free | Refused


class _Lease(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: Name
    holder: Annotated[str, msgspec.Meta(min_length=1)]
    token: Token
    expires_ms: Annotated[int, msgspec.Meta(ge=1, le=_MAX + MAX_TTL_MS)]


_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[LockOperation] = msgspec.msgpack.Decoder(LockOperation)
_results: msgspec.msgpack.Decoder[LockResult] = msgspec.msgpack.Decoder(LockResult)
_snapshots = msgspec.msgpack.Decoder(tuple[int, Time, Time, list[_Lease]])
_MALFORMED = Refused("this is no operation of a lock service")
_FULL = Refused("too many locks are held")
_RELEASED, _LOST, _FREE = Released(), Lost(), Free()


def operation(asked: LockOperation) -> bytes:
    """Return the bytes to submit."""
    return _encoder.encode(asked)


def result(data: bytes) -> LockResult:
    """Return what the bytes of a result say.

    Raises:
        ValueError: they are none of a lock service.
    """
    try:
        return _results.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no result of a lock service: {error}") from None


class Locks:
    """Locks by name, each free or held by one client.

    Args:
        max_locks: held at a time; the same at all replicas.

    >>> locks = Locks()
    >>> def ask(client: str, time_ms: int, asked: LockOperation) -> LockResult:
    ...     return result(locks.apply([Operation(client, operation(asked), time_ms)])[0])
    >>> ask("ann", 1000, Acquire("leader", 500))
    Granted(token=1, expires_ms=1500)
    >>> ask("bob", 1499, Acquire("leader", 500))
    Held(holder='ann', token=1, expires_ms=1500)
    >>> ask("bob", 1500, Acquire("leader", 500))
    Granted(token=2, expires_ms=2000)
    >>> ask("ann", 1600, Renew("leader", 1, 500))
    Lost()
    """

    def __init__(self, *, max_locks: int = MAX_LOCKS) -> None:
        self._max_locks = max_locks
        self._now = 0
        self._token = 0
        self._leases: dict[str, _Lease] = {}  # those that have not ended at `_now`
        self._ends: list[tuple[int, str]] = []  # a heap: every lease ends there or later

    def __len__(self) -> int:
        return len(self._leases)

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        """Carry out operations; see :class:`~state.pbft.machine.StateMachine`."""
        return [_encoder.encode(self._carry_out(each)) for each in batch]

    def snapshot(self) -> bytes:
        """Return time, the last token, and the leases in the order of their names."""
        leases = [self._leases[name] for name in sorted(self._leases)]
        return _encoder.encode((_VERSION, self._now, self._token, leases))

    def restore(self, snapshot: bytes) -> None:
        """Take over a snapshot's state.

        Raises:
            ValueError: it is none, or none that `snapshot` would write; nothing has changed.
        """
        try:
            version, now, token, leases = _snapshots.decode(snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no snapshot of a lock service: {error}") from None
        if version != _VERSION:
            raise ValueError(f"a lock service's snapshot of version {version}; this is {_VERSION}")
        names = [lease.name for lease in leases]
        if any(a >= b for a, b in pairwise(names)):
            raise ValueError("a lock service's snapshot whose locks are not in order")
        if len({lease.token for lease in leases}) != len(leases):
            raise ValueError("a lock service's snapshot with a token that was granted twice")
        for lease in leases:
            if lease.token > token or not now < lease.expires_ms <= now + MAX_TTL_MS:
                raise ValueError(f"a lock service's snapshot with an impossible lease: {lease}")
        if len(leases) > self._max_locks:
            raise ValueError(f"{len(leases)} locks are held; at most {self._max_locks} can be")
        if _encoder.encode((version, now, token, leases)) != snapshot:
            raise ValueError("a lock service's snapshot in another form than it is written in")
        self._now, self._token = now, token
        self._leases = {lease.name: lease for lease in leases}
        self._sort_ends()

    def _carry_out(self, asking: Operation) -> LockResult:
        self._expire(asking.time_ms)
        try:
            asked = _operations.decode(asking.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _MALFORMED
        lease = self._leases.get(asked.name)
        match asked:
            case Acquire(name, ttl_ms):
                if lease is not None:
                    return Held(lease.holder, lease.token, lease.expires_ms)
                if len(self._leases) >= self._max_locks:
                    return _FULL
                self._token += 1
                return self._grant(name, asking.client, self._token, ttl_ms)
            case Inspect():
                if lease is not None:
                    return Held(lease.holder, lease.token, lease.expires_ms)
                return _FREE
            case Renew() | Release():
                if lease is None or (lease.holder, lease.token) != (asking.client, asked.token):
                    return _LOST
                if isinstance(asked, Renew):
                    return self._grant(lease.name, lease.holder, lease.token, asked.ttl_ms)
                del self._leases[lease.name]
                return _RELEASED

    def _grant(self, name: str, holder: str, token: int, ttl_ms: int) -> Granted:
        lease = _Lease(name, holder, token, self._now + ttl_ms)
        self._leases[name] = lease
        heapq.heappush(self._ends, (lease.expires_ms, name))
        if len(self._ends) > 2 * len(self._leases) + 64:
            self._sort_ends()
        return Granted(token, lease.expires_ms)

    def _expire(self, time_ms: int) -> None:
        self._now = max(self._now, time_ms)
        while self._ends and self._ends[0][0] <= self._now:
            _, name = heapq.heappop(self._ends)
            lease = self._leases.get(name)
            if lease is not None and lease.expires_ms <= self._now:
                del self._leases[name]

    def _sort_ends(self) -> None:
        self._ends = sorted((lease.expires_ms, lease.name) for lease in self._leases.values())


class StaleToken(Exception):
    """What a holder asked of a resource came too late: the lock has been granted since."""


class FencedResource:
    """What a resource that a lock protects has to do: refuse whoever held the lock before.

    It knows no clock and does not ask the lock service. `greatest` belongs to what it protects:
    both are written together, or a restart would forget whom to refuse.

    Args:
        greatest: the greatest token that it has seen in earlier lives.

    >>> resource = FencedResource()
    >>> for token in (33, 33, 34):
    ...     resource.admit(token)
    >>> resource.admit(33)
    Traceback (most recent call last):
        ...
    state.pbft.machines.locks.StaleToken: token 33 is stale: 34 has been seen
    """

    def __init__(self, greatest: int = 0) -> None:
        self.greatest = greatest

    def admit(self, token: int) -> None:
        """Let the holder of a token do what it asks for, right now and at once.

        Raises:
            StaleToken: a greater one has been seen; nothing may be done.
        """
        if token < self.greatest:
            raise StaleToken(f"token {token} is stale: {self.greatest} has been seen")
        self.greatest = token
