"""How well causal links are found where they are known: `python -m benchmarks.causal_accuracy`.

Systems are drawn by `benchmarks.systems`: acyclic, 1.5 links per series, each at one lag of 1..3,
of size .15 to .4 (noise has variance 1) unless the row says otherwise. The methods are given the
greatest lag, 3, and nothing else.

How F1 is counted. A link is an ordered pair (cause, effect) of two different observed series,
whatever its lag; a series' own past is not counted. A method reports the pairs it finds at a 5 %
false discovery rate (Benjamini-Hochberg over all pairs; for PCMCI, over all pairs and lags, and a
pair is found if any lag is). F1 = 2 TP / (2 TP + FP + FN), per system; the table has the mean over
seeds and its standard deviation between seeds. With a hidden driver the truth stays the links
among the observed series, so a pair that is reported because one hidden series drives both is
wrong. At a false discovery rate of 5 % a method that misses nothing has an F1 of about .975.

PCMCI drops a true parent now and then in its first step (PC1), and then reports what that parent
explained; with strong autocorrelation this costs precision, and a laxer PC1 wins it back.

Gaussian transfer entropy has no column: it is a monotone function of the same F, and finds
the same pairs.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.systems import Setting, System, generate
from state.causal import benjamini_hochberg, granger, granger_robust, pcmci
from state.moments import LaggedMoments

LAGS = 3
LEVEL = 0.05
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

SETTINGS: dict[str, Setting] = {
    "linear Gaussian": Setting(),
    "t4 + GARCH": Setting(noise="garch"),
    "hidden drivers (2, of 3 series each)": Setting(hidden=2, children=3),
    "autocorrelation .9": Setting(autocorrelation=0.9),
    "hidden drivers (2, of 5 series each)": Setting(hidden=2, children=5),
    "nonlinear": Setting(nonlinear=True),
    "weak links .05-.15": Setting(effect=(0.05, 0.15)),
    "linear Gaussian, T=1000": Setting(rows=1000),
    "t4 + GARCH, T=1000": Setting(noise="garch", rows=1000),
    "autocorrelation .9, T=1000": Setting(autocorrelation=0.9, rows=1000),
    "nonlinear, T=1000": Setting(nonlinear=True, rows=1000),
    "hidden driver (1, of 5 series), N=10": Setting(series=10, hidden=1, children=5),
    "weak links .05-.15, N=10, T=500": Setting(series=10, rows=500, effect=(0.05, 0.15)),
}

TARGETS = dict(zip(SETTINGS, (0.95, 0.93, 0.85, 0.95), strict=False))


def reported(p: Floats) -> Bools:
    """Return the pairs found from p-values (N, N)."""
    p = p.copy()
    np.fill_diagonal(p, np.nan)
    q = benjamini_hochberg(p)
    found: Bools = q <= LEVEL
    return found


def pairwise(x: Floats) -> Bools:
    """Granger's F test of every pair on its own."""
    return reported(granger(LaggedMoments.from_rows(x, LAGS), LAGS).p)


def conditional(x: Floats) -> Bools:
    """Granger's F test of every pair given the past of all series: the headline."""
    return reported(granger(LaggedMoments.from_rows(x, LAGS), LAGS, conditional=True).p)


def robust(x: Floats) -> Bools:
    """The same with errors robust to heteroskedasticity (HC3), which needs the rows."""
    return reported(granger_robust(x, LAGS, conditional=True).p)


def momentary(x: Floats, alpha: float = 0.05) -> Bools:
    """PCMCI with partial correlation, its first step at level `alpha`."""
    moments = LaggedMoments.from_rows(x, 2 * LAGS)
    result = pcmci(moments, LAGS, alpha=alpha, family="cross")
    found: Bools = np.logical_or.reduce(result.links(LEVEL), axis=2)
    return found


def hermite(x: Floats) -> Bools:
    """Conditional Granger where each cause acts through three Hermite polynomials of itself.

    The polynomials are those of the standardised series, cut at 3 standard deviations so that a
    cube of a fat tail does not rule the regression.
    """
    z = np.clip((x - x.mean(axis=0)) / x.std(axis=0), -3.0, 3.0)
    features = np.concatenate([x, z**2 - 1.0, z**3 - 3.0 * z], axis=1)
    n, width = x.shape[1], features.shape[1]
    scatter = LaggedMoments.from_rows(features, LAGS).scatter(LAGS)
    scale = np.sqrt(np.diag(scatter.matrix))
    matrix = scatter.matrix / scale[:, None] / scale
    inverse = np.linalg.inv(matrix[width:, width:])
    beta = inverse @ matrix[width:, :n]
    residual = 1.0 - np.einsum("ij,ij->j", matrix[width:, :n], beta)
    freedom = scatter.n - 1 - width * LAGS
    p = np.ones((n, n))
    for cause in range(n):
        block = np.arange(cause, width * LAGS, n)
        gain = np.einsum(
            "ij,ij->j",
            beta[block],
            np.linalg.solve(inverse[np.ix_(block, block)], beta[block]),
        )
        p[cause] = special.fdtrc(len(block), freedom, gain / len(block) / (residual / freedom))
    return reported(p)


METHODS: dict[str, Callable[[Floats], Bools]] = {
    "pairwise Granger": pairwise,
    "conditional Granger": conditional,
    "conditional, HC3 errors": robust,
    "conditional + Hermite": hermite,
    "PCMCI": momentary,
    "PCMCI, PC1 at .5": functools.partial(momentary, alpha=0.5),
}
HEADLINE, BASELINE = "conditional Granger", "pairwise Granger"


def share(part: int, whole: int) -> float:
    """Return a share, 1 of nothing: what was never claimed is not wrong."""
    return part / whole if whole else 1.0


def score(found: Bools, system: System) -> dict[str, float]:
    """Return F1, precision and recall of the pairs found."""
    truth = system.truth
    both, claimed, real = int((found & truth).sum()), int(found.sum()), int(truth.sum())
    return {
        "f1": share(2 * both, claimed + real),
        "precision": share(both, claimed),
        "recall": share(both, real),
    }


def main() -> None:
    """Print the table in Markdown, which targets were met, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    seeds = parser.parse_args().seeds
    start = time.perf_counter()
    print(f"F1, mean ± standard deviation over {seeds} systems; N=20 and T=5000 unless said.\n")
    print("| system |", " | ".join(METHODS), "|")
    print("| --- |", " | ".join("---" for _ in METHODS), "|")
    table: dict[str, dict[str, dict[str, float]]] = {}
    for name, setting in SETTINGS.items():
        scores: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
        for seed in range(seeds):
            system = generate(setting, seed)
            for method, find in METHODS.items():
                scores[method].append(score(find(system.x), system))
        table[name] = {
            method: {
                **{key: statistics.fmean(one[key] for one in many) for key in many[0]},
                "sd": statistics.pstdev(one["f1"] for one in many),
            }
            for method, many in scores.items()
        }
        best = max(round(cell["f1"], 2) for cell in table[name].values())
        cells = []
        for cell in table[name].values():
            text = f"{cell['f1']:.2f} ± {cell['sd']:.2f}"
            cells.append(f"**{text}**" if round(cell["f1"], 2) == best else text)
        print(f"| {name} |", " | ".join(cells), "|", flush=True)

    print(f"\nPrecision and recall of {HEADLINE}, the headline:")
    for name, row in table.items():
        print(f"{name}: {row[HEADLINE]['precision']:.2f} and {row[HEADLINE]['recall']:.2f}")
    print(f"\nTook {time.perf_counter() - start:.0f} s. Targets of the headline:")
    for name, target in TARGETS.items():
        got = table[name][HEADLINE]["f1"]
        print(f"{name}: {got:.3f}, target {target}: {'met' if got >= target else 'MISSED'}")
    ratios = [table[name][HEADLINE]["f1"] / table[name][BASELINE]["f1"] for name in TARGETS]
    rounded = {
        name: {
            method: {key: round(value, 4) for key, value in cell.items()}
            for method, cell in row.items()
        }
        for name, row in table.items()
    }
    line = {
        "name": "causal_accuracy",
        "ours": statistics.fmean(table[name][HEADLINE]["f1"] for name in TARGETS),
        "theirs": statistics.fmean(table[name][BASELINE]["f1"] for name in TARGETS),
        "unit": "F1",
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "equal": all(table[name][HEADLINE]["f1"] >= target for name, target in TARGETS.items()),
        "rounds": seeds,
        "target": TARGETS,
        "table": rounded,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
