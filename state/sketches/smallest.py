"""The smallest of many priorities, drawn a block at a time: bottom-k."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

I64: TypeAlias = npt.NDArray[np.int64]
Priorities: TypeAlias = npt.NDArray[np.number[Any]]
Draw: TypeAlias = Callable[[int, int], Priorities]
"""Returns the priorities of rows from the first number to before the second."""

_BLOCK = 1 << 15  # rows that draw priorities at once: what fits the cache
_NOTHING = (1 << 64) - 1


def smallest(draw: Draw, count: int, size: int, threshold: float) -> tuple[I64, Priorities, float]:
    """Return where the smallest priorities are, in their order, and what they are.

    Args:
        draw: the priorities: float64, or uniform uint64.
        count: how many there are.
        size: how many to return at most.
        threshold: only those below it; infinite, or 2**64 - 1 for uniform ones, if all are.

    Returns:
        (n,) places, (n,) priorities, and the smallest priority not among them if it is below
        ``threshold``, else ``threshold``.

    >>> priorities = np.array([0.5, 0.1, 0.9, 0.3])
    >>> places, _, threshold = smallest(lambda a, b: priorities[a:b], 4, 2, math.inf)
    >>> places.tolist(), threshold
    ([1, 3], 0.5)
    """
    places, keys = np.empty(0, dtype=np.int64), draw(0, 0)
    for start in range(0, count, _BLOCK):
        block = draw(start, min(start + _BLOCK, count))
        chosen = _candidates(block, size, threshold)
        if not len(chosen):
            continue
        places = np.concatenate([places, chosen + start])
        keys = np.concatenate([keys, block[chosen]])
        if len(keys) > size:
            order = np.argpartition(keys, size)
            threshold = keys[order[size]].item()
            places, keys = places[order[:size]], keys[order[:size]]
    order = np.argsort(keys, kind="stable")
    return places[order], keys[order], threshold


def _candidates(block: Priorities, size: int, threshold: float) -> I64:
    """Return where priorities are that may be small enough."""
    if threshold == _NOTHING and len(block) > 4 * size:
        # Uniform ones need not all be looked at: enough lie below this, nearly always.
        likely = (size + 8 * math.isqrt(size) + 16) * ((1 << 64) // len(block))
        chosen = np.flatnonzero(block < likely)
        if len(chosen) > size:
            return chosen
    return np.flatnonzero(block < threshold)
