"""Several states of the same rows as one state: the product of monoids is a monoid.

Count, distinct users, quantiles and a sample of a stream are folded together, travel in one
message and merge together, part by part.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from state.mergeable import Algebra, Foldable, seal, unseal

if TYPE_CHECKING:
    import pyarrow as pa

_KIND = "product"
_PARTS = struct.Struct("<H")
_PART = struct.Struct("<HQ")  # bytes of the name, bytes of the state
_KIND_AT = 15  # where `seal` writes the kind; its length is the byte at 4


class Product:
    """Fold the same batches into several states, each under a name.

    Restart, duplicates and order are as of the parts. An empty product of the same empty parts is
    the identity. The bytes are those of the parts, in the order of their names.

    Args:
        parts: the states by name, at least one. The product takes them over.

    Raises:
        ValueError: there are no parts, a name is too long, or a part is an ordered monoid (those
            merge in the order of time only, and a product may be merged in any).

    >>> import pyarrow as pa
    >>> from state.sketches import Kll, Moments
    >>> both = Product({"exact": Moments("ms"), "quantiles": Kll("ms")})
    >>> both.update(pa.record_batch({"ms": [1.0, 2.0, 6.0]}))
    >>> both["exact"].mean, both["quantiles"].estimate(0.5)
    (3.0, 2.0)
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Foldable]) -> None:
        if not 1 <= len(parts) < 1 << 16:
            raise ValueError(f"a product has between 1 and 65,535 parts, not {len(parts)}")
        for name, part in parts.items():
            if part.algebra.ordered:
                raise ValueError(f"part {name!r} merges in order only: no part of a product")
            if len(name.encode()) >= 1 << 16:
                raise ValueError(f"the name of a part has {len(name.encode())} bytes")
        self._parts = {name: parts[name] for name in sorted(parts)}

    def __getitem__(self, name: str) -> Foldable:
        return self._parts[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, sorted."""
        return tuple(self._parts)

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold the rows of ``batch`` into every part.

        Where a part raises, the parts before it, in the order of names, have the rows already.
        """
        for part in self._parts.values():
            part.update(batch)

    def merge(self, other: Self) -> None:
        """Join ``other``'s parts into this state's parts of the same names.

        Reservoirs go first: they alone know a part that comes twice, and refuse it before anything
        has changed. After any other refusal some parts are merged and some are not, so the state
        is to be thrown away; states that are made by one function never differ in parameters.

        Raises:
            ValueError: the parts have other names, kinds or parameters.
        """
        from state.sketches import Reservoir

        kinds = {name: type(part) for name, part in self._parts.items()}
        theirs = {name: type(part) for name, part in other._parts.items()}
        if kinds != theirs:
            raise ValueError(f"products of {_brief(kinds)} and of {_brief(theirs)} do not merge")
        for name in sorted(kinds, key=lambda name: (kinds[name] is not Reservoir, name)):
            self._parts[name].merge(other._parts[name])

    def to_bytes(self) -> bytes:
        """Return the parts' bytes, in the order of their names."""
        payload = [_PARTS.pack(len(self._parts))]
        for name, part in self._parts.items():
            label, data = name.encode(), part.to_bytes()
            payload += [_PART.pack(len(label), len(data)), label, data]
        return seal(_KIND, 1, b"".join(payload))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the product that ``data`` holds; its parts must be of :mod:`state.sketches`.

        Raises:
            ValueError: the bytes are damaged, or a part is not the bytes of a sketch.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            return cls._read(payload)
        except struct.error as error:
            raise ValueError(f"{_KIND}: the payload ends early") from error

    @classmethod
    def _read(cls, payload: bytes) -> Self:
        kinds = _kinds()
        (count,) = _PARTS.unpack_from(payload)
        at = _PARTS.size
        parts: dict[str, Foldable] = {}
        last = None
        for _ in range(count):
            wide, size = _PART.unpack_from(payload, at)
            at += _PART.size
            name = payload[at : at + wide].decode()
            at += wide
            part = payload[at : at + size]
            at += size
            if last is not None and name <= last:
                raise ValueError(f"{_KIND}: the parts are not in the order of their names")
            last = name
            if at > len(payload):
                raise ValueError(f"{_KIND}: part {name!r} is cut off")
            kind = _kind(part)
            if kind not in kinds:
                raise ValueError(f"{_KIND}: part {name!r} is no sketch but {kind!r}")
            parts[name] = kinds[kind].from_bytes(part)
        if at != len(payload):
            raise ValueError(f"{_KIND}: {len(payload) - at} bytes too many")
        return cls(parts)


@functools.cache
def _kinds() -> dict[bytes, type[Foldable]]:
    """Return the classes of :mod:`state.sketches` by the kind in their envelopes."""
    from state import sketches

    found: dict[bytes, type[Foldable]] = {}
    for name in sketches.__all__:
        sketch = getattr(sketches, name)
        empty = sketch(stream=0) if sketch is sketches.Reservoir else sketch()
        found[_kind(empty.to_bytes())] = sketch
    return found


def _kind(data: bytes) -> bytes:
    """Return the kind in an envelope of `seal`, empty where there is none."""
    return data[_KIND_AT : _KIND_AT + data[4]] if len(data) > _KIND_AT else b""


def _brief(kinds: Mapping[str, type[Foldable]]) -> str:
    return "{" + ", ".join(f"{name}: {kind.__name__}" for name, kind in kinds.items()) + "}"
