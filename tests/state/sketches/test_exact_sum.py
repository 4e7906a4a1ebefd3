from fractions import Fraction

import numpy as np
import numpy.typing as npt

from state.sketches import exact_sum
from state.sketches.exact_sum import SQUARE_SCALE, SUM_SCALE, sum_numbers


def frozen(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values.flags.writeable = False
    return values


def test_any_bit_pattern() -> None:
    bits = np.random.default_rng(3).integers(0, 2**64, 4000, dtype=np.uint64)
    values = frozen(bits.view(np.float64))
    sums = sum_numbers(values)
    exact = [Fraction(x) for x in values[np.isfinite(values)].tolist()]
    assert Fraction(sums.total, 2**SUM_SCALE) == sum(exact)
    assert Fraction(sums.squares, 2**SQUARE_SCALE) == sum(x * x for x in exact)
    assert sums.nans == np.isnan(values).sum()


def test_the_ends_of_the_range() -> None:
    largest = np.finfo(np.float64).max
    values = frozen(np.array([largest] * 1000 + [5e-324, -np.inf, np.inf, np.inf, np.nan]))
    sums = sum_numbers(values)
    assert Fraction(sums.total, 2**SUM_SCALE) == 1000 * Fraction(largest) + Fraction(5e-324)
    assert Fraction(sums.squares, 2**SQUARE_SCALE) == (
        1000 * Fraction(largest) ** 2 + Fraction(5e-324) ** 2
    )
    assert sums[2:] == (1, 2, 1)


def test_carries_between_slices(monkeypatch) -> None:
    values = frozen(np.random.default_rng(4).integers(-(2**63), 2**63 - 1, 1000))
    whole = sum_numbers(values)
    monkeypatch.setattr(exact_sum, "_MOST", 7)
    assert sum_numbers(values) == whole
    assert whole.total == sum(values.tolist()) << SUM_SCALE
