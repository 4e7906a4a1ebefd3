"""The seeds of count-min's rows, and whether the installed `datasketches` has the same.

`count_min_sketch` of Apache DataSketches draws its seeds with C++'s ``std::default_random_engine``,
which each standard library defines as it likes, and does not write them into its images. These are
the seeds of libstdc++, which all Linux builds of the library have; here they are what they are on
every platform.

Source: libstdc++, ``minstd_rand0`` and ``std::uniform_int_distribution`` (``uniform_int_dist.h``);
datasketches-cpp, ``count/include/count_min_impl.hpp``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from datasketches import count_min_sketch  # type: ignore[import-untyped,unused-ignore]

from state.hashing import hash64

_MODULUS = 2**31 - 1
_SPAN = _MODULUS - 2  # largest draw of the engine, counted from its smallest, 1
_ALL = 2**64 - 1
_PROBE_BUCKETS = 1009
_IMAGE_HEAD = 24  # bytes before the table, the total among them


@functools.lru_cache(maxsize=64)
def row_seeds(seed: int, rows: int) -> tuple[int, ...]:
    """Return the seeds of the rows of a sketch.

    >>> row_seeds(9001, 2)
    (4480857443237086988, 6631161516192699342)
    """
    state = seed % _MODULUS or 1

    def draw() -> int:
        nonlocal state
        state = state * 16807 % _MODULUS
        return state - 1

    return tuple((_uniform(draw, _ALL) + seed) & _ALL for _ in range(rows))


@functools.lru_cache(maxsize=64)
def library_agrees(seed: int, rows: int) -> bool:
    """Return whether `datasketches`, as it was built here, has the same seeds."""
    theirs = count_min_sketch(rows, _PROBE_BUCKETS, seed)
    theirs.update(7)
    image = np.frombuffer(theirs.serialize(), "<f8", offset=_IMAGE_HEAD).reshape(rows, -1)
    ours = [int(hash64(pa.array([7]), one)[0]) % _PROBE_BUCKETS for one in row_seeds(seed, rows)]
    return bool((image.argmax(axis=1) == ours).all())


def _uniform(draw: Callable[[], int], largest: int) -> int:
    if largest < _SPAN:
        scale = _SPAN // (largest + 1)
        while True:
            drawn = draw()
            if drawn < scale * (largest + 1):
                return drawn // scale
    while True:
        high = (_SPAN + 1) * _uniform(draw, largest // (_SPAN + 1)) & _ALL
        drawn = (high + draw()) & _ALL
        if high <= drawn <= largest:
            return drawn
