"""Sketches of sets of hashes that give the difference of two sets, if it is small.

Source: Eppstein, Goodrich, Uyeda and Varghese, "What's the difference? Efficient set
reconciliation without prior context", SIGCOMM 2011.
"""

from __future__ import annotations

import numpy as np

_CELL = np.dtype([("count", "<i4"), ("keys", "<u8"), ("checks", "<u8")])
_HASHES = 3
_ALL = (1 << 64) - 1
_CHECK = 0x5851F42D4C957F2D
_SEEDS = [0x9E3779B97F4A7C15 * (i + 1) & _ALL for i in range(_HASHES)]
FLOOR = 30
"""Cells of the smallest sketch; below about this many even one difference may fail."""


def _mix(x: np.ndarray, seed: int) -> np.ndarray:
    x = x + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _mix_one(x: int, seed: int) -> int:
    x = x + seed & _ALL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _ALL
    return x ^ (x >> 31)


def _checks(keys: np.ndarray) -> np.ndarray:
    return _mix(keys, _CHECK)


def _places(keys: np.ndarray, cells: int) -> np.ndarray:
    """Return the cell of each key in each third of the table, shape (3, keys)."""
    third = cells // _HASHES
    return np.stack(
        [
            _mix(keys, seed) % np.uint64(third) + np.uint64(i * third)
            for i, seed in enumerate(_SEEDS)
        ]
    )


class Cells:
    """An invertible Bloom lookup table of 63-bit hashes.

    A table of n cells gives differences of up to about n / 1.5 elements; a larger one fails and
    is tried again with twice the cells. 20 bytes a cell.

    >>> import numpy as np
    >>> mine = Cells.of(np.array([1, 2, 3], np.uint64), 30)
    >>> theirs = Cells.of(np.array([2, 3, 4, 5], np.uint64), 30)
    >>> mine.difference(Cells.from_bytes(theirs.to_bytes()))
    ([1], [4, 5])
    """

    def __init__(self, cells: np.ndarray) -> None:
        self._cells = cells

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._cells)

    @classmethod
    def of(cls, hashes: np.ndarray, cells: int) -> Cells:
        """Return the sketch of a set in `cells` cells (a multiple of 3)."""
        table = np.zeros(cells, _CELL)
        places = _places(hashes, cells).ravel()
        table["count"] = np.bincount(places.astype(np.int64), minlength=cells)
        np.bitwise_xor.at(table["keys"], places, np.tile(hashes, _HASHES))
        np.bitwise_xor.at(table["checks"], places, np.tile(_checks(hashes), _HASHES))
        return cls(table)

    def to_bytes(self) -> bytes:
        """Return the cells, 20 bytes each."""
        return self._cells.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Cells:
        """Return the sketch that :meth:`to_bytes` wrote.

        Raises:
            ValueError: these are not whole cells, or not three equal parts of them.
        """
        size, rest = divmod(len(data), _CELL.itemsize)
        if rest or size < _HASHES or size % _HASHES:
            raise ValueError(f"a sketch of {len(data)} bytes")
        return cls(np.frombuffer(data, _CELL).copy())

    def difference(self, other: Cells) -> tuple[list[int], list[int]] | None:
        """Return the hashes only here and those only in `other`, or None if it failed.

        Both are sorted. The sketches must be of one size.
        """
        counts = (self._cells["count"].astype(np.int64) - other._cells["count"]).tolist()
        keys = (self._cells["keys"] ^ other._cells["keys"]).tolist()
        checks = (self._cells["checks"] ^ other._cells["checks"]).tolist()
        size, third = len(counts), len(counts) // _HASHES
        found: tuple[set[int], set[int]] = (set(), set())
        ready = [i for i in range(size) if counts[i] in (1, -1)]
        # Forged cells could peel for ever; an honest table peels each element once.
        for _ in range(4 * size):
            if not ready:
                break
            at = ready.pop()
            sign, key = counts[at], keys[at]
            if sign not in (1, -1):
                continue
            check = _mix_one(key, _CHECK)
            if check != checks[at]:
                continue
            side = found[0 if sign == 1 else 1]
            if key in side:
                return None
            side.add(key)
            for i, seed in enumerate(_SEEDS):
                place = i * third + _mix_one(key, seed) % third
                counts[place] -= sign
                keys[place] ^= key
                checks[place] ^= check
                if counts[place] in (1, -1):
                    ready.append(place)
        if any(counts) or any(keys) or any(checks):
            return None
        return sorted(found[0]), sorted(found[1])
