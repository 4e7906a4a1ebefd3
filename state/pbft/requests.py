"""Requests that have come in and are not executed yet, and those whose signatures were checked."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from state.pbft.authentication import Authenticator, valid
from state.pbft.events import Settings
from state.pbft.messages import Request
from state.pbft.sessions import Sessions

_CHECKED = 20_000
"""Requests whose signature need not be checked again, at most."""

Key = tuple[str, int]


class Requests:
    """The requests that this replica holds, in the order in which they came."""

    def __init__(
        self, keys: Authenticator, settings: Settings, clients: Collection[str] | None
    ) -> None:
        self._keys = keys
        self._settings = settings
        self._clients = None if clients is None else frozenset(clients)
        self._checked: dict[Key, Request] = {}
        self._held: dict[Key, tuple[Request, float]] = {}
        self._by_client: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Request]:
        return iter([request for request, _ in self._held.values()])

    def fault(self, request: Request) -> str | None:
        """Return why a request cannot be accepted by anyone, or None if it can."""
        key = (request.client, request.number)
        if self._checked.get(key) == request:
            return None
        if self._clients is not None and request.client not in self._clients:
            return f"{request.client!r} may not submit requests"
        if request.low > request.number:
            return f"request {request.number} of {request.client!r} is below what it calls answered"
        if sum(map(len, request.operations)) > self._settings.max_request:
            return f"request {request.number} of {request.client!r} is too large"
        if not valid(self._keys, request.client, request):
            return f"request {request.number} of {request.client!r} has no valid signature"
        while len(self._checked) >= _CHECKED:
            del self._checked[next(iter(self._checked))]
        self._checked[key] = request
        return None

    def held(self, request: Request) -> bool:
        """Return whether a request of this number is held."""
        return (request.client, request.number) in self._held

    def hold(self, request: Request, now: float) -> bool:
        """Keep a request until it is executed; return whether there is room."""
        key = (request.client, request.number)
        held = self._by_client.get(request.client, 0)
        if held >= self._settings.max_waiting:
            return False
        self._held[key] = (request, now)
        self._by_client[request.client] = held + 1
        return True

    def drop(self, key: Key) -> None:
        """Let go of a request that was executed."""
        if self._held.pop(key, None) is not None:
            left = self._by_client[key[0]] - 1
            if left:
                self._by_client[key[0]] = left
            else:
                del self._by_client[key[0]]

    def clear(self, sessions: Sessions) -> None:
        """Let go of all that have been executed."""
        for key in [key for key in self._held if sessions.over(*key)]:
            self.drop(key)

    def since(self) -> float:
        """Return since when the oldest waits; infinity if none does."""
        return next((at for _, at in self._held.values()), float("inf"))

    def reset(self, now: float) -> None:
        """Count waiting anew: a new primary has its own time."""
        self._held = {key: (request, now) for key, (request, _) in self._held.items()}
