"""Run two sides in one process, alternating, and end with the JSON line that every claim needs."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round of both sides, and whether their results were equal every time."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    equal: bool

    @property
    def ratios(self) -> list[float]:
        """Their seconds over ours, per round: above 1, ours is faster."""
        return [t / o for o, t in zip(self.ours, self.theirs, strict=True)]


def alternate(
    ours: Callable[[], A],
    theirs: Callable[[], B],
    equal: Callable[[A, B], bool],
    *,
    rounds: int = 5,
    warm: bool = True,
) -> Timing:
    """Time `ours` and `theirs` in turn, `rounds` times each, and compare every pair of results."""
    if warm:
        ours()
        theirs()
    mine, other, same = [], [], True
    for _ in range(rounds):
        gc.collect()
        start = time.perf_counter()
        a = ours()
        middle = time.perf_counter()
        b = theirs()
        end = time.perf_counter()
        mine.append(middle - start)
        other.append(end - middle)
        same = same and equal(a, b)
    return Timing(tuple(mine), tuple(other), same)


def report(name: str, timing: Timing, *, target: float | None = None, **more: object) -> None:
    """Print the median ratio with its spread, then the JSON line."""
    ratios = timing.ratios
    line = {
        "name": name,
        "ours": statistics.median(timing.ours),
        "theirs": statistics.median(timing.theirs),
        "unit": "s",
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "equal": timing.equal,
        "rounds": len(ratios),
        "target": target,
        **more,
    }
    print(
        f"{name}: {line['ratio_median']:.1f}x (from {min(ratios):.1f}x to {max(ratios):.1f}x over "
        f"{len(ratios)} rounds), results {'equal' if timing.equal else 'NOT EQUAL'}"
    )
    print(json.dumps(line))
