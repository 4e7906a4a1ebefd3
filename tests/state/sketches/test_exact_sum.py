from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

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


@pytest.mark.parametrize("place", range(0, 64, 7))
def test_words_do_not_overflow_between_carries(place: int) -> None:
    # Every bit of the significand is set, and all addends fall into the same words.
    value = (2.0 - 2.0**-52) * 2.0**place
    for sign in (1, -1):
        sums = sum_numbers(frozen(np.full(20_000, sign * value)))
        assert Fraction(sums.total, 2**SUM_SCALE) == sign * 20_000 * Fraction(value)
        assert Fraction(sums.squares, 2**SQUARE_SCALE) == 20_000 * Fraction(value) ** 2


@pytest.mark.parametrize("value", [2**64 - 1, 2**63 - 1, -(2**63)])
def test_largest_integers(value: int) -> None:
    kind = np.uint64 if value >= 2**63 else np.int64
    sums = sum_numbers(frozen(np.full(20_000, value, dtype=kind)))
    assert sums.total == 20_000 * value << SUM_SCALE
    assert sums.squares == 20_000 * value**2 << SQUARE_SCALE
