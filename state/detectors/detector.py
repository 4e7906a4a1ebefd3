"""What every streaming detector obeys, and how its columns become bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from state.mergeable import seal, unseal

F64 = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

FIRES = 0.5
"""A score of at least this means that the detector's own limit is reached."""


@runtime_checkable
class Detector(Protocol):
    """A streaming detector over the columns of a matrix, one series per column.

    Scores are in [0, 1] and at least :data:`FIRES` where the detector's own limit is reached, so
    that scores of different detectors compare. The score of a row uses that row and earlier ones
    only, and every series is judged on its own past alone. Scores and states are bit-identical
    however a stream is cut into calls, snapshots in between included.

    NaN is a missing value: it scores 0 and leaves the state of its series as it was.
    """

    @property
    def name(self) -> str:
        """A short name for people: it is listed in alerts."""

    @property
    def series(self) -> int:
        """The number of series, N."""

    def update(self, x: F64) -> F64:
        """Take (T, N) rows in time order and return their (T, N) scores.

        Raises:
            ValueError: `x` does not have N columns, or holds an infinity.
        """

    def grow(self, series: int) -> None:
        """Add series that start now, on the right.

        Raises:
            ValueError: `series` is less than the present number.
        """

    def to_bytes(self) -> bytes:
        """Return parameters and state as versioned bytes."""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the detector that :meth:`to_bytes` wrote.

        Raises:
            ValueError: `data` is malformed, truncated or of another kind or version.
        """


def rows_of(x: F64, series: int) -> F64:
    """Return `x` as contiguous (T, N) rows, or raise as :meth:`Detector.update` promises."""
    rows = np.ascontiguousarray(x, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != series:
        raise ValueError(f"expected rows of {series} series, got an array of shape {rows.shape}")
    if np.isinf(rows).any():
        raise ValueError("an infinite value cannot be scored; pass NaN where nothing is known")
    return rows


def score_of(u: F64) -> F64:
    """Map a statistic in units of its limit, >= 0, onto [0, 1]: 1 becomes :data:`FIRES`."""
    with np.errstate(invalid="ignore"):
        score = np.where(np.isinf(u), 1.0, u / (1.0 + u))
    # Rounding must not decide whether a limit is reached.
    return np.where(u >= 1.0, np.maximum(score, FIRES), np.minimum(score, np.nextafter(FIRES, 0)))


def grown(array: Array, series: int, fill: float = 0) -> Array:
    """Return `array` with its last axis extended to `series` columns of `fill`."""
    more = series - array.shape[-1]
    if more < 0:
        raise ValueError(f"a detector of {array.shape[-1]} series cannot shrink to {series}")
    widths = [(0, 0)] * (array.ndim - 1) + [(0, more)]
    return np.pad(array, widths, constant_values=fill)


class _Saved(msgspec.Struct, array_like=True):
    parameters: dict[str, float | int | str]
    series: int
    arrays: dict[str, bytes]


def save(
    kind: str, parameters: Mapping[str, float | int | str], series: int, arrays: dict[str, Array]
) -> bytes:
    """Seal parameters and named arrays."""
    saved = _Saved(dict(parameters), series, {k: a.tobytes() for k, a in arrays.items()})
    return seal(kind, 1, msgspec.msgpack.encode(saved))


def load(kind: str, data: bytes) -> tuple[dict[str, Any], int, dict[str, bytes]]:
    """Open what :func:`save` sealed.

    Raises:
        ValueError: it is malformed.
    """
    _, payload = unseal(kind, data, versions={1})
    try:
        saved = msgspec.msgpack.decode(payload, type=_Saved)
    except msgspec.DecodeError as error:
        raise ValueError(f"{kind}: {error}") from None
    return saved.parameters, saved.series, saved.arrays


def check_sizes(kind: str, saved: Mapping[str, bytes], of: dict[str, Array], series: int) -> None:
    """Check saved bytes against the arrays of a detector, before room is made for `series`.

    Only the axes of `of` before the last, the series, are looked at.

    Raises:
        ValueError: a name is missing or unknown, or a length is wrong.
    """
    if saved.keys() != of.keys():
        raise ValueError(f"{kind}: expected the arrays {sorted(of)}, found {sorted(saved)}")
    for name, array in of.items():
        if len(saved[name]) != math.prod(array.shape[:-1]) * array.itemsize * series:
            raise ValueError(f"{kind}: the array {name} has {len(saved[name])} bytes")


def fill_arrays(kind: str, saved: Mapping[str, bytes], into: dict[str, Array]) -> None:
    """Copy saved bytes, whose sizes were checked, into arrays.

    Raises:
        ValueError: a counter is negative.
    """
    for name, array in into.items():
        values = np.frombuffer(saved[name], dtype=array.dtype)
        if array.dtype == np.int64 and (values < 0).any():
            raise ValueError(f"{kind}: a counter in {name} is negative")
        array[...] = values.reshape(array.shape)
