"""Arrays of float64 inside the bytes of a state: little-endian, checked on the way in."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


def float_bytes(x: F64) -> bytes:
    """Return an array as little-endian float64."""
    return x.astype("<f8").tobytes()


class FloatReader:
    """Takes a payload of numbers apart, front to back.

    Every method raises ValueError, naming `kind`, where the payload does not fit.
    """

    def __init__(self, kind: str, payload: bytes) -> None:
        self._kind = kind
        self._payload = payload
        self._at = 0

    def _take(self, size: int) -> bytes:
        part = self._payload[self._at : self._at + size]
        if len(part) != size:
            raise ValueError(f"{self._kind}: the payload ends early")
        self._at += size
        return part

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Take the integers of a layout."""
        return layout.unpack(self._take(layout.size))

    def floats(self, *shape: int) -> F64:
        """Take an array of finite numbers."""
        count = 1
        for side in shape:
            count *= side
        values = np.frombuffer(self._take(8 * count), dtype="<f8").astype(np.float64)
        if not (np.abs(values) < np.inf).all():
            raise ValueError(f"{self._kind}: a sum is not finite")
        return values.reshape(shape)

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._payload):
            raise ValueError(f"{self._kind}: {len(self._payload) - self._at} bytes too many")
