"""Random words by their number: Philox4x64-10, compiled.

Word n of a key is a function of n alone, so whoever knows how many were drawn goes on with the
next. The words are those of ``numpy.random.Philox(key=(seed, stream)).random_raw``, at a third of
its time.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3" (SC 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped,unused-ignore]
from numba.core import types
from numba.extending import intrinsic

from state.murmur import U64, compiled, inlined

_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_ROUNDS = 10
_0, _1 = np.uint64(0), np.uint64(1)


def words(seed: int, stream: int, first: int, count: int) -> U64:
    """Return words ``first`` to ``first + count`` of a key, (count,) uint64.

    >>> key = np.array([7, 9], dtype=np.uint64)
    >>> bool((words(7, 9, 2, 3) == np.random.Philox(key=key).random_raw(5)[2:]).all())
    True
    """
    step, skip = divmod(first, 4)
    out = np.empty((skip + count + 3) // 4 * 4, dtype=np.uint64)
    _fill(np.uint64(seed), np.uint64(stream), np.uint64(step), out)
    return out[skip : skip + count]


def _product_code(context: Any, a: Any, b: Any) -> Any:
    pair = types.UniTuple(types.uint64, 2)  # type: ignore[no-untyped-call,unused-ignore]

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word, wide = ir.IntType(64), ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, wide(64)), word)
        return context.make_tuple(builder, pair, (high, builder.trunc(product, word)))

    return pair(types.uint64, types.uint64), emit


# The 128 bits of a product, as its upper and its lower half.
_product = cast("Callable[[np.uint64, np.uint64], tuple[Any, Any]]", intrinsic(_product_code))


@inlined
def _round(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> tuple[Any, Any, Any, Any]:
    high0, low0 = _product(_M0, c0)
    high1, low1 = _product(_M1, c2)
    return high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0


@compiled
def _fill(k0: np.uint64, k1: np.uint64, step: np.uint64, out: U64) -> None:
    # Steps count from 1. They do not wrap: a reservoir has seen fewer than 2**64 rows.
    for i in range(out.size // 4):
        step += _1
        c0, c1, c2, c3, a, b = step, _0, _0, _0, k0, k1
        for _ in range(_ROUNDS):
            c0, c1, c2, c3 = _round(c0, c1, c2, c3, a, b)
            a += _W0
            b += _W1
        out[4 * i] = c0
        out[4 * i + 1] = c1
        out[4 * i + 2] = c2
        out[4 * i + 3] = c3
