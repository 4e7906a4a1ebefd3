"""Tables of hashed rows that two peers can compare: by fingerprint, by sketch, by spans.

A row has a *name* (a replica id, or a member's name), a 63-bit *key* (a hash of the name) and a
63-bit *hash* of all that the row says. Equal tables have equal fingerprints, and unequal ones
differ except with a chance of 2^-63 (peers are authenticated: no one is expected to search for
collisions).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from state.gossip.messages import Span
from state.gossip.sketches import Cells

_MASK = (1 << 63) - 1
FULL = (0, 1 << 63)
"""The span of all keys."""
BRANCHES = 16
"""Into how many parts a span is split that differs."""


class Table:
    """Rows by name, with the sum of their hashes kept up to date.

    >>> table = Table()
    >>> table.name("x", key=5); table.put("x", 1000)
    >>> table.count, table.total
    (1, 1000)
    """

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.hashes: dict[str, int] = {}
        self.total = 0
        # In the order of keys; None when a row was added or removed.
        self._names: list[str] | None = None
        self._places: dict[str, int] = {}
        self._keys = np.zeros(0, np.uint64)
        self._hashes = np.zeros(0, np.uint64)

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.hashes)

    def name(self, name: str, key: int) -> None:
        """Give the row `name` its key, before it is put."""
        self.keys[name] = key

    def put(self, name: str, value: int) -> None:
        """Set the hash of row `name`."""
        value &= _MASK
        old = self.hashes.get(name)
        self.hashes[name] = value
        if old is None:
            self.total = (self.total + value) & _MASK
            self._names = None
            return
        self.total = (self.total - old + value) & _MASK
        if self._names is not None:
            self._hashes[self._places[name]] = value

    def drop(self, name: str) -> None:
        """Remove row `name`, if it is there."""
        if self.keys.pop(name, None) is not None:
            self.total = (self.total - self.hashes.pop(name, 0)) & _MASK
            self._names = None

    def _order(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Return names, keys and hashes in the order of keys."""
        if self._names is None:
            names = sorted(self.hashes, key=self.keys.__getitem__)
            self._names = names
            self._places = {name: place for place, name in enumerate(names)}
            self._keys = np.fromiter((self.keys[name] for name in names), np.uint64, len(names))
            self._hashes = np.fromiter((self.hashes[name] for name in names), np.uint64, len(names))
        return self._names, self._keys, self._hashes

    def sketch(self, cells: int) -> Cells:
        """Return a sketch of all rows; its elements are their hashes."""
        return Cells.of(self._order()[2], cells)

    def names_of(self, hashes: Iterable[int]) -> list[str]:
        """Return the names of the rows with these hashes, in the order of keys."""
        wanted = np.fromiter(hashes, np.uint64)
        names, _, mine = self._order()
        return [names[i] for i in np.flatnonzero(np.isin(mine, wanted))]

    def inside(self, low: int, high: int) -> list[str]:
        """Return the names of the rows whose keys lie in [low, high)."""
        names, keys, _ = self._order()
        first, last = np.searchsorted(keys, np.array([low, high], np.uint64))
        return names[int(first) : int(last)]

    def span(self, low: int, high: int) -> Span:
        """Return the count and sum of the rows whose keys lie in [low, high)."""
        _, keys, hashes = self._order()
        first, last = np.searchsorted(keys, np.array([low, high], np.uint64))
        total = int(np.add.reduce(hashes[int(first) : int(last)], dtype=np.uint64)) & _MASK
        return Span(low, high, int(last - first), total)

    def split(self, low: int, high: int) -> list[Span]:
        """Return the parts of the span [low, high)."""
        step = max(1, -(-(high - low) // BRANCHES))
        return [self.span(at, min(at + step, high)) for at in range(low, high, step)]
