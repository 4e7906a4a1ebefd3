"""Windows on a grid of time, as numbers: which panes and windows a time belongs to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows [origin + i * every, ... + length) for all integers i; microseconds.

    Panes are the greatest common divisor of `length` and `every`, so that a window is a run of
    whole panes.
    """

    origin: int
    length: int
    every: int
    pane: int = field(init=False)
    step: int = field(init=False)
    """Panes between the starts of windows."""
    width: int = field(init=False)
    """Panes in a window."""

    def __post_init__(self) -> None:
        pane = math.gcd(self.length, self.every)
        object.__setattr__(self, "pane", pane)
        object.__setattr__(self, "step", self.every // pane)
        object.__setattr__(self, "width", self.length // pane)

    def start(self, window: int) -> int:
        """Return the first instant of a window."""
        return self.origin + window * self.every

    def end(self, window: int) -> int:
        """Return the first instant after a window."""
        return self.start(window) + self.length

    def panes_at(self, times: I64) -> I64:
        """Return the pane of each time."""
        return (times - self.origin) // self.pane

    @overload
    def first_window(self, pane: int) -> int: ...
    @overload
    def first_window(self, pane: I64) -> I64: ...
    def first_window(self, pane: int | I64) -> int | I64:
        """Return the first window that holds a pane."""
        return (pane - self.width) // self.step + 1

    @overload
    def last_window(self, pane: int) -> int: ...
    @overload
    def last_window(self, pane: I64) -> I64: ...
    def last_window(self, pane: int | I64) -> int | I64:
        """Return the last window that holds a pane."""
        return pane // self.step

    @overload
    def closed_at(self, watermark: int) -> int: ...
    @overload
    def closed_at(self, watermark: I64) -> I64: ...
    def closed_at(self, watermark: int | I64) -> int | I64:
        """Return the first window that is still open at a watermark."""
        return (watermark - self.origin - self.length) // self.every + 1
