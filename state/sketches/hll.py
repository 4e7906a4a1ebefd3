"""Distinct values of a column in a few kilobytes: HyperLogLog.

Sources: P. Flajolet, E. Fusy, O. Gandouet, F. Meunier, "HyperLogLog: the analysis of a near-optimal
cardinality estimation algorithm" (AofA 2007); coupons, limits, estimator and its error tables are
those of Apache DataSketches' `hll_sketch`.
"""

from __future__ import annotations

import math
import struct
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from datasketches import hll_sketch  # type: ignore[import-untyped,unused-ignore]

from state.mergeable import Algebra, seal, unseal
from state.sketches.coupons import (
    ADDRESS_BITS,
    LARGEST_VALUE,
    U8,
    U32,
    column_coupons,
    distinct,
    fold_registers,
)
from state.sketches.hll_image import (
    LEAST_LG_K,
    MOST_LG_K,
    coupon_limit,
    read_image,
    write_coupons,
    write_registers,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from state.column_buffers import Values

SEED = 9001  # of Apache DataSketches, in all its languages

_KIND = "hll"
_HEAD = struct.Struct("<BBQHI")  # lg_k, dense, seed, bytes of the name, coupons or exceptions
_COUPON_ERROR = 0.409 / (1 << 13)  # relative, one standard deviation
_MARGIN = 1.25
_EXCEPTION = 15
_NO_COUPONS = np.zeros(0, np.uint32)


class Hll:
    """Estimate how many distinct values a column has.

    Up to 3/32 of 2**lg_k distinct values are kept as sorted coupons of 32 bits, after that as
    2**lg_k registers; both depend only on which values were seen. Merging is idempotent: a part
    that arrives twice, late or out of order changes nothing.

    Nulls are skipped. Values are hashed as :mod:`state.hashing` says, which is how DataSketches
    hashes Python's int, float, str and bytes; it differs in that an empty string is a value here
    and is ignored there. An integer and a float of equal value are different values.

    Bounds are the library's, interpolated between its whole standard deviations and a quarter
    wider: its own hold the stated confidence only just, and at some cardinalities just not. The
    interval of 95 % holds in about 98 % of cases at the worst cardinality.

    Args:
        column: the column that `update` reads.
        lg_k: registers as a power of two, 4 to 21. One standard error is 1.04 / sqrt(2**lg_k):
            1.6 % for 12, which takes about 2 kB.
        seed: of the hash, below 2**64.

    >>> import pyarrow as pa
    >>> users = Hll("user")
    >>> users.update(pa.record_batch({"user": ["ada", "bob", None, "ada"]}))
    >>> round(users.estimate())
    2
    """

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    __slots__ = ("_coupons", "_registers", "column", "lg_k", "seed")

    def __init__(self, column: str = "value", *, lg_k: int = 12, seed: int = SEED) -> None:
        if not LEAST_LG_K <= lg_k <= MOST_LG_K:
            raise ValueError(f"lg_k must be in [{LEAST_LG_K}, {MOST_LG_K}], not {lg_k}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"a seed is in [0, 2**64), not {seed}")
        if len(column.encode()) >= 1 << 16:
            raise ValueError(f"the name of the column has {len(column.encode())} bytes")
        self.column = column
        self.lg_k = lg_k
        self.seed = seed
        self._coupons: U32 = _NO_COUPONS
        self._registers: U8 | None = None

    @staticmethod
    def coupons(values: Values, seed: int = SEED) -> U32:
        """Return what a sketch keeps of each value, 0 for null: (T,) uint32.

        A million sketches of one value each are one such array, and `add_coupons` of it is the
        merge of all of them, whatever their lg_k.

        Raises:
            TypeError: the column's type has no hash.
        """
        return np.concatenate([_NO_COUPONS, *column_coupons(values, seed)])

    def add(self, values: Values) -> None:
        """Fold the values of a column, of any type that :mod:`state.hashing` takes.

        Raises:
            TypeError: the column's type has no hash.
        """
        for block in column_coupons(values, self.seed):
            self._fold(block)

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the column of a batch."""
        self.add(batch.column(self.column))

    def add_coupons(self, coupons: U32) -> None:
        """Fold what :meth:`coupons` returned under the same seed.

        Raises:
            ValueError: one is not a coupon.
        """
        array = np.ascontiguousarray(coupons, dtype=np.uint32)
        if ((array >> ADDRESS_BITS == 0) & (array != 0)).any():
            raise ValueError("a coupon other than 0 has a value of 1 to 63 in its upper 6 bits")
        self._fold(array)

    def merge(self, other: Self) -> None:
        """Join another sketch of the same parameters.

        Raises:
            ValueError: column, lg_k or seed differ.
        """
        mine = (self.column, self.lg_k, self.seed)
        theirs = (other.column, other.lg_k, other.seed)
        if mine != theirs:
            raise ValueError(f"sketches of (column, lg_k, seed) {mine} and {theirs} do not merge")
        if other._registers is None:
            self._fold(other._coupons)
        else:
            np.maximum(self._dense(), other._registers, out=self._dense())

    def estimate(self) -> float:
        """Return the estimated number of distinct values; 0.0 when empty.

        This is the library's estimate of the same image: interpolated on coupons, on registers the
        composite of raw HyperLogLog and linear counting, the same after any order of merges.
        """
        return float(hll_sketch.deserialize(self._image()).get_estimate())

    def lower_bound(self, confidence: float = 0.95) -> float:
        """Return the lower end of the two-sided interval, at least the distinct parts in sight.

        Raises:
            ValueError: confidence is not in (0, 1).
        """
        error = self._relative_error(confidence, upper=False)
        registers = self._registers
        seen = len(self._coupons) if registers is None else int(np.count_nonzero(registers))
        return max(self.estimate() / (1 + error), float(seen))

    def upper_bound(self, confidence: float = 0.95) -> float:
        """Return the upper end of the two-sided interval.

        Raises:
            ValueError: confidence is not in (0, 1).
        """
        error = self._relative_error(confidence, upper=True)
        return self.estimate() / (1 - error) if error < 1 else math.inf

    def to_bytes(self) -> bytes:
        """Return the state as bytes: 4 per coupon, or half a byte per register."""
        name = self.column.encode()
        if self._registers is None:
            body, count = self._coupons.astype("<u4").tobytes(), len(self._coupons)
        else:
            body, count = _packed(self._registers)
        dense = self._registers is not None
        head = _HEAD.pack(self.lg_k, dense, self.seed, len(name), count)
        return seal(_KIND, 1, head + name + body)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: the bytes are damaged.
        """
        _, payload = unseal(_KIND, data, versions={1})
        if len(payload) < _HEAD.size:
            raise ValueError(f"hll: {len(payload)} bytes are too few")
        lg_k, dense, seed, length, count = _HEAD.unpack_from(payload)
        body = payload[_HEAD.size + length :]
        if len(payload) < _HEAD.size + length or dense > 1:
            raise ValueError("hll: truncated name or unknown form")
        state = cls(payload[_HEAD.size : _HEAD.size + length].decode(), lg_k=lg_k, seed=seed)
        if dense:
            state._registers = _unpacked(body, 1 << lg_k, count)
        elif len(body) != 4 * count or count >= coupon_limit(lg_k):
            raise ValueError(f"hll: {count} coupons in {len(body)} bytes")
        else:
            coupons = np.frombuffer(body, "<u4").astype(np.uint32)
            if (coupons[1:] <= coupons[:-1]).any() or (coupons >> ADDRESS_BITS == 0).any():
                raise ValueError("hll: coupons are not sorted, or without value")
            state._coupons = coupons
        return state

    def to_datasketches(self) -> bytes:
        """Return an image that `datasketches.hll_sketch.deserialize` reads to the same estimate.

        Its registers are of 8 bits and flagged as merged. Java and C++ read it too.

        Raises:
            ValueError: the seed is not 9001, the only one that the library knows.
        """
        if self.seed != SEED:
            raise ValueError(f"DataSketches hashes with seed {SEED}, this sketch with {self.seed}")
        return self._image()

    @classmethod
    def from_datasketches(cls, data: bytes, column: str = "value") -> Self:
        """Return the sketch of an image of `hll_sketch`, compact or updatable, of any width.

        A sketch that never was merged estimates from its history in the library, more precisely
        than from its registers; that history does not merge and is left behind.

        Raises:
            ValueError: ``data`` is not a well-formed image.
        """
        lg_k, kept = read_image(data)
        state = cls(column, lg_k=lg_k)
        if kept.dtype == np.uint32:
            state._coupons = kept.astype(np.uint32)
        else:
            state._registers = kept.astype(np.uint8)
        return state

    def _fold(self, coupons: U32) -> None:
        if self._registers is None:
            kept = distinct(self._coupons, coupons, coupon_limit(self.lg_k))
            if kept is not None:
                self._coupons = kept
                return
        fold_registers(coupons, self._dense())

    def _dense(self) -> U8:
        if self._registers is None:
            self._registers = np.zeros(1 << self.lg_k, np.uint8)
            fold_registers(self._coupons, self._registers)
            self._coupons = _NO_COUPONS
        return self._registers

    def _image(self) -> bytes:
        if self._registers is None:
            return write_coupons(self.lg_k, self._coupons)
        return write_registers(self._registers)

    def _relative_error(self, confidence: float, *, upper: bool) -> float:
        if not 0 < confidence < 1:
            raise ValueError(f"confidence must be in (0, 1), not {confidence}")
        deviations = _MARGIN * NormalDist().inv_cdf((1 + confidence) / 2)
        if self._registers is None:
            return deviations * _COUPON_ERROR
        # The library knows 1, 2 and 3 deviations; up to lg_k 12 measured, and not quite normal.
        known = [abs(hll_sketch.get_rel_err(upper, True, self.lg_k, n)) for n in (1, 2, 3)]
        if deviations > 3:
            return float(known[2] * deviations / 3)
        return float(np.interp(deviations, [0, 1, 2, 3], [0, *known]))


def _packed(registers: U8) -> tuple[bytes, int]:
    # 4 bits above the smallest register, and whole bytes, in their order, for those far above it.
    least = registers.min()
    above = registers - least
    exceptions = registers[above >= _EXCEPTION]
    nibbles = np.minimum(above, _EXCEPTION)
    halves = nibbles[0::2] | (nibbles[1::2] << 4)
    return bytes([least]) + halves.tobytes() + exceptions.tobytes(), len(exceptions)


def _unpacked(body: bytes, k: int, count: int) -> U8:
    if len(body) != 1 + k // 2 + count:
        raise ValueError(f"hll: {k} registers with {count} exceptions in {len(body)} bytes")
    least = body[0]
    halves = np.frombuffer(body, np.uint8, k // 2, 1)
    registers = np.empty(k, np.uint8)
    registers[0::2], registers[1::2] = halves & 15, halves >> 4
    large = registers == _EXCEPTION
    exceptions = np.frombuffer(body, np.uint8, count, 1 + k // 2)
    if least > LARGEST_VALUE or np.count_nonzero(large) != count:
        raise ValueError("hll: exceptions do not match the registers")
    registers += np.uint8(least)
    registers[large] = exceptions
    if (
        registers.max() > LARGEST_VALUE
        or registers.min() != least
        or (exceptions < least + _EXCEPTION).any()
    ):
        raise ValueError("hll: registers out of range")
    return registers
