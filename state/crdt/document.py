"""Named replicated values under one root, with one feed of changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias, get_args

from state.crdt.causal import VersionVector
from state.crdt.clock import Stamp
from state.crdt.counters import GCounter, PNCounter
from state.crdt.lww import LWWElementSet, LWWMap
from state.crdt.ormap import ORMap
from state.crdt.orset import ORSet
from state.crdt.registers import LWWRegister, MVRegister
from state.crdt.replica_state import Change, ReplicaState
from state.crdt.sequence import Edit, PendingOverflow, Sequence
from state.crdt.values import decode, encode
from state.mergeable import Algebra, seal, unseal

Kind: TypeAlias = Literal[
    "g-counter",
    "pn-counter",
    "lww-register",
    "mv-register",
    "lww-map",
    "lww-element-set",
    "or-set",
    "or-map",
    "text",
    "list",
]
_CLASSES: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        GCounter,
        PNCounter,
        LWWRegister,
        MVRegister,
        LWWMap,
        LWWElementSet,
        ORSet,
        ORMap,
    )
}
_NAME = "document"


class DocumentChange(NamedTuple):
    """One visible change of a named value.

    `path`, `old` and `new` are those of `Change`. For a text or a list, `path` is (index,), `old`
    how many elements went there and `new` those that came; each index holds after the changes
    before it. Where a name shows another kind than before, `path` is () and both values are whole.
    """

    name: str
    path: tuple[Any, ...]
    old: Any
    new: Any


class Document:
    """Named replicated values under one root.

    A name's kind is declared at its first use; to use it with another is an error. Replicas that
    declare a name with different kinds concurrently keep both values; all show the one whose kind
    sorts first, `conflicts` names them, and the other value can no longer be edited.

    A delta is a small document with what changed. A name exists once it was declared, even if
    nothing was written to it.

    Args:
        replica: who writes texts and lists here; None where nobody does. It is no part of the
            state, and must be new for each incarnation that may have lost state.

    >>> ann, bob = Document("ann"), Document("bob")
    >>> delta, changes = ann.edit("votes", "pn-counter", lambda votes: votes.increment("ann"))
    >>> changes
    [DocumentChange(name='votes', path=(), old=0, new=1)]
    >>> bob.apply(delta.to_bytes()) == changes, bob.apply(delta.to_bytes())
    (True, [])
    >>> delta, changes = bob.edit("notes", "text", lambda notes: notes.insert(0, "Hello"))
    >>> ann.apply(delta.to_bytes())
    [DocumentChange(name='notes', path=(0,), old=0, new='Hello')]
    >>> ann.value
    {'notes': 'Hello', 'votes': 1}
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, replica: str | None = None) -> None:
        self.replica = replica
        self._parts: dict[str, dict[str, Any]] = {}
        self._unsent: tuple[Document, list[DocumentChange]] | None = None

    @property
    def value(self) -> dict[str, Any]:
        """The plain value of each name, by name."""
        return {name: self._shown(name).value for name in sorted(self._parts)}

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __len__(self) -> int:
        return len(self._parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # a document changes

    def __repr__(self) -> str:
        return f"Document({self.replica!r}, {self.value!r})"

    def kind_of(self, name: str) -> str | None:
        """Return the kind that `name` shows, or None where it is not declared."""
        return min(self._parts[name]) if name in self._parts else None

    def conflicts(self) -> dict[str, list[str]]:
        """Return the names that replicas declared with several kinds, with these, shown first."""
        return {name: sorted(kinds) for name, kinds in self._parts.items() if len(kinds) > 1}

    def read(self, name: str) -> Any:
        """Return the value object of `name`, to read; edit it through `edit` only.

        Raises:
            KeyError: `name` is not declared.
        """
        return self._shown(name)

    def edit(
        self, name: str, kind: Kind, change: Callable[[Any], object]
    ) -> tuple[Document, list[DocumentChange]]:
        """Let `change` edit the value of `name`; return the delta and what changed visibly.

        `change` gets the value object and may call several of its mutators. If it raises, what it
        did before stays, and comes with the delta and the changes of the next `edit`.

        Raises:
            ValueError: `name` shows another kind, or `kind` is unknown.
        """
        shown = self.kind_of(name)
        if shown is not None and shown != kind:
            raise ValueError(f"document: {name!r} is a {shown}, not a {kind}")
        if not isinstance(name, str):
            raise ValueError(f"document: a name must be a str, not {name!r}")
        encode(name)  # refuses surrogates before anything changes
        part = self._parts[name][kind] if shown else self._declare(name, kind)
        delta, changes = self._unsent = self._unsent or (Document(), [])
        share = delta._parts.setdefault(name, {}).setdefault(kind, _empty(kind))
        if isinstance(part, Sequence):
            if self.replica is not None and part.replica != self.replica:
                part.replica = self.replica
            _edit_sequence(name, part, change, share, changes)
        else:
            _edit_state(name, part, change, share, changes)
        self._unsent = None
        return delta, changes

    def apply(self, delta: bytes) -> list[DocumentChange]:
        """Merge the bytes of a delta or a document and return what changed visibly, by name.

        Raises:
            ValueError: the bytes are malformed; nothing has changed.
        """
        return self.follow(self.from_bytes(delta))

    def merge(self, other: Self) -> None:
        """Join a document or a delta into this one.

        Raises:
            ValueError: `other` is no document, or a text or list cannot be merged (`Sequence`).
        """
        self.follow(other)

    def follow(self, other: Document) -> list[DocumentChange]:
        """Do what `merge` does and return what changed visibly, by name.

        If a text or list raises, names before it in order are merged and their changes are not
        told: read `value` anew.

        Raises:
            ValueError: as `merge`.
        """
        if not isinstance(other, Document):
            raise ValueError(f"document: cannot merge a {type(other).__name__}")
        changes: list[DocumentChange] = []
        for name, kinds in sorted(other._parts.items()):
            before = self.kind_of(name)
            whole = before is not None and min(kinds) < before
            old = self._shown(name).value if whole else None
            for kind, share in sorted(kinds.items()):
                part = self._parts.get(name, {}).get(kind)
                if part is None:
                    part = self._declare(name, kind)
                found = _follow(name, part, share)
                if kind == self.kind_of(name) and not whole:
                    changes += found
            if whole:
                changes.append(DocumentChange(name, (), old, self._shown(name).value))
        return changes

    def versions(self) -> dict[str, dict[str, VersionVector]]:
        """Return how far each name and kind is known here, of those kinds that can tell.

        Those ordered by stamps cannot.
        """
        return {
            name: {kind: p.version for kind, p in kinds.items() if hasattr(p, "version")}
            for name, kinds in self._parts.items()
        }

    def delta_since(self, versions: Mapping[str, Mapping[str, VersionVector]]) -> Document:
        """Return what a replica lacks whose `versions` are given.

        Values that are ordered by stamps are in it whole.
        """
        delta = Document()
        for name, kinds in self._parts.items():
            for kind, part in kinds.items():
                version = versions.get(name, {}).get(kind)
                share = delta._declare(name, kind)
                if version is None:
                    share.merge(part)
                elif isinstance(part, Sequence):
                    _add_since(share, part, version)
                else:
                    share.merge(part.delta_since(version))
        return delta

    def compact(self, stable: Mapping[str, VersionVector | Stamp]) -> None:
        """Collect garbage in the values named: a `Stamp` for LWW kinds, else a version vector.

        The caller guarantees for each what its own `compact` asks. Kinds without garbage (add-wins
        sets and maps, registers) refuse.

        Raises:
            KeyError: a name is not declared.
            ValueError: a cut is of the wrong type, or ahead of what is known here.
        """
        for name, cut in stable.items():
            part = self._shown(name)
            wanted = Stamp if isinstance(part, LWWMap | LWWElementSet) else VersionVector
            if not hasattr(part, "compact") or not isinstance(cut, wanted):
                raise ValueError(f"document: {name!r} cannot be compacted at {cut!r}")
            part.compact(cut)

    def to_bytes(self) -> bytes:
        """Return the document as bytes, equal for equal documents."""
        parts = {
            name: {kind: part.to_bytes() for kind, part in kinds.items()}
            for name, kinds in self._parts.items()
        }
        return seal(_NAME, 1, encode(parts))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the document that `to_bytes` wrote, with no replica set.

        Raises:
            ValueError: `data` is malformed, truncated or of an unknown version.
        """
        parts = decode(unseal(_NAME, data, versions={1})[1], max_depth=2)
        document = cls()
        if not isinstance(parts, dict):
            raise ValueError("document: the names are not a dict")
        for name, kinds in parts.items():
            if not isinstance(kinds, dict) or not kinds:
                raise ValueError(f"document: {name!r} has no kind")
            document._parts[name] = {}
            for kind, part in kinds.items():
                if kind not in get_args(Kind) or not isinstance(part, bytes):
                    raise ValueError(f"document: {name!r} is of an unknown kind")
                found = _CLASSES.get(kind, Sequence).from_bytes(part)
                if isinstance(found, Sequence) and found.kind != kind:
                    raise ValueError(f"document: {name!r} is not the {kind} it is said to be")
                document._parts[name][kind] = found
        return document

    def _shown(self, name: str) -> Any:
        kinds = self._parts[name]
        return kinds[min(kinds)]

    def _declare(self, name: str, kind: str) -> Any:
        part = _empty(kind)
        self._parts.setdefault(name, {})[kind] = part
        return part


def _empty(kind: str) -> Any:
    if kind == "text" or kind == "list":
        return Sequence(kind="text" if kind == "text" else "list")
    if kind not in _CLASSES:
        raise ValueError(f"document: {kind!r} is no kind; there are {', '.join(get_args(Kind))}")
    return _CLASSES[kind]()


def _edit_state(
    name: str,
    part: ReplicaState,
    change: Callable[[Any], object],
    share: ReplicaState,
    changes: list[DocumentChange],
) -> None:
    def observe(delta: ReplicaState, found: list[Change]) -> None:
        share.merge(delta)
        changes.extend(DocumentChange(name, *row) for row in found)

    part._observer = observe
    try:
        change(part)
    finally:
        del part._observer


def _edit_sequence(
    name: str,
    part: Sequence,
    change: Callable[[Any], object],
    share: Sequence,
    changes: list[DocumentChange],
) -> None:
    before = part.version
    edits: list[Edit] = []
    order = part._ops.order
    order.edits = edits
    try:
        change(part)
    finally:
        order.edits = None
        _add_since(share, part, before)
        changes += _sequence_changes(name, edits)


def _add_since(share: Sequence, part: Sequence, version: VersionVector) -> None:
    try:
        share.apply(part.delta_since(version))
    except PendingOverflow:
        # More than a sequence lets wait for what it builds on: with that, nothing waits.
        share.merge(part)


def _follow(name: str, part: Any, share: Any) -> list[DocumentChange]:
    if isinstance(part, Sequence):
        return _sequence_changes(name, part.follow(share.to_bytes()))
    return [DocumentChange(name, *row) for row in part.follow(share)]


def _sequence_changes(name: str, edits: list[Edit]) -> list[DocumentChange]:
    return [DocumentChange(name, (edit.index,), edit.deleted, edit.inserted) for edit in edits]
