"""A state that a user might write joins the law suite with one line."""

import struct
from typing import ClassVar, Self

from hypothesis import strategies as st

from state.mergeable import Algebra, seal, unseal
from state.testing import laws


class Largest:
    """The largest integer seen, a join-semilattice in ten lines."""

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE

    def __init__(self, value: int = -(2**63)) -> None:
        self.value = value

    def add(self, values: list[int]) -> None:
        self.value = max([self.value, *values])

    def merge(self, other: Self) -> None:
        self.value = max(self.value, other.value)

    def to_bytes(self) -> bytes:
        return seal("largest", 1, struct.pack("<q", self.value))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        _, payload = unseal("largest", data, versions={1})
        if len(payload) != 8:
            raise ValueError("largest: the payload is one i64")
        return cls(struct.unpack("<q", payload)[0])


TestLargest = laws(
    empty=Largest, update=Largest.add, chunks=st.lists(st.integers(-(2**63), 2**63 - 1))
)
