"""A document edited by plain values, as files and people send them."""

import json
from typing import Any

import pytest

from state.crdt.document import DocumentChange
from state.crdt.document_replica import LARGEST, DocumentReplica

HOUR = 3_600_000

OPERATIONS: list[tuple[dict[str, Any], Any]] = [
    ({"op": "put", "name": "map", "key": "k", "value": {"a": [1, None]}}, {"k": {"a": [1, None]}}),
    ({"op": "put", "name": "map", "key": "l", "value": 2}, {"k": {"a": [1, None]}, "l": 2}),
    ({"op": "drop", "name": "map", "key": "k"}, {"l": 2}),
    ({"op": "assign", "name": "title", "value": "Notes"}, "Notes"),
    ({"op": "add", "name": "tags", "element": "new"}, {"new"}),
    ({"op": "add", "name": "tags", "element": 1}, {"new", 1}),
    ({"op": "remove", "name": "tags", "element": "new"}, {1}),
    ({"op": "increment", "name": "votes"}, 1),
    ({"op": "increment", "name": "votes", "by": -3}, -2),
    ({"op": "insert", "name": "notes", "index": 0, "text": "Helo 🌍"}, "Helo 🌍"),
    ({"op": "insert", "name": "notes", "index": 2, "text": "l"}, "Hello 🌍"),
    ({"op": "delete", "name": "notes", "index": 5, "count": 2}, "Hello"),
]


def test_every_operation_here_and_there() -> None:
    here, there = DocumentReplica("a#1"), DocumentReplica("b#1")
    for operation, expected in OPERATIONS:
        update = here.edit(json.loads(json.dumps(operation)), 1000)
        there.deliver(update)
        for replica in (here, there):
            assert replica.document.value[operation["name"]] == expected
        assert here.changes() == there.changes() != []
    assert here.to_bytes() == there.to_bytes()
    assert here.changes() == []


@pytest.mark.parametrize(
    ("operation", "problem"),
    [
        (7, "an operation is an object, not 7"),
        ({"name": "x"}, "None is no operation; there are add, "),
        ({"op": ["put"], "name": "x"}, r"\['put'\] is no operation"),
        ({"op": "put", "key": "k", "value": 1}, "put: 'name' must be a text, not None"),
        ({"op": "put", "name": "map", "key": "k"}, "put: wants the fields name, key, value, not"),
        ({"op": "add", "name": "t", "element": 1, "x": 2}, "add: wants the fields name, element"),
        ({"op": "drop", "name": "new", "key": "k"}, "drop: there is no 'new'"),
        ({"op": "add", "name": "map", "element": 1}, "'map' is a lww-map, not a or-set"),
        ({"op": "add", "name": "tags", "element": [1]}, "element|hashable"),
        ({"op": "increment", "name": "votes", "by": 0.5}, "increment: 'by' must be a whole number"),
        ({"op": "increment", "name": "votes", "by": True}, "increment: 'by' must be a whole"),
        ({"op": "insert", "name": "text", "index": 9, "text": "x"}, "insert: "),
        ({"op": "insert", "name": "text", "index": "0", "text": "x"}, "'index' must be a whole"),
        ({"op": "insert", "name": "text", "index": 0, "text": 5}, "'text' must be a text, not 5"),
        ({"op": "delete", "name": "text", "index": 0, "count": 99}, "delete: "),
        ({"op": "assign", "name": "x", "value": "y" * LARGEST}, f"assign: more than {LARGEST}"),
        ({"op": "assign", "name": "x", "value": {1, 2}}, "set"),
    ],
)
def test_what_is_no_operation_changes_nothing(operation: Any, problem: str) -> None:
    replica = DocumentReplica("a#1")
    replica.edit({"op": "put", "name": "map", "key": "k", "value": 1}, 1000)
    replica.edit({"op": "insert", "name": "text", "index": 0, "text": "hello"}, 1000)
    replica.edit({"op": "add", "name": "tags", "element": 1}, 1000)
    replica.edit({"op": "increment", "name": "votes"}, 1000)
    replica.changes()
    before = replica.to_bytes()
    with pytest.raises(ValueError, match=problem):
        replica.edit(operation, 1000)
    assert replica.to_bytes() == before
    assert replica.changes() == []


def test_a_write_supersedes_what_it_was_made_over_whatever_the_clocks_say() -> None:
    fast, slow = DocumentReplica("fast#1"), DocumentReplica("slow#1")
    slow.deliver(fast.edit({"op": "put", "name": "m", "key": "k", "value": 1}, 10 * HOUR))
    slow.deliver(fast.edit({"op": "assign", "name": "r", "value": 1}, 10 * HOUR))
    fast.deliver(slow.edit({"op": "put", "name": "m", "key": "k", "value": 2}, 9 * HOUR))
    fast.deliver(slow.edit({"op": "assign", "name": "r", "value": 2}, 9 * HOUR))
    for replica in (fast, slow):
        assert replica.document.value == {"m": {"k": 2}, "r": 2}
    far = DocumentReplica("far#1")
    far.deliver(fast.edit({"op": "assign", "name": "r", "value": 3}, 100 * HOUR))
    with pytest.raises(ValueError, match="ahead"):
        far.edit({"op": "assign", "name": "r", "value": 4}, 9 * HOUR)


def test_restoring() -> None:
    old, new = DocumentReplica("a#1"), DocumentReplica("b#1")
    old.edit({"op": "assign", "name": "mine", "value": 1}, 1000)
    new.edit({"op": "assign", "name": "yours", "value": 2}, 1000)
    again = DocumentReplica("a#2", old.to_bytes())
    assert again.changes() == [DocumentChange("mine", (), None, 1)]
    again.restore(new.to_bytes(), replace=False)
    assert again.document.value == {"mine": 1, "yours": 2}
    again.changes()
    again.restore(new.to_bytes(), replace=True)
    assert again.document.value == {"yours": 2}
    assert again.changes() == [DocumentChange("mine", (), 1, None)]
    for replace in (False, True):
        with pytest.raises(ValueError, match="document"):
            again.restore(b"nonsense", replace=replace)
    with pytest.raises(ValueError, match="document"):
        again.deliver(b"nonsense")
    assert again.document.value == {"yours": 2}
    again.edit({"op": "insert", "name": "text", "index": 0, "text": "still works"}, 2000)
    again.compact({"a#1": 3})
    assert again.document.value == {"text": "still works", "yours": 2}
