"""Requests that have come in and are not executed yet, and those whose signatures were checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from state.pbft.authentication import Authenticator, valid
from state.pbft.events import Settings
from state.pbft.messages import Batch, Request
from state.pbft.sessions import Sessions

_CHECKED = 20_000
"""Requests whose signature need not be checked again, at most."""
_CHECKED_BYTES = 64 << 20
"""Bytes of their operations, at most, unless a single one has more."""
_HELD_BYTES = 64 << 20
"""Bytes of one client's requests that wait, at most, unless a single one has more."""

Key = tuple[str, int]


class Requests:
    """The requests that this replica holds, in the order in which they came."""

    def __init__(
        self, keys: Authenticator, settings: Settings, clients: Collection[str] | None
    ) -> None:
        self._keys = keys
        self._settings = settings
        self._clients = None if clients is None else frozenset(clients)
        self._checked: dict[Key, tuple[Request, int]] = {}
        self._checked_bytes = 0
        self._held: dict[Key, tuple[Request, float]] = {}
        self._by_client: dict[str, dict[int, int]] = {}
        """The numbers of each client's requests that are held, and their bytes."""
        self._bytes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Request]:
        return iter([request for request, _ in self._held.values()])

    def fault(self, request: Request) -> str | None:
        """Return why a request cannot be accepted by anyone, or None if it can."""
        key = (request.client, request.number)
        checked = self._checked.get(key)
        if checked is not None and checked[0] == request:
            return None
        if self._clients is not None and request.client not in self._clients:
            return f"{request.client!r} may not submit requests"
        if request.low > request.number:
            return f"request {request.number} of {request.client!r} is below what it calls answered"
        size = sum(map(len, request.operations))
        if size > self._settings.max_request:
            return f"request {request.number} of {request.client!r} is too large"
        if not valid(self._keys, request.client, request):
            return f"request {request.number} of {request.client!r} has no valid signature"
        self._forget(key)
        self._checked[key] = (request, size)
        self._checked_bytes += size
        while len(self._checked) > _CHECKED or (
            self._checked_bytes > _CHECKED_BYTES and len(self._checked) > 1
        ):
            self._forget(next(iter(self._checked)))
        return None

    def _forget(self, key: Key) -> None:
        checked = self._checked.pop(key, None)
        if checked is not None:
            self._checked_bytes -= checked[1]

    def held(self, request: Request) -> bool:
        """Return whether a request of this number is held."""
        return (request.client, request.number) in self._held

    def hold(self, request: Request, now: float) -> bool:
        """Keep a request until it is executed; return whether there is room."""
        key = (request.client, request.number)
        held = self._by_client.get(request.client, {})
        size = sum(map(len, request.operations))
        if len(held) >= self._settings.max_waiting or (
            held and self._bytes[request.client] + size > _HELD_BYTES
        ):
            return False
        self._held[key] = (request, now)
        self._by_client.setdefault(request.client, held)[request.number] = size
        self._bytes[request.client] = self._bytes.get(request.client, 0) + size
        return True

    def executed(self, batch: Batch) -> None:
        """Let go of the requests of a batch, and of what they say has been answered."""
        low: dict[str, int] = {}
        for request in batch.requests:
            self._drop((request.client, request.number))
            low[request.client] = max(request.low, low.get(request.client, 1))
        for client, least in low.items():
            # Else one that its client gave to some replicas only would be waited for in vain.
            for number in [n for n in self._by_client.get(client, ()) if n < least]:
                self._drop((client, number))

    def _drop(self, key: Key) -> None:
        self._forget(key)
        if self._held.pop(key, None) is not None:
            held = self._by_client[key[0]]
            self._bytes[key[0]] -= held.pop(key[1])
            if not held:
                del self._by_client[key[0]], self._bytes[key[0]]

    def clear(self, sessions: Sessions) -> None:
        """Let go of all that have been executed."""
        for key in [key for key in self._held if sessions.over(*key)]:
            self._drop(key)

    def since(self) -> float:
        """Return since when the oldest waits; infinity if none does."""
        return next((at for _, at in self._held.values()), float("inf"))

    def reset(self, now: float) -> None:
        """Count waiting anew: a new primary has its own time."""
        self._held = {key: (request, now) for key, (request, _) in self._held.items()}
