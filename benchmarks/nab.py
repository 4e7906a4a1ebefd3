"""The Numenta benchmark with held-out thresholds: `python -m benchmarks.nab --data PATH`.

PATH holds `data/` and `labels/combined_windows.json`; those labelled files that are there are
run. Rules are in `benchmarks.nab_scoring`. Each file goes, row by row, through one
`state.detectors.SpotViews`, which calibrates on the unscored first part of the file (15 %, at most
750 rows) as the benchmark allows. After an alarm a detector rests for half as many rows as that
part has.

Protocol. The one number that is fitted with labels is the alarm threshold, one for each profile.
For every file it is the best of a fixed grid on the *other* files (leave one file out); beside it
stand five-fold cross-validation over files, averaged over 20 shuffles, and the benchmark's own
protocol, which picks the threshold that is best on the very files it scores and so is not
comparable with the first two. The method itself is not held out: about forty combinations of
eleven views, ways to combine them and lengths of the rest were looked at, by their aggregate
scores on these files, before these six views, their mean and the rest (the first one tried) were
settled on. Scores with other rests are printed. The published table is over all 58 files;
figures on a part of them do not compare with it to the point.

The rival is the benchmark's windowed Gaussian detector (a normal tail probability over the last
6,400 values, moved 100 at a time), on the same files and by the same protocol, with and without
the same rest after an alarm; the better of the two is taken.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from benchmarks.nab_scoring import (
    F64,
    PROFILES,
    Bools,
    Labelled,
    Profile,
    normalised,
    probation,
    read_corpus,
)
from state.detectors import SpotViews

I64 = npt.NDArray[np.int64]

TARGET = 60.0
REST = 0.5
OTHER_RESTS = (0.15, 0.25, 0.35, 0.75)
FOLDS, SHUFFLES = 5, 20
GRID = np.linspace(0.02, 0.98, 97)
_WARM_VIEWS = 71


def views(x: F64) -> F64:
    """Score the values (T,) of one file."""
    calibrate = max(probation(len(x)) - _WARM_VIEWS, 20)
    return SpotViews(calibrate=calibrate, series=1).update(x[:, None])[:, 0]


def windowed_gaussian(x: F64, window: int = 6400, step: int = 100) -> F64:
    """Score one file as the benchmark's baseline does, on a grid-friendly scale.

    The original score is one minus the tail probability p; -log10(p) / 20, cut to [0, 1], orders
    rows in the same way and does not round to 1.
    """
    scores = np.zeros(len(x))
    mean, deviation = float(x[0]), 1e-6
    start = 0
    for t in range(1, len(x)):
        if t - start <= window or t - start - window == step:
            start = max(t - window, start)
            mean = float(x[start:t].mean())
            deviation = float(x[start:t].std()) or 1e-6
        scores[t] = -log_ndtr(-abs(x[t] - mean) / deviation) / np.log(10.0) / 20.0
    return np.clip(scores, 0.0, 1.0)


def alarms(scores: F64, threshold: float, rest: int, start: int) -> Bools:
    """Return where an alarm is raised: each one silences the next `rest` rows."""
    fired = np.zeros(len(scores), np.bool_)
    free = start
    for t in np.flatnonzero(scores >= threshold):
        if t >= free:
            fired[t] = True
            free = int(t) + rest + 1
    return fired


def raw_scores(files: Sequence[Labelled], scores: Sequence[F64], rest: float) -> F64:
    """Return (profiles, files, thresholds) raw scores."""
    raw = np.zeros((len(PROFILES), len(files), len(GRID)))
    for i, (file, score) in enumerate(zip(files, scores, strict=True)):
        first = probation(file.rows)
        for k, threshold in enumerate(GRID):
            fired = alarms(score, threshold, int(rest * first), first)
            for p, profile in enumerate(PROFILES):
                raw[p, i, k] = file.raw(fired, profile)
    return raw


def held_out(raw: F64, folds: I64) -> float:
    """Sum raw scores (files, thresholds) with each fold's threshold chosen on the others."""
    total = 0.0
    for fold in np.unique(folds):
        chosen = int(raw[folds != fold].sum(axis=0).argmax())
        total += float(raw[folds == fold, chosen].sum())
    return total


def protocols(raw: F64, files: Sequence[Labelled], profile: Profile) -> dict[str, float]:
    """Return the normalised score of one profile's raw scores under each protocol."""

    def norm(total: float) -> float:
        return round(normalised(total, files, profile), 2)

    n = len(files)
    shuffled = [
        norm(held_out(raw, np.random.default_rng(seed).permutation(n) % FOLDS))
        for seed in range(SHUFFLES)
    ]
    return {
        "leave_one_out": norm(held_out(raw, np.arange(n))),
        "five_fold": round(float(np.mean(shuffled)), 2),
        "five_fold_min": min(shuffled),
        "five_fold_max": max(shuffled),
        "label_tuned": norm(float(raw.sum(axis=0).max())),
        "tuned_threshold": round(float(GRID[raw.sum(axis=0).argmax()]), 3),
    }


def table(
    files: Sequence[Labelled], scores: Sequence[F64], rest: float
) -> dict[str, dict[str, float]]:
    """Return the protocols' scores for every profile."""
    raw = raw_scores(files, scores, rest)
    return {p.name: protocols(raw[i], files, p) for i, p in enumerate(PROFILES)}


def main() -> None:
    """Print the tables, whether the aim was met, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with data/ and labels/")
    path = parser.parse_args().data
    if path is None:
        sys.exit("benchmarks.nab needs --data PATH: a copy of github.com/numenta/NAB")
    try:
        corpus = read_corpus(path)
    except FileNotFoundError as error:
        sys.exit(f"benchmarks.nab: {error}")
    start = time.perf_counter()
    files = [file for file, _, _ in corpus]
    ours = [views(x) for _, _, x in corpus]
    seconds = time.perf_counter() - start
    theirs = [windowed_gaussian(x) for _, _, x in corpus]

    main_table = table(files, ours, REST)
    rivals = {rest: table(files, theirs, rest) for rest in (0.0, REST)}
    sensitivity = {str(rest): table(files, ours, rest) for rest in OTHER_RESTS}

    windows = sum(len(f.windows) for f in files)
    rows = sum(f.rows for f in files)
    print(f"{len(files)} files, {windows} windows, {rows} rows; ours took {seconds:.0f} s\n")
    print("| detector | profile | leave one file out | five folds | tuned on the labels |")
    print("| --- | --- | --- | --- | --- |")
    named = {"SPOT on views": main_table, "windowed Gaussian": rivals[0.0]}
    named["windowed Gaussian, with rest"] = rivals[REST]
    for name, cells in named.items():
        for profile, row in cells.items():
            spread = f"{row['five_fold_min']:.1f}..{row['five_fold_max']:.1f}"
            print(
                f"| {name} | {profile} | {row['leave_one_out']:.1f} | "
                f"{row['five_fold']:.1f} ({spread}) | {row['label_tuned']:.1f} |"
            )
    print("\nStandard profile, leave one file out, with other rests (shares of the first part):")
    others = {rest: t["standard"]["leave_one_out"] for rest, t in sensitivity.items()}
    print(", ".join(f"{rest}: {score:.1f}" for rest, score in others.items()))

    reached = {p.name: main_table[p.name]["leave_one_out"] for p in PROFILES}
    best = max(rivals.values(), key=lambda t: float(t["standard"]["leave_one_out"]))
    against = {p.name: best[p.name]["leave_one_out"] for p in PROFILES}
    standard = reached["standard"]
    print(
        f"\nAim {TARGET:.0f} on the standard profile: {'met' if standard >= TARGET else 'MISSED'}"
    )
    ratios = [reached[name] / max(against[name], 1e-9) for name in reached]
    line = {
        "name": "nab",
        "ours": standard,
        "theirs": against["standard"],
        "unit": "NAB score, standard profile, threshold held out",
        "ratio_median": float(np.median(ratios)),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        # Two different detectors have no results that could be equal.
        "equal": None,
        "target": TARGET,
        "files": len(files),
        "windows": windows,
        "table": main_table,
        "rivals": {str(rest): t for rest, t in rivals.items()},
        "other_rests": sensitivity,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
