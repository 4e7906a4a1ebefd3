"""Clients of a local group notice answers that cannot be."""

import random

import pytest

from jobs.replica_workload import LocksWorkload, StoreWorkload, WrongAnswer
from state.pbft import Operation, StateMachine
from state.pbft.machines import Locks, Store, locks, store


def ask(machine: StateMachine, name: str, asked: list[bytes], time_ms: int) -> list[bytes]:
    return machine.apply([Operation(name, data, time_ms) for data in asked])


@pytest.mark.parametrize("batch", [1, 5])
def test_a_store_that_works(batch: int) -> None:
    workload, machine = StoreWorkload(batch), Store()
    lanes = {name: workload.lane(name, random.Random(name)) for name in ("ann", "bob")}
    asked = {name: next(lane) for name, lane in lanes.items()}
    for time_ms in range(60):
        for name, lane in lanes.items():
            asked[name] = lane.send(ask(machine, name, asked[name], time_ms))
    (found,) = ask(machine, "ann", [store.operation(store.Get(b"count"))], 0)
    assert store.result(found) == store.Found(str(workload.counted).encode())
    assert workload.counted >= 15


def test_a_store_that_forgets() -> None:
    lane = StoreWorkload().lane("ann", random.Random(1))

    def use() -> None:
        asked = next(lane)
        for _ in range(60):
            asked = lane.send(ask(Store(), "ann", asked, 0))

    with pytest.raises(WrongAnswer, match=r"ann: .* was answered"):
        use()


def test_locks_that_work_also_when_leases_end() -> None:
    workload, machine, chance = LocksWorkload(), Locks(), random.Random(1)
    lanes = {name: workload.lane(name, chance) for name in ("ann", "bob", "cyd")}
    asked = {name: next(lane) for name, lane in lanes.items()}
    now = 0
    for _ in range(400):
        name = chance.choice(list(lanes))
        now += chance.choice([10, 100, 3100])
        asked[name] = lanes[name].send(ask(machine, name, asked[name], now))
    assert workload.granted > 30
    assert workload.refused > 0


def test_a_token_that_is_granted_twice() -> None:
    workload = LocksWorkload()
    ann, bob = (workload.lane(name, random.Random(1)) for name in ("ann", "bob"))
    answer = ask(Locks(), "ann", next(ann), 5)
    assert locks.result(answer[0]) == locks.Granted(1, 3005)
    next(bob)
    ann.send(answer)
    with pytest.raises(WrongAnswer, match="bob: to acquire was answered Granted"):
        bob.send(answer)
