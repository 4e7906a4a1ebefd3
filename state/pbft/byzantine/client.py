"""Clients that lie, with their own keys and nobody else's."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec.structs import replace

from state.pbft.authentication import Authenticator, close, sign
from state.pbft.events import Send, Settings
from state.pbft.group import Group
from state.pbft.messages import (
    NULL_DIGEST,
    AnyMessage,
    Commit,
    PrePrepare,
    Request,
    Status,
)

_LAST: Final = (1 << 62) - 1
_REMEMBERED: Final = 50


class LyingClient:
    """A client that does what a correct one never does; it has no use for answers.

        contradict   other operations under one number for each replica
        reuse        other operations under an old number
        skip         numbers ahead of what it may have under way, or as large as they get
        hide         a request that only some replicas get
        flood        more at once than it may have under way, others for each replica
        forge        requests in the name of others, and without a signature that is one
        interfere    what only replicas say, and bytes that mean nothing
        repeat       what it has said before

    Args:
        group: Whom it tells.
        keys: Its own.
        rng: Of all its chance.
        settings: The replicas'.
        victims: In whose name it makes up requests.
    """

    def __init__(
        self,
        group: Group,
        keys: Authenticator,
        rng: random.Random,
        settings: Settings,
        victims: Sequence[str],
    ) -> None:
        self.name = keys.name
        self.signed: list[Request] = []
        """What it has signed in its own name; whoever reads it may empty it."""
        self._said: deque[Request] = deque(maxlen=_REMEMBERED)
        self._group = group
        self._keys = keys
        self._rng = rng
        self._settings = settings
        self._victims = victims
        self._next = 1
        self._low = 1
        self._out: defaultdict[str, list[AnyMessage]] = defaultdict(list)

    def lie(self) -> list[Send]:
        """Return what it says next, and to whom."""
        lies: list[tuple[Callable[[], None], int]] = [
            (self._contradict, 6), (self._reuse, 3), (self._skip, 3), (self._hide, 4),
            (self._flood, 1), (self._forge, 2), (self._interfere, 1), (self._repeat, 2),
        ]  # fmt: skip
        chosen = self._rng.choices([lie for lie, _ in lies], [weight for _, weight in lies])[0]
        chosen()
        out, self._out = self._out, defaultdict(list)
        return [Send(to, close(self._keys, to, said)) for to, said in out.items()]

    def _some(self) -> list[str]:
        replicas = self._group.replicas
        return self._rng.sample(replicas, self._rng.randint(1, len(replicas)))

    def _request(self, number: int) -> Request:
        rng = self._rng
        low = rng.choice([1, min(self._low, number), number])
        request = Request(self.name, number, low, [rng.choice([b"?", b"!"]) + rng.randbytes(3)])
        request = replace(request, signature=sign(self._keys, request))
        self.signed.append(request)
        self._said.append(request)
        return request

    def _fresh(self) -> int:
        number = self._next
        self._next = min(number + 1, _LAST)
        if self._rng.random() < 0.3:
            self._low = number
        return number

    def _contradict(self) -> None:
        number = self._fresh()
        for to in self._some():
            self._out[to].append(self._request(number))

    def _reuse(self) -> None:
        request = self._request(self._rng.randint(max(1, self._next - 8), self._next))
        for to in self._some():
            self._out[to].append(request)

    def _skip(self) -> None:
        far = self._rng.choice([2, self._settings.max_waiting, 1 << 40, _LAST])
        request = self._request(min(self._next + self._rng.randint(1, far), _LAST))
        if self._rng.random() < 0.3:
            self._next = min(request.number + 1, _LAST)
        for to in self._some():
            self._out[to].append(request)

    def _hide(self) -> None:
        request = self._request(self._fresh())
        for to in self._some()[:-1] or self._rng.sample(self._group.replicas, 1):
            self._out[to].append(request)

    def _flood(self) -> None:
        count = min(self._settings.max_waiting + 2, 70)
        for to in self._some():
            self._out[to] += [self._request(self._next + i) for i in range(count)]
        self._next = min(self._next + count, _LAST)

    def _forge(self) -> None:
        request = self._request(self._fresh())
        which = self._rng.randrange(3)
        if which == 0:
            request = replace(request, operations=[b"!forged"])
        elif which == 1:
            request = replace(request, signature=self._rng.randbytes(64))
        else:
            request = replace(request, client=self._rng.choice(self._victims), number=1, low=1)
            request = replace(request, signature=sign(self._keys, request))
        for to in self._some():
            self._out[to].append(request)

    def _interfere(self) -> None:
        said: list[AnyMessage] = [
            PrePrepare(0, 1, NULL_DIGEST, self._rng.randbytes(64)),
            Commit(0, 1, NULL_DIGEST),
            Status(5, False, 0, 0, b""),
        ]
        for to in self._some():
            self._out[to].append(self._rng.choice(said))

    def _repeat(self) -> None:
        for to in self._some():
            self._out[to] += [self._rng.choice(self._said)] if self._said else []
