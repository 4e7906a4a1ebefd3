"""What clients of the shipped machines may be told: for :func:`state.linearizability.linearize`.

Written apart from the machines, and simpler: they see what clients see, not the agreed order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from state.linearizability import Call
from state.pbft.machines import locks, store

Pairs = frozenset[tuple[bytes, bytes]]


class StoreSpecification:
    """A store that has room for everything."""

    initial: Pairs = frozenset()

    def step(self, state: Pairs, call: Call) -> Iterable[Pairs]:
        """Return the pairs after a call, if it is answered so."""
        answer, after = _answer(dict(state), call.asked)
        return [frozenset(after.items())] if call.answer in (None, answer) else []

    def reads(self, call: Call) -> bool:
        """Return whether it asked what is there."""
        return isinstance(call.asked, store.Get | store.List)

    def parts(self, calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
        """Split by keys, unless somebody asked for a list of them."""
        if any(isinstance(call.asked, store.List) for call in calls):
            return [calls]
        keys: dict[bytes, list[Call]] = {}
        for call in calls:
            keys.setdefault(call.asked.key, []).append(call)
        return keys.values()


def _answer(pairs: dict[bytes, bytes], asked: Any) -> tuple[Any, dict[bytes, bytes]]:
    if isinstance(asked, store.List):
        keys = sorted(key for key in pairs if key.startswith(asked.prefix))
        later = [key for key in keys if asked.after is None or key > asked.after]
        return store.Listed(later[: asked.limit], len(keys)), pairs
    found = pairs.pop(asked.key, None)
    value = found
    answer: Any = store.Found(found)
    if isinstance(asked, store.Put):
        value, answer = asked.value, store.Written(True)
    elif isinstance(asked, store.Delete):
        value, answer = None, store.Written(found is not None)
    elif isinstance(asked, store.CompareAndSet):
        answer = store.Written(False, found)
        if found == asked.expected:
            value, answer = asked.value, store.Written(True)
    if value is not None:
        pairs[asked.key] = value
    return answer, pairs


class _Lease(NamedTuple):
    """Who holds a lock; the lease ends in [soonest, latest], `ttl` after it was asked for."""

    name: str
    holder: str
    token: int
    ttl: int
    soonest: int
    latest: float


class _State(NamedTuple):
    """The agreed time is at least `now`."""

    now: int
    token: int
    leases: tuple[_Lease, ...]

    def of(self, name: str) -> _Lease | None:
        return next((lease for lease in self.leases if lease.name == name), None)

    def after(self, now: int, name: str, lease: _Lease | None) -> _State:
        """The state at `now` or later, with another lease of a lock, or none."""
        kept = [each for each in self.leases if each.name != name]
        token = self.token
        if lease is not None:
            kept.append(lease)
            token = max(token, lease.token)
        return _State(now, token, tuple(sorted(kept)))

    def at(self, now: int) -> _State:
        """The state when it is known that the time is `now`: no lease was asked for later."""
        leases = tuple(
            lease._replace(latest=min(lease.latest, now + lease.ttl)) for lease in self.leases
        )
        return _State(now, self.token, leases)


class LockSpecification:
    """A lock service with room for everything, whose agreed time nobody sees.

    It runs forwards, and what is answered tells something of it: whoever was granted a lease knows
    when; who finds a lock held knows that its lease had not ended; who finds it free that it had.
    Nothing is known of how it follows any clock, so it is never said that a lease ended too late.

    What was never answered may have been granted, with a token and until a time that only other
    answers can tell, or that nobody ever learns.

    Args:
        calls: the history that is going to be judged.
    """

    initial = _State(0, 0, ())

    def __init__(self, calls: Sequence[Call]) -> None:
        told = {
            (call.asked.name, call.answer.token)
            for call in calls
            if isinstance(call.asked, locks.Acquire) and isinstance(call.answer, locks.Granted)
        }
        self._untold: dict[tuple[str, str], set[int]] = {}
        for call in calls:
            asked, answer = call.asked, call.answer
            if isinstance(answer, locks.Held):
                holder, token = answer.holder, answer.token
            elif isinstance(asked, locks.Renew | locks.Release) and not isinstance(
                answer, locks.Lost | None
            ):
                holder, token = call.client, asked.token
            else:
                continue
            if (asked.name, token) not in told:
                self._untold.setdefault((asked.name, holder), set()).add(token)

    def reads(self, call: Call) -> bool:
        """Return whether it was told who holds the lock, or that it does not."""
        return isinstance(call.answer, locks.Held | locks.Free | locks.Lost)

    def parts(self, calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
        """Leave all together: locks share the time and the tokens."""
        return [calls]

    def step(self, state: _State, call: Call) -> Iterable[_State]:
        """Return the states after a call, if it is answered so."""
        asked, answer, client = call.asked, call.answer, call.client
        name = asked.name
        lease = state.of(name)
        if isinstance(answer, locks.Held) and isinstance(asked, locks.Acquire | locks.Inspect):
            return self._held(state, lease, answer)
        if isinstance(asked, locks.Acquire):
            if answer is None:
                return self._acquired_untold(state, lease, client, asked)
            if isinstance(answer, locks.Granted) and answer.token > state.token:
                now = answer.expires_ms - asked.ttl_ms
                if now >= state.now and (lease is None or lease.soonest <= now):
                    return [_granted(state.at(now), name, client, answer, asked.ttl_ms)]
            return []
        if isinstance(asked, locks.Inspect):
            return self._free(state, lease) if isinstance(answer, locks.Free) else []
        mine = lease is not None and (lease.holder, lease.token) == (client, asked.token)
        if isinstance(answer, locks.Lost):
            return self._free(state, lease) if mine else [state]
        if not mine or lease is None or lease.latest <= state.now:
            return []
        if isinstance(asked, locks.Release):
            released = answer is None or isinstance(answer, locks.Released)
            return [state.after(state.now, name, None)] if released else []
        if answer is None:
            renewed = lease._replace(
                ttl=asked.ttl_ms,
                soonest=state.now + asked.ttl_ms,
                latest=lease.latest - 1 + asked.ttl_ms,
            )
            return [state.after(state.now, name, renewed)]
        if isinstance(answer, locks.Granted) and answer.token == asked.token:
            now = answer.expires_ms - asked.ttl_ms
            if state.now <= now < lease.latest:
                return [_granted(state.at(now), name, client, answer, asked.ttl_ms)]
        return []

    def _held(self, state: _State, lease: _Lease | None, found: locks.Held) -> Iterable[_State]:
        if lease is None or (lease.holder, lease.token) != (found.holder, found.token):
            return []
        now = max(state.now, found.expires_ms - lease.ttl)
        if not lease.soonest <= found.expires_ms <= lease.latest or now >= found.expires_ms:
            return []
        known = lease._replace(soonest=found.expires_ms, latest=found.expires_ms)
        return [state.after(now, lease.name, known)]

    def _free(self, state: _State, lease: _Lease | None) -> Iterable[_State]:
        if lease is None:
            return [state]
        return [state.after(max(state.now, lease.soonest), lease.name, None)]

    def _acquired_untold(
        self, state: _State, lease: _Lease | None, client: str, asked: locks.Acquire
    ) -> Iterable[_State]:
        """The grants that show in other answers; those that do not have no effect either."""
        now = state.now if lease is None else max(state.now, lease.soonest)
        for token in self._untold.get((asked.name, client), ()):
            if token > state.token:
                granted = _Lease(
                    asked.name, client, token, asked.ttl_ms, now + asked.ttl_ms, float("inf")
                )
                yield state.after(now, asked.name, granted)


def _granted(state: _State, name: str, client: str, told: locks.Granted, ttl: int) -> _State:
    lease = _Lease(name, client, told.token, ttl, told.expires_ms, told.expires_ms)
    return state.after(state.now, name, lease)
