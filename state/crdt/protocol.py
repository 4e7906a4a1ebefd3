"""What every replicated data type offers."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable

from state.mergeable import Mergeable


@runtime_checkable
class Crdt(Mergeable, Protocol):
    """A semilattice whose mutators return what they changed.

    A delta is a small state of the same class (`Sequence` returns it as bytes): merging deltas in
    any order and any number of times gives the same as merging the states they came from.
    """

    @property
    def value(self) -> Any:
        """The plain Python value."""

    def apply(self, delta: bytes) -> None:
        """Merge the bytes of a delta or a state; `Document` returns what changed.

        Raises:
            ValueError: the bytes are malformed or of another kind.
        """

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `data` holds.

        Raises:
            ValueError: `data` is malformed, truncated or of an unknown version.
        """
