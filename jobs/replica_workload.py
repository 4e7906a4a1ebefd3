"""What the clients of a local group ask for, and whether the answers make sense.

A *lane* is a generator that yields the operations of one request and is sent their results: one
request after the other, each made from the answers to those before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator

from state.pbft.machines import FencedResource, StaleToken, locks, store

Lane = Generator[list[bytes], list[bytes], None]

_KEYS = 20
_LEASE_MS = 3000


class Unanswered(Exception):
    """A request got no answer in time."""


class WrongAnswer(Exception):
    """A client was told what cannot be."""


class StoreWorkload:
    """Clients that write and read keys of their own, and count together on one.

    Args:
        batch: Operations of one request.
    """

    def __init__(self, batch: int = 1) -> None:
        self.counted = 0
        """How often any has counted."""
        self._batch = batch

    def lane(self, name: str, chance: random.Random) -> Lane:
        """Yield requests without an end; raise :class:`WrongAnswer` at the first that is wrong."""
        mine: dict[bytes, bytes] = {}
        count: bytes | None = None
        turn = 0
        while True:
            turn += 1
            if turn % 4 == 0:
                count = yield from self._count(count)
                continue
            asked: list[store.StoreOperation] = []
            due: list[store.StoreResult] = []
            for _ in range(self._batch):
                key = f"{name}/{chance.randrange(_KEYS)}".encode()
                if chance.random() < 0.5:
                    mine[key] = str(turn).encode()
                    asked.append(store.Put(key, mine[key]))
                    due.append(store.Written(True))
                else:
                    asked.append(store.Get(key))
                    due.append(store.Found(mine.get(key)))
            found = [store.result(data) for data in (yield [store.operation(x) for x in asked])]
            if found != due:
                raise WrongAnswer(f"{name}: {asked} was answered {found}, not {due}")

    def _count(self, count: bytes | None) -> Generator[list[bytes], list[bytes], bytes | None]:
        after = str(int(count or 0) + 1).encode()
        (data,) = yield [store.operation(store.CompareAndSet(b"count", count, after))]
        found = store.result(data)
        if not isinstance(found, store.Written):
            raise WrongAnswer(f"to count from {count!r} was answered {found}")
        self.counted += found.done
        return after if found.done else found.value


class LocksWorkload:
    """Clients that take turns with a lock, and use what it protects."""

    def __init__(self, batch: int = 1) -> None:
        self.granted = 0
        """How often any was given a lock."""
        self.refused = 0
        """How often a holder whose lease had ended was kept from what the lock protects."""
        self._resource = FencedResource()
        self._tokens: set[int] = set()

    def lane(self, name: str, chance: random.Random) -> Lane:
        """Yield requests without an end; raise :class:`WrongAnswer` at the first that is wrong."""
        while True:
            (data,) = yield [locks.operation(locks.Acquire("turn", _LEASE_MS))]
            found = locks.result(data)
            if isinstance(found, locks.Held):
                continue
            if not isinstance(found, locks.Granted) or found.token in self._tokens:
                raise WrongAnswer(f"{name}: to acquire was answered {found}")
            self._tokens.add(found.token)
            self.granted += 1
            token = found.token
            try:
                for _ in range(chance.randrange(3)):
                    self._resource.admit(token)
                    (data,) = yield [locks.operation(locks.Renew("turn", token, _LEASE_MS))]
                    if isinstance(locks.result(data), locks.Lost):
                        break
                self._resource.admit(token)
            except StaleToken:
                self.refused += 1
            (data,) = yield [locks.operation(locks.Release("turn", token))]
            if not isinstance(locks.result(data), locks.Released | locks.Lost):
                raise WrongAnswer(f"{name}: to release was answered {locks.result(data)}")


WORKLOADS: dict[str, Callable[[int], StoreWorkload | LocksWorkload]] = {
    "store": StoreWorkload,
    "locks": LocksWorkload,
}
"""By the machine's name."""
