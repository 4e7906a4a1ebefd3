"""Exact sums of numbers and of their squares, as whole numbers.

Every finite float64 is a whole multiple of 2**-1074, and every square of one of 2**-2148. Floats
of one exponent are added as whole numbers, 512 at most; those sums, and integers, go into an array
of 32-bit digits held in 64-bit words (a *superaccumulator*), which leaves room for 1024 additions
before carries must move; in the end the words make one Python integer. No addition rounds, so the
sum does not depend on the order or on how the rows were split.

Source: R. M. Neal, "Fast exact summation using small and large superaccumulators" (2015),
arXiv:1505.05571 (his large one has a word for each exponent as well); here with 32-bit digits, for
products as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from state.murmur import compiled

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

SUM_SCALE = 1088
"""Sums are in units of 2**-1088: the first multiple of 32 beyond the 1074 that are needed."""
SQUARE_SCALE = 2 * SUM_SCALE
_SUM_DIGITS = 70  # (1088 + 1024) / 32, three digits per addend, two of head room
_SQUARE_DIGITS = 138
_SUM_ONE = np.uint64(SUM_SCALE // 32)
_SQUARE_ONE = np.uint64(SQUARE_SCALE // 32)
_MOST = 512  # rows at once: a word takes 2**10 addends below 2**53, or 2**9 below 2**54

_ONE = np.uint64(1)
_WIDE = np.uint64(5)
_MASK = np.uint64(0xFFFFFFFF)
_FRACTION = np.uint64((1 << 52) - 1)
_HIDDEN = np.uint64(1 << 52)
_EXPONENT = np.uint64(0x7FF)
_LOW27 = np.uint64((1 << 27) - 1)


class Sums(NamedTuple):
    """What one column adds up to."""

    total: int
    """Sum of the finite values, in units of 2**-SUM_SCALE."""
    squares: int
    """Sum of their squares, in units of 2**-SQUARE_SCALE."""
    nans: int
    positive: int
    """How many values were +inf."""
    negative: int
    """How many values were -inf."""


def sum_numbers(x: F64 | I64 | U64) -> Sums:
    """Add a contiguous, read-only array of float64, int64 or uint64 up, exactly."""
    sums = np.zeros(_SUM_DIGITS, dtype=np.int64)
    squares = np.zeros(_SQUARE_DIGITS, dtype=np.int64)
    others = np.zeros(3, dtype=np.int64)
    bits = x.view(np.uint64)
    if x.dtype == np.float64:
        _add_floats(bits, sums, squares, others)
    else:
        _add_integers(bits, x.dtype == np.int64, sums, squares)
    return Sums(_whole(sums), _whole(squares), *(int(n) for n in others))


def _whole(digits: I64) -> int:
    """Return the number that 32-bit digits and a signed top word stand for."""
    low = int.from_bytes(digits[:-1].astype("<u4").tobytes(), "little")
    return low + (int(digits[-1]) << (32 * (len(digits) - 1)))


@compiled
def _carry(digits: I64) -> None:
    """Leave a digit below 2**32 in every word but the last."""
    for i in range(len(digits) - 1):
        digits[i + 1] += digits[i] >> np.int64(32)
        digits[i] &= np.int64(0xFFFFFFFF)


@compiled
def _add_floats(bits: U64, sums: I64, squares: I64, others: I64) -> None:
    # Significands of one exponent add up as they are, and so do the parts of their squares. A
    # bucket: the sum, three parts of squares, how many rows since they went to the digits.
    buckets = np.zeros(2048 * _WIDE, np.uint64)
    for i in range(len(bits)):
        b = bits[i]
        exponent = (b >> np.uint64(52)) & _EXPONENT
        m = b & _FRACTION
        negative = np.uint64(0) - (b >> np.uint64(63))
        if exponent == _EXPONENT:
            if m != np.uint64(0):
                others[0] += 1
            elif negative == np.uint64(0):
                others[1] += 1
            else:
                others[2] += 1
            continue
        if exponent == np.uint64(0):
            exponent = _ONE
        else:
            m |= _HIDDEN
        # |value| = m * 2**(exponent - 1075), m**2 = high**2 * 2**54 + high * low * 2**28 + low**2
        high, low = m >> np.uint64(27), m & _LOW27
        at = exponent * _WIDE
        buckets[at] += (m ^ negative) - negative
        buckets[at + _ONE] += low * low
        buckets[at + np.uint64(2)] += high * low
        buckets[at + np.uint64(3)] += high * high
        rows = buckets[at + np.uint64(4)] + _ONE
        buckets[at + np.uint64(4)] = rows
        if rows == np.uint64(_MOST):
            _empty(buckets, exponent, sums, squares)
    for e in range(2047):
        exponent = np.uint64(e)
        if buckets[exponent * _WIDE + np.uint64(4)]:
            _empty(buckets, exponent, sums, squares)
    _carry(sums)
    _carry(squares)


@compiled
def _empty(buckets: U64, exponent: np.uint64, sums: I64, squares: I64) -> None:
    at = exponent * _WIDE
    _place(np.int64(buckets[at]), exponent + np.uint64(SUM_SCALE - 1075), sums)
    place = (exponent << _ONE) + np.uint64(SQUARE_SCALE - 2150)
    _place(np.int64(buckets[at + _ONE]), place, squares)
    _place(np.int64(buckets[at + np.uint64(2)]), place + np.uint64(28), squares)
    _place(np.int64(buckets[at + np.uint64(3)]), place + np.uint64(54), squares)
    for i in range(5):
        buckets[at + np.uint64(i)] = np.uint64(0)


@compiled
def _place(number: np.int64, place: np.uint64, digits: I64) -> None:
    """Add a number below 2**63, times 2**place."""
    sign = np.int64(1) if number >= 0 else np.int64(-1)
    magnitude = np.uint64(number * sign)
    at = place >> np.uint64(5)
    shift = place & np.uint64(31)
    low = (magnitude & _MASK) << shift
    high = ((magnitude >> np.uint64(32)) << shift) + (low >> np.uint64(32))
    digits[at] += sign * np.int64(low & _MASK)
    digits[at + _ONE] += sign * np.int64(high & _MASK)
    digits[at + np.uint64(2)] += sign * np.int64(high >> np.uint64(32))


@compiled
def _add_integers(bits: U64, signed: bool, sums: I64, squares: I64) -> None:
    may_be = np.uint64(signed)
    for i in range(len(bits)):
        if i % _MOST == 0:
            _carry(sums)
            _carry(squares)
        b = bits[i]
        negative = (b >> np.uint64(63)) & may_be
        sign = np.int64(1) - np.int64(negative << _ONE)
        m = (b ^ (np.uint64(0) - negative)) + negative
        low = m & _MASK
        high = m >> np.uint64(32)
        sums[_SUM_ONE] += sign * np.int64(low)
        sums[_SUM_ONE + _ONE] += sign * np.int64(high)
        ll, lh, hh = low * low, low * high, high * high
        squares[_SQUARE_ONE] += np.int64(ll & _MASK)
        squares[_SQUARE_ONE + _ONE] += np.int64((ll >> np.uint64(32)) + ((lh & _MASK) << _ONE))
        squares[_SQUARE_ONE + np.uint64(2)] += np.int64(
            ((lh >> np.uint64(32)) << _ONE) + (hh & _MASK)
        )
        squares[_SQUARE_ONE + np.uint64(3)] += np.int64(hh >> np.uint64(32))
    _carry(sums)
    _carry(squares)
