"""KLL sketches of doubles in the image format of Apache DataSketches.

C++, Java and Python libraries, Spark's `kll_sketch_agg_double` among them, read and write these
images. Little-endian:

    u8 preamble words (2 or 5), u8 serial version, u8 family 15, u8 flags, u16 k, u8 m, u8 0
    one value:   f64
    more:        u64 rows, u16 smallest k merged, u8 levels L, u8 0, u32 start of each level,
                 f64 minimum, f64 maximum, f64 for each value kept, level 0 first

Starts count from the beginning of an array that ends with the values and has the capacity of all
levels.

Source: `kll_sketch.hpp` and `kll_helper.hpp` of https://github.com/apache/datasketches-cpp.
"""

from __future__ import annotations

import functools
import struct
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

LEAST_CAPACITY = 8
"""The smallest capacity of a level, and the smallest k."""
MOST_LEVELS = 56

_HEAD = struct.Struct("<BBBBHBB")
_BODY = struct.Struct("<QHBB")
_ENDS = struct.Struct("<dd")
_VALUE = struct.Struct("<d")
_FAMILY = 15
_EMPTY, _SORTED, _SINGLE = 1, 2, 4


class Image(NamedTuple):
    """What an image holds."""

    k: int
    smallest_k: int
    rows: int
    minimum: float
    maximum: float
    levels: list[F64]
    """Values of weight 1, 2, 4, ..., each level sorted."""


@functools.lru_cache(maxsize=256)
def capacities(k: int, levels: int) -> tuple[int, ...]:
    """Return how many values each level may hold: k at the top, two thirds of it below, ..."""
    scaled = ((2 * k * 2**depth // 3**depth + 1) >> 1 for depth in reversed(range(levels)))
    return tuple(max(LEAST_CAPACITY, capacity) for capacity in scaled)


def write_image(image: Image) -> bytes:
    """Return the compact image of a sketch whose levels are sorted and within their capacity."""
    values = np.concatenate(image.levels).astype("<f8").tobytes()
    if not image.rows:
        return _HEAD.pack(2, 1, _FAMILY, _EMPTY, image.k, LEAST_CAPACITY, 0)
    if image.rows == 1:
        flags = _SINGLE | _SORTED
        return _HEAD.pack(2, 2, _FAMILY, flags, image.k, LEAST_CAPACITY, 0) + values
    count = len(image.levels)
    start = sum(capacities(image.k, count)) - sum(map(len, image.levels))
    starts = []
    for level in image.levels:
        starts.append(start)
        start += len(level)
    return b"".join(
        [
            _HEAD.pack(5, 1, _FAMILY, _SORTED, image.k, LEAST_CAPACITY, 0),
            _BODY.pack(image.rows, image.smallest_k, count, 0),
            struct.pack(f"<{count}I", *starts),
            _ENDS.pack(image.minimum, image.maximum),
            values,
        ]
    )


def read_image(data: bytes) -> Image:
    """Return what the image ``data`` holds.

    Raises:
        ValueError: it is not the image of a KLL sketch of doubles, or is damaged.
    """
    try:
        return _read(data)
    except struct.error as error:
        raise ValueError("the image of a KLL sketch ends early") from error


def _read(data: bytes) -> Image:
    words, version, family, flags, k, m, _ = _HEAD.unpack_from(data)
    at = _HEAD.size
    if family != _FAMILY or m != LEAST_CAPACITY or k < LEAST_CAPACITY:
        raise ValueError(f"not a KLL sketch: family {family}, k={k}, m={m}")
    form = (words, version, flags & (_EMPTY | _SINGLE))
    if form == (2, 1, _EMPTY) and len(data) == at:
        return Image(k, k, 0, np.inf, -np.inf, [np.empty(0)])
    if form == (2, 2, _SINGLE) and len(data) == at + _VALUE.size:
        (value,) = _VALUE.unpack_from(data, at)
        return _checked(Image(k, k, 1, value, value, [np.array([value])]))
    if form != (5, 1, 0):
        raise ValueError(f"not a KLL sketch of doubles: {len(data)} bytes, {form}")
    rows, smallest_k, count, _ = _BODY.unpack_from(data, at)
    at += _BODY.size
    if not 1 <= count <= MOST_LEVELS or not LEAST_CAPACITY <= smallest_k <= k:
        raise ValueError(f"a KLL sketch of {count} levels with k={k}, {smallest_k}")
    starts = list(struct.unpack_from(f"<{count}I", data, at))
    at += 4 * count
    minimum, maximum = _ENDS.unpack_from(data, at)
    at += _ENDS.size
    starts.append(sum(capacities(k, count)))
    if sorted(starts) != starts or len(data) != at + 8 * (starts[-1] - starts[0]):
        raise ValueError(f"a KLL sketch of {len(data)} bytes: its levels say otherwise")
    levels: list[F64] = []
    for first, last in pairwise(starts):
        level = np.frombuffer(data, "<f8", last - first, at).astype(np.float64)
        levels.append(np.sort(level) if not levels else level)
        at += 8 * (last - first)
    return _checked(Image(k, smallest_k, rows, minimum, maximum, levels))


def _checked(image: Image) -> Image:
    """Refuse levels that no input leads to."""
    if image.rows != sum(len(level) << h for h, level in enumerate(image.levels)):
        raise ValueError(f"a KLL sketch of {image.rows} rows: its values stand for others")
    if image.rows >> 62 or (len(image.levels) > 1 and not len(image.levels[-1])):
        raise ValueError("a KLL sketch with too many rows or levels")
    check_levels(image.levels, image.minimum, image.maximum)
    return image


def check_levels(levels: list[F64], minimum: float, maximum: float) -> None:
    """Raise ValueError if a level is not sorted, has a NaN or lies outside the ends."""
    for level in filter(len, levels):
        # Written so that NaN fails too.
        if not (minimum <= level[0] and level[-1] <= maximum and (level[:-1] <= level[1:]).all()):
            raise ValueError("a level of a KLL sketch is not sorted between minimum and maximum")
