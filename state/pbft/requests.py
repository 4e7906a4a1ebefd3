"""Requests that have come in and are not executed yet, and those whose signatures were checked.

A backup that holds a request gives up on a primary that does not execute it. So a primary must have
room for whatever a correct backup holds, or a client that tells each of them something else could
have them change views for ever. It has: `low` and `max_waiting` leave each client so many numbers,
and by a request a client takes back all below its `low`. Say the highest `low` that the primary
holds of a client is L. Then it holds numbers of [L, L + `max_waiting`), each once. A backup's
request with a number of L or more is one of these, or can be held besides; and one below L is let
go of at the backup, too, when what named L is executed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import takewhile

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
        self._queue: dict[str, dict[int, Request]] = {}
        """What a primary has not proposed in its view, of those that are held."""
        self._low: dict[str, int] = {}
        """The highest `low` in each client's requests that are held."""

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
        if request.number >= request.low + self._settings.max_waiting:
            return f"request {request.number} of {request.client!r} is too far ahead"
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

    def answered(self, request: Request) -> bool:
        """Return whether its client says, in one that is held, that it has been answered."""
        return request.number < self._low.get(request.client, 1)

    def hold(self, request: Request, now: float) -> bool:
        """Keep a request until it is executed; return whether there is room.

        Those that its client says have been answered are let go of.
        """
        client, number = request.client, request.number
        self._forgo(client, request.low)
        held = self._by_client.get(client, {})
        size = sum(map(len, request.operations))
        if held and self._bytes[client] + size > _HELD_BYTES:
            return False
        self._held[client, number] = (request, now)
        self._by_client.setdefault(client, held)[number] = size
        self._bytes[client] = self._bytes.get(client, 0) + size
        self._low[client] = max(request.low, self._low.get(client, 1))
        return True

    def _forgo(self, client: str, low: int) -> None:
        low = max(low, self._low.get(client, 1))
        numbers = self._by_client.get(client, {})
        # A correct client's are in their order.
        for number in list(takewhile(low.__gt__, numbers)):
            self._drop((client, number))
        if len(numbers) >= self._settings.max_waiting:
            for number in [each for each in numbers if each < low]:
                self._drop((client, number))

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
            self._unqueue(*key)
            held = self._by_client[key[0]]
            self._bytes[key[0]] -= held.pop(key[1])
            if not held:
                del self._by_client[key[0]], self._bytes[key[0]], self._low[key[0]]

    def clear(self, sessions: Sessions) -> None:
        """Let go of all that have been executed."""
        for key in [key for key in self._held if sessions.over(*key)]:
            self._drop(key)

    # -- the primary's ----------------------------------------------------------------------------

    def enqueue(self, request: Request) -> None:
        """Have a request that is held proposed when its turn comes."""
        self._queue.setdefault(request.client, {}).setdefault(request.number, request)

    @property
    def queued(self) -> bool:
        """Whether anything is to be proposed."""
        return bool(self._queue)

    def next_batch(self) -> list[Request]:
        """Take what is to be proposed next, of each client in turn: none keeps others waiting."""
        settings, batch = self._settings, list[Request]()
        operations = size = 0
        while self._queue:
            client, waiting = next(iter(self._queue.items()))
            number, request = next(iter(waiting.items()))
            operations += len(request.operations)
            size += sum(map(len, request.operations))
            if batch and (operations > settings.batch_operations or size > settings.batch_bytes):
                break
            batch.append(request)
            self._unqueue(client, number)
            if waiting:
                self._queue[client] = self._queue.pop(client)
        return batch

    def unqueue_all(self) -> None:
        """Have nothing proposed: this replica does not lead."""
        self._queue.clear()

    def _unqueue(self, client: str, number: int) -> None:
        waiting = self._queue.get(client)
        if waiting is not None and waiting.pop(number, None) is not None and not waiting:
            del self._queue[client]

    # -- time -------------------------------------------------------------------------------------

    def older(self, than: float) -> Iterator[Request]:
        """Return those that have waited since `than` or longer, in their order."""
        return (request for request, at in takewhile(lambda e: e[1] <= than, self._held.values()))

    def since(self) -> float:
        """Return since when the oldest waits; infinity if none does."""
        return next((at for _, at in self._held.values()), float("inf"))

    def reset(self, now: float) -> None:
        """Count waiting anew: a new primary has its own time."""
        self._held = {key: (request, now) for key, (request, _) in self._held.items()}
