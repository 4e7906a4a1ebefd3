"""A lock that a Byzantine group keeps: what clients are told, what the resource lets through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec
import pytest

from state.linearizability import NotLinearizable
from state.pbft.machine import Operation
from state.pbft.machines import locks
from state.pbft.machines.locks import Held, Inspect, Locks, Release
from tests.simulation.pbft_lock import REPLAY, Run


def played(seed: int, **options: Callable[[], object]) -> Run:
    run = Run(seed, **options)  # type: ignore[arg-type]
    try:
        run.play()
    except BaseException as error:
        error.add_note(f"{REPLAY} {seed}")
        raise
    return run


def judged(seeds: Iterable[int]) -> Counter[str]:
    """Play seeds, check them, and count what happened in them."""
    seen: Counter[str] = Counter()
    for seed in seeds:
        run = played(seed)
        try:
            run.judge()
        except AssertionError as error:
            error.add_note(f"{REPLAY} {seed}")
            raise
        seen.update(type(call.answer).__name__ for call in run.history())
        seen.update(run.happened)
        seen["refused"] += run.refused()
        seen["admitted"] += len(run.admitted())
        seen["views"] += run.world.judge.views
        seen["liars"] += len(run.faulty)
    print(dict(seen))
    return seen


EVERYTHING = [
    "Granted", "Held", "Released", "Lost", "Free", "NoneType", "pause", "pause user", "jump",
    "jump user", "split", "crash", "death", "refused", "admitted", "views", "liars",
]  # fmt: skip


def test_locks_are_linearizable_and_stale_holders_are_refused() -> None:
    seen = judged(range(16))
    assert [each for each in EVERYTHING if not seen[each]] == [], "nothing was shown of these"


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 2000, 50))
def test_many_locks_are_linearizable_and_stale_holders_are_refused(first: int) -> None:
    seen = judged(range(first, first + 50))
    assert [each for each in EVERYTHING if not seen[each]] == [], "nothing was shown of these"


# What would be found if it were not so


class Unfenced:
    """A resource that trusts whoever comes with a token."""

    def admit(self, token: int) -> None:
        pass


def test_without_a_fence_stale_holders_get_through() -> None:
    found = 0
    for seed in range(8):
        run = played(seed, resource=Unfenced)
        try:
            run.judge()
        except NotLinearizable:
            raise
        except AssertionError as error:
            found += "a stale holder got through" in str(error)
    assert found >= 4


class Divided:
    """Two lock services, each of half the clients."""

    def __init__(self) -> None:
        self.halves = [Locks(), Locks()]

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        return [self.halves[ord(each.client[-1]) % 2].apply([each])[0] for each in batch]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode([half.snapshot() for half in self.halves])

    def restore(self, snapshot: bytes) -> None:
        for half, part in zip(
            self.halves, msgspec.msgpack.decode(snapshot, type=list[bytes]), strict=True
        ):
            half.restore(part)


class Outdated(Locks):
    """A lock service that tells who inspects a lock what it was when somebody did before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = b""

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        results = []
        for each in batch:
            (result,) = super().apply([each])
            if each.data == locks.operation(Inspect("the resource")):
                before, self.seen = self.seen, result
                result = before or result
            results.append(result)
        return results

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((super().snapshot(), self.seen))

    def restore(self, snapshot: bytes) -> None:
        plain, self.seen = msgspec.msgpack.decode(snapshot, type=tuple[bytes, bytes])
        super().restore(plain)


class Generous(Locks):
    """A lock service that takes a lock from its holder, now and then, to grant it to another."""

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        results = []
        for each in batch:
            (result,) = super().apply([each])
            held = locks.result(result)
            if isinstance(held, Held) and held.holder != each.client and each.seq % 5 == 0:
                release = locks.operation(Release("the resource", held.token))
                taken = Operation(held.holder, release, each.time_ms, each.seq)
                _, result = super().apply([taken, each])
            results.append(result)
        return results


@pytest.mark.parametrize(("machine", "most"), [(Divided, 1), (Outdated, 6), (Generous, 6)])
def test_a_lock_service_that_is_none_is_found_out(machine: Callable[[], object], most: int) -> None:
    for seed in range(most):
        try:
            played(seed, machine=machine).judge()
        except NotLinearizable:
            return
    pytest.fail(f"{most} runs show nothing")
