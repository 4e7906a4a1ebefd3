"""Operations and results as people write them."""

from typing import Any

import pytest

from jobs.machines import MACHINES
from state.pbft import Operation
from state.pbft.machines import locks, store

STORE, LOCKS = MACHINES["store"], MACHINES["locks"]


@pytest.mark.parametrize(
    ("words", "operation"),
    [
        ({"op": "get", "key": "a"}, store.Get(b"a")),
        ({"op": "put", "key": "a", "value": {"hex": "ff00"}}, store.Put(b"a", b"\xff\x00")),
        ({"op": "delete", "key": ""}, store.Delete(b"")),
        (
            {"op": "compare_and_set", "key": "a", "expected": None, "value": "ü"},
            store.CompareAndSet(b"a", None, "ü".encode()),
        ),
        ({"op": "list", "prefix": "a", "after": None, "limit": 3}, store.List(b"a", None, 3)),
    ],
)
def test_operations_of_a_store(words: dict[str, Any], operation: store.StoreOperation) -> None:
    assert STORE.operation(words) == store.operation(operation)
    assert STORE.words(store.operation(operation)) == words


@pytest.mark.parametrize(
    "words",
    [
        {"op": "acquire", "name": "x", "ttl_ms": 5},
        {"op": "renew", "name": "x", "token": 1, "ttl_ms": 5},
        {"op": "release", "name": "x", "token": 1},
        {"op": "inspect", "name": "x"},
    ],
)
def test_operations_of_locks(words: dict[str, Any]) -> None:
    assert LOCKS.words(LOCKS.operation(words)) == words


def test_what_is_left_out_has_its_default() -> None:
    assert STORE.operation({"op": "list"}) == store.operation(store.List())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([1], "is no operation"),
        ({"op": "burn"}, "'burn' is no operation; these are: get, put"),
        ({}, "None is no operation"),
        ({"op": "get"}, "get: .*key"),
        ({"op": "get", "key": "a", "kee": 1, "z": 2}, "get has no kee, z"),
        ({"op": "get", "key": 7}, "get: .*bytes"),
        ({"op": "put", "key": "a", "value": {"hex": "xx"}}, "hexadecimal"),
        ({"op": "list", "limit": -1}, "list: .*>= 0"),
    ],
)
def test_what_is_no_operation(words: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        STORE.operation(words)


def test_results_in_words() -> None:
    asked = [
        {"op": "put", "key": "a", "value": "1"},
        {"op": "get", "key": "a"},
        {"op": "list"},
        {"op": "compare_and_set", "key": "a", "expected": "2", "value": "3"},
    ]
    machine = STORE.make()
    results = machine.apply([Operation("ann", STORE.operation(each)) for each in asked])
    results += machine.apply([Operation("ann", b"rubbish")])
    assert [STORE.result(each) for each in results] == [
        {"result": "written", "done": True, "value": None},
        {"result": "found", "value": "1"},
        {"result": "listed", "keys": ["a"], "total": 1},
        {"result": "written", "done": False, "value": "1"},
        {"result": "refused", "reason": "this is no operation of a store"},
    ]
    assert STORE.words(b"rubbish") == "rubbish"
    granted = LOCKS.make().apply([Operation("ann", LOCKS.operation({**ACQUIRE}), 1000)])
    assert LOCKS.result(granted[0]) == {"result": "granted", "token": 1, "expires_ms": 1500}
    assert locks.result(granted[0]) == locks.Granted(1, 1500)


ACQUIRE = {"op": "acquire", "name": "leader", "ttl_ms": 500}
