"""Images of `hll_sketch` of Apache DataSketches, read and written without the library.

Layout, little-endian: u8 length of the preamble in words of 4 bytes (2, 3 or 10), u8 1, u8 family
7, u8 lg_k, u8 lg of the array of coupons or exceptions, u8 flags, u8 number of coupons in a list or
the offset of 4-bit registers, u8 mode (0 list, 1 set, 2 registers) and, in bits 2 and 3, the width
of registers (0: 4, 1: 6, 2: 8 bits). Then

    list        the coupons, u32 each
    set         u32 their number, the coupons
    registers   f64 historic estimate, f64 and f64 sums of 2**-register below and from 32,
                u32 registers at the offset, u32 exceptions, the registers, the exceptions

A compact image has no empty places; an updatable one is a hash table with 0 in them.

Source: datasketches-cpp, ``hll/include/HllUtil.hpp``, ``HllArray-internal.hpp``.
"""

from __future__ import annotations

import struct

import numpy as np

from state.sketches.coupons import ADDRESS_BITS, LARGEST_VALUE, U8, U32

LEAST_LG_K, MOST_LG_K = 4, 21

_HEAD = struct.Struct("<8B")
_COUNT = struct.Struct("<I")
_SUMS = struct.Struct("<dddII")
_FAMILY = 7
_LIST, _SET, _REGISTERS = 0, 1, 2
_PREAMBLE = {_LIST: 2, _SET: 3, _REGISTERS: 10}
_EMPTY, _COMPACT, _OUT_OF_ORDER = 4, 8, 16
_EIGHT_BITS = 2
_LIST_LG, _SET_LG = 3, 5
_ADDRESS = (1 << ADDRESS_BITS) - 1


def coupon_limit(lg_k: int) -> int:
    """Return how many distinct coupons turn a sketch into registers.

    >>> coupon_limit(12)
    385
    """
    if lg_k < 8:
        return 1 << _LIST_LG
    return (3 << (lg_k - 3)) // 4 + 1


def write_coupons(lg_k: int, coupons: U32) -> bytes:
    """Return the compact image of a sketch of these distinct coupons, fewer than its limit."""
    count = len(coupons)
    mode_and_width = _EIGHT_BITS << 2
    if count < 1 << _LIST_LG:
        flags = _COMPACT | (0 if count else _EMPTY)
        head = _HEAD.pack(2, 1, _FAMILY, lg_k, _LIST_LG, flags, count, mode_and_width | _LIST)
        return head + coupons.astype("<u4").tobytes()
    lg = _SET_LG
    while 4 * count > 3 << lg:
        lg += 1
    head = _HEAD.pack(3, 1, _FAMILY, lg_k, lg, _COMPACT, 0, mode_and_width | _SET)
    return head + _COUNT.pack(count) + coupons.astype("<u4").tobytes()


def write_registers(registers: U8) -> bytes:
    """Return the image of a sketch of 8-bit registers, flagged as out of order.

    With that flag the library estimates from the registers alone, as it does after any merge.
    """
    lg_k = len(registers).bit_length() - 1
    counts = np.bincount(registers, minlength=64).astype(np.float64)
    weights = counts * np.exp2(-np.arange(64.0))
    flags = _COMPACT | _OUT_OF_ORDER
    head = _HEAD.pack(10, 1, _FAMILY, lg_k, 0, flags, 0, (_EIGHT_BITS << 2) | _REGISTERS)
    sums = _SUMS.pack(0.0, weights[:32].sum(), weights[32:].sum(), int(counts[0]), 0)
    return head + sums + registers.tobytes()


def read_image(data: bytes) -> tuple[int, U32 | U8]:
    """Return lg_k and the distinct coupons (uint32, sorted) or registers (uint8) of an image.

    Raises:
        ValueError: ``data`` is not a well-formed image.
    """
    if len(data) < _HEAD.size:
        raise ValueError(f"{len(data)} bytes are too few for an HLL image")
    preamble, version, family, lg_k, lg_array, flags, third, mode = _HEAD.unpack_from(data)
    kind, width = mode & 3, mode >> 2
    if version != 1 or family != _FAMILY:
        raise ValueError(f"not an HLL image: version {version}, family {family}")
    if not LEAST_LG_K <= lg_k <= MOST_LG_K:
        raise ValueError(f"lg_k of an HLL image is {lg_k}, not in [{LEAST_LG_K}, {MOST_LG_K}]")
    if _PREAMBLE.get(kind) != preamble or width > _EIGHT_BITS:
        raise ValueError(f"an HLL image of mode {mode} with a preamble of {preamble} words")
    compact = bool(flags & _COMPACT)
    if kind == _REGISTERS:
        return lg_k, _read_registers(data, lg_k, width, offset=third, compact=compact)
    if kind == _LIST:
        body, count = data[8:], third
    else:
        if len(data) < 12:
            raise ValueError("an HLL image ends within its preamble")
        body, count = data[12:], _COUNT.unpack_from(data, 8)[0]
    if kind == _LIST and compact and flags & _EMPTY:
        count = 0
    if count >= coupon_limit(lg_k) or (kind == _LIST) != (count < 1 << _LIST_LG):
        raise ValueError(f"an HLL image of {count} coupons in mode {kind}")
    if len(body) != 4 * (count if compact else 1 << min(lg_array, MOST_LG_K)):
        raise ValueError(f"an HLL image of {count} coupons has {len(body)} bytes of them")
    coupons = np.frombuffer(body, "<u4").astype(np.uint32)
    coupons = np.unique(coupons[coupons != 0])
    if len(coupons) != count or (coupons >> ADDRESS_BITS == 0).any():
        raise ValueError("coupons of an HLL image repeat, have no value or are not as many as said")
    return lg_k, coupons


def _read_registers(data: bytes, lg_k: int, width: int, *, offset: int, compact: bool) -> U8:
    start, k = 40, 1 << lg_k
    size = {0: k // 2, 1: k * 3 // 4 + 1, 2: k}[width]
    if len(data) < start + size or (width and len(data) != start + size):
        raise ValueError(f"registers of an HLL image: {len(data)} bytes do not fit lg_k {lg_k}")
    packed = np.frombuffer(data, np.uint8, size, start)
    if width == 0:
        exceptions = _COUNT.unpack_from(data, 36)[0]
        return _from_four_bits(packed, data[start + size :], offset, exceptions, compact)
    registers = packed.copy() if width == _EIGHT_BITS else _from_six_bits(packed, k)
    if registers.max() > LARGEST_VALUE:
        raise ValueError(f"a register of an HLL image is {registers.max()}, above {LARGEST_VALUE}")
    return registers


def _from_four_bits(packed: U8, rest: bytes, offset: int, exceptions: int, compact: bool) -> U8:
    registers = np.empty(2 * len(packed), np.uint8)
    registers[0::2], registers[1::2] = packed & 15, packed >> 4
    if len(rest) % 4 or (compact and len(rest) != 4 * exceptions):
        raise ValueError(f"exceptions of an HLL image: {len(rest)} bytes for {exceptions}")
    pairs = np.frombuffer(rest, "<u4").astype(np.uint32)
    pairs = pairs[pairs != 0]
    slots, values = pairs & _ADDRESS, pairs >> ADDRESS_BITS
    large = np.flatnonzero(registers == 15)
    if len(pairs) != exceptions or not np.array_equal(np.sort(slots), large):
        raise ValueError("exceptions of an HLL image do not match its registers")
    if offset > LARGEST_VALUE - 14 or (values < offset + 15).any():
        raise ValueError(f"an HLL image with registers from {offset} has others below or above")
    registers += np.uint8(offset)
    registers[slots] = values
    return registers


def _from_six_bits(packed: U8, k: int) -> U8:
    quads = packed[: k * 3 // 4].reshape(-1, 3).astype(np.uint32)
    words = quads[:, 0] | (quads[:, 1] << 8) | (quads[:, 2] << 16)
    columns = [(words >> shift) & 63 for shift in (0, 6, 12, 18)]
    return np.stack(columns, axis=1).astype(np.uint8).ravel()
