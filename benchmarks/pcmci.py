"""PCMCI over lagged moments against `tigramite`: `python -m benchmarks.pcmci`.

Both sides start from the same rows, 20 series of 1,000, and end with values, p-values and
parents of every link at lags 1..5 (PC1 level .05, linear partial correlation). Ours folds the rows
into moments first, inside the time taken. One BLAS thread each. Equal means the same parents in
the same order, and values and p-values within 1e-9. Moments hold the square of the rows' condition
number, so on the strongly autocorrelated system, whose series are nearly collinear, the last
digits differ: the table says by how much; the verdict of the last line is on the first system.
tigramite runs with its defaults; its `recycle_residuals` made it slower (8.6-9.5 s, not 6.2-6.9).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.rivals import alternate, report
from benchmarks.systems import Setting, generate
from state.causal.parcorr import PcmciResult, pcmci
from state.moments import LaggedMoments

SERIES, ROWS, LAGS, LEVEL = 20, 1000, 5, 0.05
Rival = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], dict[int, list[tuple[int, int]]]]


def rival(x: npt.NDArray[np.float64]) -> Callable[[], Rival]:
    """Return a run of tigramite on `x` with nothing cached from an earlier one."""
    with warnings.catch_warnings():
        # Its optional plotting and GPU modules warn that they are missing.
        warnings.simplefilter("ignore")
        from tigramite.data_processing import DataFrame
        from tigramite.independence_tests.parcorr import ParCorr
        from tigramite.pcmci import PCMCI

    def run() -> Rival:
        model: Any = PCMCI(dataframe=DataFrame(x), cond_ind_test=ParCorr(), verbosity=0)
        found = model.run_pcmci(tau_min=1, tau_max=LAGS, pc_alpha=LEVEL)
        return found["val_matrix"], found["p_matrix"], model.all_parents

    return run


def difference(found: PcmciResult, expected: Rival) -> float:
    """Return the largest difference of values and p-values; infinite if parents differ."""
    value, p, parents = expected
    for effect, kept in enumerate(found.parents):
        if kept != tuple((cause, -lag) for cause, lag in parents[effect]):
            return math.inf
    return float(max(np.abs(found.value - value).max(), np.abs(found.p - p).max()))


def main() -> None:
    """Time both sides on a linear system and on a strongly autocorrelated one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"N={SERIES}, T={ROWS}, lags 1..{LAGS}, PC1 level {LEVEL}, one BLAS thread")
    print("| system | condition | ours, ms | of it moments | tigramite, ms | ratio | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    timings, gaps = {}, {}
    for name, own in (("autocorrelation .3", 0.3), ("autocorrelation .9", 0.9)):
        x = generate(Setting(series=SERIES, rows=ROWS, autocorrelation=own), seed=1).x
        seen: list[float] = []

        def ours(x: npt.NDArray[np.float64] = x) -> PcmciResult:
            return pcmci(LaggedMoments.from_rows(x, 2 * LAGS), LAGS, alpha=LEVEL)

        def same(found: PcmciResult, expected: Rival, seen: list[float] = seen) -> bool:
            seen.append(difference(found, expected))
            return seen[-1] <= 1e-9

        timing = timings[name] = alternate(ours, rival(x), same, rounds=rounds)
        gaps[name] = max(seen)
        folding = []
        for _ in range(5):
            start = time.perf_counter()
            scatter = LaggedMoments.from_rows(x, 2 * LAGS).scatter(2 * LAGS)
            folding.append(time.perf_counter() - start)
        scale = np.sqrt(np.diag(scatter.matrix))
        mine, theirs, fold = (
            1e3 * statistics.median(t) for t in (timing.ours, timing.theirs, folding)
        )
        print(
            f"| {name} | {np.linalg.cond(scatter.matrix / scale[:, None] / scale):.0e} | "
            f"{mine:.1f} | {fold:.1f} | {theirs:.0f} | "
            f"{statistics.median(timing.ratios):.0f}x | {gaps[name]:.0e} |"
        )
    first, hard = timings.values()
    gap, hard_gap = gaps.values()
    report(
        "pcmci",
        first,
        target=80,
        ratio_autocorrelated=statistics.median(hard.ratios),
        equal_autocorrelated=hard.equal,
        largest_difference=gap,
        largest_difference_autocorrelated=hard_gap,
    )


if __name__ == "__main__":
    main()
