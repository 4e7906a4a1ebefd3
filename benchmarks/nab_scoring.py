"""The Numenta benchmark's scoring rules, from their published definition.

Lavin, A. and Ahmad, S. (2015), Evaluating real-time anomaly detection algorithms: the Numenta
Anomaly Benchmark, IEEE ICMLA, https://arxiv.org/abs/1510.03336. Rows in the probationary first
part of a file do not count. Of the alarms inside a labelled window the earliest earns
``weight * sigma(y) / sigma(-1)``, where y runs from -1 at the window's first row towards 0 at its
last; a window without an alarm costs the weight of a miss. An alarm outside costs the weight of a
false alarm times ``-sigma(y)``, where y is its distance past the end of the window before it in
units of that window's length less one row; before any window it costs the whole weight.
``sigma(y) = 2 / (1 + exp(5 y)) - 1``, cut to -1 beyond y = 3. Raw scores are summed over all
files and mapped so that a detector that never fires has 0 and a perfect one 100.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Profile:
    """What hits, misses and false alarms weigh."""

    name: str
    hit: float
    miss: float
    false_alarm: float


PROFILES = (
    Profile("standard", 1.0, 1.0, 0.11),
    Profile("reward_low_FP_rate", 1.0, 1.0, 0.22),
    Profile("reward_low_FN_rate", 1.0, 2.0, 0.11),
)


def sigma(y: float) -> float:
    """Return the scaled sigmoid of a position relative to a window's end."""
    return -1.0 if y > 3.0 else float(2.0 * expit(-5.0 * y) - 1.0)


def probation(rows: int) -> int:
    """Return how many first rows of a file are not scored: 15 %, of at most 5,000 rows."""
    return int(min(0.15 * rows, 0.15 * 5000))


@dataclass(frozen=True, slots=True)
class Labelled:
    """One file: its windows as inclusive ranges of row numbers."""

    name: str
    rows: int
    windows: tuple[tuple[int, int], ...]

    def raw(self, alarms: Bools, profile: Profile) -> float:
        """Return the raw score of alarms (T,)."""
        if alarms.shape != (self.rows,):
            raise ValueError(f"{self.name}: {alarms.shape} alarms for {self.rows} rows")
        earned: dict[int, float] = {}
        lost = 0.0
        for row in np.flatnonzero(alarms):
            if row < probation(self.rows):
                continue
            before = [k for k, (first, _) in enumerate(self.windows) if first <= row]
            if not before:
                lost += profile.false_alarm
                continue
            first, last = self.windows[before[-1]]
            if row <= last:
                y = -(last - row + 1) / (last - first + 1)
                got = profile.hit * sigma(y) / sigma(-1.0)
                earned[before[-1]] = max(got, earned.get(before[-1], 0.0))
            else:
                y = (row - last) / max(last - first, 1)
                lost -= profile.false_alarm * sigma(y)
        missed = len(self.windows) - len(earned)
        return sum(earned.values()) - lost - profile.miss * missed


def normalised(raw: float, files: Iterable[Labelled], profile: Profile) -> float:
    """Map a raw score over `files` so that silence is 0 and perfection 100."""
    windows = sum(len(f.windows) for f in files)
    if not windows:
        raise ValueError("files without any window cannot be normalised")
    null, perfect = -profile.miss * windows, profile.hit * windows
    return 100.0 * (raw - null) / (perfect - null)


def read_corpus(path: Path) -> list[tuple[Labelled, npt.NDArray[np.datetime64], F64]]:
    """Return the files below `path`/data that have labels, with their times and values.

    Raises:
        FileNotFoundError: there is no labels/combined_windows.json, or no labelled file.
    """
    labels = json.loads((path / "labels" / "combined_windows.json").read_text())
    corpus = []
    for name, windows in sorted(labels.items()):
        file = path / "data" / name
        if not file.exists():
            continue
        cells = [line.split(",") for line in file.read_text().splitlines()[1:]]
        times = np.array([cell[0] for cell in cells], dtype="datetime64[us]")
        values = np.array([cell[1] for cell in cells], dtype=np.float64)
        spans = []
        for start, end in windows:
            inside = (times >= np.datetime64(start)) & (times <= np.datetime64(end))
            rows = np.flatnonzero(inside)
            spans.append((int(rows[0]), int(rows[-1])))
        corpus.append((Labelled(name, len(values), tuple(sorted(spans))), times, values))
    if not corpus:
        raise FileNotFoundError(f"{path / 'data'} holds no labelled file")
    return corpus
