"""One tick of all-pairs Granger tests over a sliding window: `python -m benchmarks.granger_tick`.

50 series, 5 lags, a window of 1,000 rows. A tick is one new row in, the oldest out, and F of all
2,450 ordered pairs. Three rivals recompute each tick from the rows of the window:

- *least squares* (the one of the headline): lag columns are made once, then each pair's larger
  fit is a normal-equations solve on its own 11 columns, and each effect's smaller fit is solved
  once, not once for each pair; plain NumPy, and no scatter is shared between pairs.
- *one Gram matrix*: as above, but one BLAS product makes the Gram matrix of all 300 columns and
  a stacked `numpy.linalg.solve` all fits. The strongest plain NumPy we could write.
- *our own code from scratch*: `granger(LaggedMoments.from_rows(window))`, so that the sliding
  state alone is compared.

One BLAS thread each. Equal means F to 1e-9 relative. Ten ticks are one round.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from benchmarks.rivals import Timing, alternate, report
from state.causal import granger
from state.moments import LaggedMoments
from state.sliding_moments import SlidingMoments

F64 = npt.NDArray[np.float64]
SERIES, LAGS, WINDOW, TICKS, ROUNDS = 50, 5, 1000, 10, 7


def least_squares(window: F64) -> F64:
    """Return pairwise F by one small fit for each pair."""
    count = window.shape[1]
    n = len(window) - LAGS
    lagged = np.stack([window[LAGS - k : len(window) - k] for k in range(1, LAGS + 1)], axis=2)
    now = window[LAGS:]
    one = np.ones((n, 1))
    f = np.full((count, count), np.nan)
    for j in range(count):
        own = np.concatenate([one, lagged[:, j]], axis=1)
        y = now[:, j]
        less = y - own @ np.linalg.solve(own.T @ own, own.T @ y)
        restricted = less @ less
        for i in range(count):
            if i != j:
                design = np.concatenate([own, lagged[:, i]], axis=1)
                rest = y - design @ np.linalg.solve(design.T @ design, design.T @ y)
                ssr = rest @ rest
                f[i, j] = (restricted - ssr) / LAGS / (ssr / (n - 2 * LAGS - 1))
    return f


def one_gram(window: F64) -> F64:
    """Return pairwise F from one Gram matrix and stacked solves."""
    count = window.shape[1]
    n = len(window) - LAGS
    z = np.concatenate([window[LAGS - k : len(window) - k] for k in range(LAGS + 1)], axis=1)
    z = z - z.mean(axis=0)
    gram = z.T @ z
    past = np.arange(1, LAGS + 1) * count
    i, j = (a.reshape(-1) for a in np.mgrid[:count, :count])
    other = i != j
    i, j = i[other], j[other]
    own = np.arange(count)[:, None] + past
    small = gram[own[:, :, None], own[:, None, :]]
    aim = gram[own, np.arange(count)[:, None]]
    total = np.diagonal(gram)[:count]
    restricted = total - np.einsum(
        "ja,ja->j", aim, np.linalg.solve(small, aim[:, :, None])[:, :, 0]
    )
    at = np.concatenate([own[j], own[i]], axis=1)
    large = gram[at[:, :, None], at[:, None, :]]
    aim = gram[at, j[:, None]]
    ssr = total[j] - np.einsum("pa,pa->p", aim, np.linalg.solve(large, aim[:, :, None])[:, :, 0])
    f = np.full((count, count), np.nan)
    f[i, j] = (restricted[j] - ssr) / LAGS / (ssr / (n - 2 * LAGS - 1))
    return f


def from_scratch(window: F64) -> F64:
    """Return pairwise F by our own code without the sliding state."""
    return granger(LaggedMoments.from_rows(window, LAGS), LAGS).f


def main() -> None:
    """Run ours against each rival and report the first."""
    rng = np.random.default_rng(50)
    x = rng.standard_normal((WINDOW + 10 * TICKS * ROUNDS, SERIES))
    for t in range(1, len(x)):
        x[t] += 0.3 * x[t - 1] + 0.2 * np.roll(x[t - 1], 1)

    def against(rival: Callable[[F64], F64]) -> Timing:
        sliding = SlidingMoments(SERIES, LAGS, WINDOW)
        for row in x[:WINDOW]:
            sliding.push(row)
        here = there = WINDOW

        def ours() -> list[F64]:
            nonlocal here
            results = []
            for row in x[here : here + TICKS]:
                sliding.push(row)
                results.append(granger(sliding, LAGS).f)
            here += TICKS
            return results

        def theirs() -> list[F64]:
            nonlocal there
            results = [rival(x[t + 1 - WINDOW : t + 1]) for t in range(there, there + TICKS)]
            there += TICKS
            return results

        def equal(a: list[F64], b: list[F64]) -> bool:
            return np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True)

        return alternate(ours, theirs, equal, rounds=ROUNDS)

    rivals = {"least squares": least_squares, "one Gram": one_gram, "our own": from_scratch}
    timings = {name: against(rival) for name, rival in rivals.items()}
    print(f"{SERIES} series, {LAGS} lags, window {WINDOW}; ms a tick, medians")
    print("| recomputed by | ours, ms | theirs, ms | ratio | equal |")
    print("| --- | --- | --- | --- | --- |")
    for name, timing in timings.items():
        a = statistics.median(timing.ours) / TICKS * 1e3
        b = statistics.median(timing.theirs) / TICKS * 1e3
        ratio = statistics.median(timing.ratios)
        print(f"| {name} | {a:.2f} | {b:.2f} | {ratio:.1f} | {timing.equal} |")
    report(
        "granger_tick",
        timings["least squares"],
        target=100,
        rival="least squares for each pair from the window",
        ratio_one_gram=statistics.median(timings["one Gram"].ratios),
        ratio_own_code=statistics.median(timings["our own"].ratios),
        equal_all=all(timing.equal for timing in timings.values()),
        ticks=TICKS,
    )


if __name__ == "__main__":
    main()
