"""A document that is edited by operations written as plain values: what people and files send.

    {"op": "put", "name": "settings", "key": "colour", "value": "red"}     a map; the last wins
    {"op": "drop", "name": "settings", "key": "colour"}
    {"op": "assign", "name": "title", "value": "Notes"}                    a register; the last wins
    {"op": "add", "name": "tags", "element": "new"}                        a set; adding wins
    {"op": "remove", "name": "tags", "element": "new"}
    {"op": "increment", "name": "votes", "by": -2}                         a counter; 1 without by
    {"op": "insert", "name": "notes", "index": 0, "text": "Hello"}         a text, in code points
    {"op": "delete", "name": "notes", "index": 0, "count": 5}

An operation is carried out on one replica; the others get its effect, never the operation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from state.crdt.clock import HybridClock, Stamp
from state.crdt.counters import PNCounter
from state.crdt.document import Document, DocumentChange, Kind
from state.crdt.lww import LWWMap
from state.crdt.orset import ORSet
from state.crdt.registers import LWWRegister
from state.crdt.sequence import Sequence
from state.crdt.values import encode

LARGEST = 256 << 10
"""Bytes of an operation, as a canonical plain value."""


class DocumentReplica:
    """One replica of a document: `operators.gossip` replicates it.

    Args:
        replica: Its id, new for each incarnation that may have lost state.
        state: The bytes of a document to begin with.

    Raises:
        ValueError: the bytes are malformed.

    >>> ann, bob = DocumentReplica("ann#1"), DocumentReplica("bob#1")
    >>> update = ann.edit({"op": "put", "name": "m", "key": "k", "value": [1, 2]}, 1000)
    >>> bob.deliver(update)
    >>> bob.changes()
    [DocumentChange(name='m', path=('k',), old=None, new=[1, 2])]
    >>> bob.edit({"op": "fly", "name": "m"}, 1000)
    Traceback (most recent call last):
    ...
    ValueError: 'fly' is no operation; there are add, assign, ...
    """

    def __init__(self, replica: str, state: bytes | None = None) -> None:
        self.document = Document(replica)
        self._replica = replica
        self._clock = HybridClock(replica)
        self._changes: list[DocumentChange] = []
        if state is not None:
            self._changes += self.document.apply(state)

    def edit(self, operation: Any, now_ms: int) -> bytes:
        """Carry out an operation; return the delta for the others.

        Args:
            operation: See above.
            now_ms: The wall clock, milliseconds since 1970. A write supersedes what it was made
                over even where that has a later time.

        Raises:
            ValueError: it is no operation, its name is of another kind, an index is out of range,
                or what it is made over lies more than a day ahead of `now_ms`.
        """
        if not isinstance(operation, Mapping):
            raise ValueError(f"an operation is an object, not {_short(operation)}")
        fields = dict(operation)
        kind = fields.pop("op", None)
        if not isinstance(kind, str) or kind not in _OPERATIONS:
            raise ValueError(
                f"{_short(kind)} is no operation; there are {', '.join(sorted(_OPERATIONS))}"
            )
        form = _OPERATIONS[kind]
        name = fields.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"{kind}: 'name' must be a text, not {_short(name)}")
        values = {**dict(form.optional), **fields}
        if values.keys() != form.fields:
            wanted = ", ".join(sorted(form.fields))
            raise ValueError(f"{kind}: wants the fields name, {wanted}, not {_short(fields)}")
        if len(encode(values)) > LARGEST:
            raise ValueError(f"{kind}: more than {LARGEST} bytes")
        if form.needs and name not in self.document:
            raise ValueError(f"{kind}: there is no {name!r}")
        change = partial(form.change, values, self._replica, partial(self._clock.tick, now_ms))
        try:
            delta, changes = self.document.edit(name, form.kind, change)
        except (IndexError, TypeError) as error:
            raise ValueError(f"{kind}: {error}") from None
        self._changes += changes
        return delta.to_bytes()

    def deliver(self, update: bytes) -> None:
        """Take in another replica's delta.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """
        self._changes += self.document.apply(update)

    def to_bytes(self) -> bytes:
        """Return the document as canonical bytes."""
        return self.document.to_bytes()

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Merge a document, or put it in the place of this one.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """
        if not replace:
            self.deliver(state)
            return
        fresh = Document(self._replica)
        fresh.apply(state)
        old, new = self.document.value, fresh.value
        self.document = fresh
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                self._changes.append(DocumentChange(name, (), old.get(name), new.get(name)))

    def compact(self, cut: Mapping[str, int]) -> None:
        """Forget nothing.

        That every member knows an update does not say that every member has told all it wrote
        before it knew it, which is what forgetting a deletion takes (see the kinds' `compact`).
        """

    def changes(self) -> list[DocumentChange]:
        """Return what changed since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes


Values = dict[str, Any]
Tick = Callable[[Stamp | None], Stamp]


class _Form(NamedTuple):
    """An operation: the kind it is on, its fields, and what it does.

    `change` takes the fields, the replica's id, the clock and the value to be edited.
    """

    kind: Kind
    fields: set[str]
    change: Callable[[Values, str, Tick, Any], object]
    optional: tuple[tuple[str, Any], ...] = ()
    needs: bool = False
    """Whether the name must be there."""


def _put(values: Values, replica: str, tick: Tick, found: LWWMap) -> None:
    key = values["key"]
    found.put(key, values["value"], tick(found.stamp(key)))


def _drop(values: Values, replica: str, tick: Tick, found: LWWMap) -> None:
    key = values["key"]
    found.remove(key, tick(found.stamp(key)))


def _assign(values: Values, replica: str, tick: Tick, found: LWWRegister) -> None:
    found.assign(values["value"], tick(found.stamp))


def _add(values: Values, replica: str, tick: Tick, found: ORSet) -> None:
    found.add(values["element"], replica)


def _remove(values: Values, replica: str, tick: Tick, found: ORSet) -> None:
    found.remove(values["element"])


def _increment(values: Values, replica: str, tick: Tick, found: PNCounter) -> None:
    by = values["by"]
    if type(by) is not int:
        raise TypeError(f"'by' must be a whole number, not {_short(by)}")
    (found.increment if by >= 0 else found.decrement)(replica, abs(by))


def _insert(values: Values, replica: str, tick: Tick, found: Sequence) -> None:
    if not isinstance(values["text"], str):
        raise TypeError(f"'text' must be a text, not {_short(values['text'])}")
    found.insert(_whole(values, "index"), values["text"])


def _delete(values: Values, replica: str, tick: Tick, found: Sequence) -> None:
    found.delete(_whole(values, "index"), _whole(values, "count"))


def _whole(values: Values, field: str) -> int:
    number = values[field]
    if type(number) is not int:
        raise TypeError(f"{field!r} must be a whole number, not {_short(number)}")
    return number


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


_OPERATIONS: dict[str, _Form] = {
    "put": _Form("lww-map", {"key", "value"}, _put),
    "drop": _Form("lww-map", {"key"}, _drop, needs=True),
    "assign": _Form("lww-register", {"value"}, _assign),
    "add": _Form("or-set", {"element"}, _add),
    "remove": _Form("or-set", {"element"}, _remove, needs=True),
    "increment": _Form("pn-counter", {"by"}, _increment, optional=(("by", 1),)),
    "insert": _Form("text", {"index", "text"}, _insert),
    "delete": _Form("text", {"index", "count"}, _delete, needs=True),
}
