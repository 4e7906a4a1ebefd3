"""The store behind all types with a causal context: which dot holds what, and where.

An *entry* is one dot's (path, payload): a dot is written once, at one path, and what it holds never
changes. Nesting is only a longer path. So the DotSet, DotFun and DotMap of Almeida, Shoker and
Baquero (2018) are one flat map from dots to entries, with one rule for merging: an entry stays if
both sides have it, or one side has it and the other has never seen its dot. A dot that was seen and
is gone was removed. Nothing is left of it but its place in the causal context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from state.crdt.causal import CausalContext, Dot, VersionVector, check_counter, check_replica
from state.crdt.replica_state import fields

Path: TypeAlias = tuple[bytes, ...]
Entry: TypeAlias = tuple[Path, bytes]
MAX_PATH = 32
"""The most components of a path: a map takes two for each level."""


class _Node:
    __slots__ = ("children", "dots")

    def __init__(self) -> None:
        self.dots: set[Dot] = set()
        self.children: dict[bytes, _Node] = {}


class DotStore:
    """Entries by dot, their tree of paths, and the context of all dots ever seen.

    >>> store = DotStore()
    >>> delta = store.write((b"k",), b"1", "ann")
    >>> store.merge(delta); list(store.children(())), dict(store.at((b"k",)))
    ([b'k'], {('ann', 1): b'1'})
    >>> store.merge(store.without(store.under((b"k",)))); list(store.children(()))
    []
    """

    __slots__ = ("_root", "context", "entries")

    def __init__(self) -> None:
        self.context = CausalContext()
        self.entries: dict[Dot, Entry] = {}
        self._root = _Node()

    def write(self, path: Path, payload: bytes, replica: str, over: Iterable[Dot] = ()) -> DotStore:
        """Return the delta that puts a new dot of `replica` at `path` in place of the dots `over`.

        Raises:
            ValueError: `path` is too long, or `replica` no id.
        """
        if len(path) > MAX_PATH:
            raise ValueError(f"dots: nested too deep: a path of more than {MAX_PATH} parts")
        dot = self.context.next(replica)
        delta = self.without(over)
        delta.context.add(dot)
        delta._put(dot, (path, payload))
        return delta

    def without(self, dots: Iterable[Dot]) -> DotStore:
        """Return the delta that removes `dots`."""
        delta = DotStore()
        delta.context = CausalContext(dots)
        return delta

    def at(self, path: Path) -> Iterator[tuple[Dot, bytes]]:
        """Yield (dot, payload) of the entries at exactly `path`, in no order."""
        node = self._node(path)
        return ((dot, self.entries[dot][1]) for dot in node.dots) if node else iter(())

    def under(self, path: Path) -> list[Dot]:
        """Return the dots of the entries at and below `path`."""
        node = self._node(path)
        dots: list[Dot] = []
        nodes = [node] if node else []
        while nodes:
            node = nodes.pop()
            dots += node.dots
            nodes += node.children.values()
        return dots

    def children(self, path: Path) -> list[bytes]:
        """Return what follows `path` in the paths of entries, sorted."""
        node = self._node(path)
        return sorted(node.children) if node else []

    def has(self, path: Path) -> bool:
        """Return whether an entry is at or below `path`."""
        return self._node(path) is not None

    def count(self, path: Path) -> int:
        """Return the number of `children`."""
        node = self._node(path)
        return len(node.children) if node else 0

    def touched(self, other: DotStore) -> set[Path]:
        """Return the paths of the entries that a merge of `other` adds or removes."""
        paths = {
            entry[0]
            for dot, entry in other.entries.items()
            if dot not in self.context or (dot in self.entries and self.entries[dot] != entry)
        }
        paths.update(self.entries[dot][0] for dot in self._removed_by(other))
        return paths

    def merge(self, other: DotStore) -> None:
        """Join `other`, in time that grows with the smaller of its context and these entries."""
        for dot in self._removed_by(other):
            self._drop(dot)
        for dot, entry in other.entries.items():
            if dot not in self.context:
                self._put(dot, entry)
            elif dot in self.entries and self.entries[dot] < entry:
                # Only where an id was used twice: the greater stays, so replicas still agree.
                self._drop(dot)
                self._put(dot, entry)
        self.context.join(other.context)

    def since(self, version: VersionVector) -> DotStore:
        """Return the delta for a replica that has seen all dots up to `version`.

        It has the entries above `version`, and the dots below that are no longer there: what was
        removed cannot be told apart from what the other knows to be removed, so all are named.
        Where these are more than the entries, the delta is the whole state.
        """
        delta = DotStore()
        if len(self.context) > 2 * len(self.entries) + 64:
            delta.merge(self)
            return delta
        for dot in self.context:
            if dot not in version or dot not in self.entries:
                delta.context.add(dot)
        for dot, entry in self.entries.items():
            if dot not in version:
                delta._put(dot, entry)
        return delta

    def to_plain(self) -> list[Any]:
        """Return [context, [paths, sorted], dict of replica -> flat (gap, path number, payload)].

        Counters are written as gaps, so a store that has been through many changes is hardly
        larger than a fresh one.
        """
        paths = sorted({entry[0] for entry in self.entries.values()})
        number = {path: at for at, path in enumerate(paths)}
        rows: dict[str, list[Any]] = {}
        before: dict[str, int] = {}
        for (replica, counter), (path, payload) in sorted(self.entries.items()):
            gap = counter - before.get(replica, 0)
            before[replica] = counter
            rows.setdefault(replica, []).extend((gap, number[path], payload))
        return [self.context.to_plain(), [list(path) for path in paths], rows]

    @classmethod
    def from_plain(cls, plain: Any) -> DotStore:
        """Return what `to_plain` gave.

        Raises:
            ValueError: `plain` is anything else, or not in its one form.
        """
        store = cls()
        context, paths, rows = fields("dots", plain, 3)
        store.context = CausalContext.from_plain(context)
        if not isinstance(paths, list) or not isinstance(rows, dict):
            raise ValueError("dots: the paths are no list or the entries no dict")
        table: list[Path] = []
        for path in paths:
            if not isinstance(path, list) or len(path) > MAX_PATH:
                raise ValueError("dots: a path that is no list, or too long")
            if not all(isinstance(part, bytes) for part in path):
                raise ValueError("dots: a path of something else than bytes")
            table.append(tuple(path))
            if len(table) > 1 and table[-1] <= table[-2]:
                raise ValueError("dots: the paths are not in order")
        used: set[int] = set()
        for replica, row in rows.items():
            check_replica(replica)
            if not isinstance(row, list) or not row or len(row) % 3:
                raise ValueError("dots: entries that are no list of threes")
            counter = 0
            for gap, at, payload in zip(row[::3], row[1::3], row[2::3], strict=True):
                counter = check_counter(counter + check_counter(gap))
                if type(at) is not int or not 0 <= at < len(table):
                    raise ValueError("dots: an entry at an unknown path")
                dot = (replica, counter)
                if not isinstance(payload, bytes) or dot not in store.context:
                    raise ValueError("dots: an entry that is no bytes, or never seen")
                used.add(at)
                store._put(dot, (table[at], payload))
        if len(used) != len(table):
            raise ValueError("dots: a path without entries")
        return store

    def _removed_by(self, other: DotStore) -> list[Dot]:
        theirs, gone = other.entries, other.context
        dots: Iterable[Dot] = gone if len(gone) < len(self.entries) else self.entries
        return [d for d in dots if d in self.entries and d not in theirs and d in gone]

    def _node(self, path: Path) -> _Node | None:
        node = self._root
        for part in path:
            found = node.children.get(part)
            if found is None:
                return None
            node = found
        return node if node.dots or node.children else None

    def _put(self, dot: Dot, entry: Entry) -> None:
        self.entries[dot] = entry
        node = self._root
        for part in entry[0]:
            found = node.children.get(part)
            if found is None:
                found = node.children[part] = _Node()
            node = found
        node.dots.add(dot)

    def _drop(self, dot: Dot) -> None:
        path = self.entries.pop(dot)[0]
        trail = [self._root]
        for part in path:
            trail.append(trail[-1].children[part])
        trail[-1].dots.remove(dot)
        for part, node, parent in zip(path[::-1], trail[:0:-1], trail[-2::-1], strict=True):
            if node.dots or node.children:
                break
            del parent.children[part]
