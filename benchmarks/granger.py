"""All ordered pairs of Granger F tests against `statsmodels`: `python -m benchmarks.granger`.

20 series, 1,000 rows, 5 lags. Both sides start from the rows and end with F and p of all 380
ordered pairs; `statsmodels` does it pair by pair with `grangercausalitytests`, asked for the one
lag order. One BLAS thread each. Equal means F to 1e-9 relative and p to 1e-9.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import itertools

import numpy as np
import numpy.typing as npt

from benchmarks.rivals import alternate, report
from state.causal import granger
from state.moments import LaggedMoments

F64 = npt.NDArray[np.float64]
SERIES, ROWS, LAGS = 20, 1000, 5


def main() -> None:
    """Run both sides and report."""
    from statsmodels.tsa.stattools import grangercausalitytests

    rng = np.random.default_rng(20)
    x = rng.standard_normal((ROWS, SERIES))
    for t in range(1, ROWS):
        x[t] += 0.3 * x[t - 1] + 0.2 * np.roll(x[t - 1], 1)

    def ours() -> tuple[F64, F64]:
        result = granger(LaggedMoments.from_rows(x, LAGS), LAGS)
        return result.f, result.p

    def theirs() -> tuple[F64, F64]:
        f = np.full((SERIES, SERIES), np.nan)
        p = np.full((SERIES, SERIES), np.nan)
        for cause, effect in itertools.permutations(range(SERIES), 2):
            tests, _ = grangercausalitytests(x[:, [effect, cause]], [LAGS])[LAGS]
            f[cause, effect], p[cause, effect] = tests["ssr_ftest"][:2]
        return f, p

    def equal(a: tuple[F64, F64], b: tuple[F64, F64]) -> bool:
        return np.allclose(a[0], b[0], rtol=1e-9, atol=0, equal_nan=True) and np.allclose(
            a[1], b[1], rtol=0, atol=1e-9, equal_nan=True
        )

    timing = alternate(ours, theirs, equal, rounds=7)
    print(f"{SERIES} series, {ROWS} rows, {LAGS} lags, {SERIES * (SERIES - 1)} ordered pairs")
    print("| round | ours, ms | statsmodels, ms | ratio |")
    print("| --- | --- | --- | --- |")
    for at, (a, b) in enumerate(zip(timing.ours, timing.theirs, strict=True), 1):
        print(f"| {at} | {a * 1e3:.2f} | {b * 1e3:.0f} | {b / a:.0f} |")
    report("granger", timing, target=500)


if __name__ == "__main__":
    main()
