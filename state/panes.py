"""Many states at once, one per pane of time.

A *pane* is the piece of time that windows are made of: a tumbling window is one pane, a sliding
window a run of them (J. Li et al., "No pane, no gain", SIGMOD Record 34(1), 2005). Window
operators talk to :class:`Panes` only. A state that can hold many groups at once brings its own
(:class:`Paned`); any other gets :class:`StatePanes`, one state object per pane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from state.mergeable import Foldable, seal, unseal

I64 = npt.NDArray[np.int64]
S = TypeVar("S", bound=Foldable)
S_co = TypeVar("S_co", bound=Foldable, covariant=True)


class Panes(Protocol[S_co]):
    """States under pane numbers; a pane without rows is not there."""

    def update(self, batch: pa.RecordBatch, panes: I64) -> None:
        """Fold each row of `batch` into its pane, rows of a pane in their order."""

    def numbers(self) -> I64:
        """Return the numbers of the panes that hold rows, ascending."""

    def states(self, numbers: I64) -> Sequence[S_co]:
        """Return the states of these panes, which are there. They are to be read only."""

    def discard(self, before: int) -> None:
        """Forget all panes with smaller numbers; states given out before stay valid."""

    def to_bytes(self) -> bytes:
        """Return all panes as bytes."""

    def load(self, data: bytes) -> None:
        """Replace the content by what `to_bytes` returned.

        Raises:
            ValueError: `data` is malformed.
        """


@runtime_checkable
class Paned(Protocol):
    """A state whose kind can hold many panes at once, faster than one object for each."""

    def panes(self) -> Panes[Any]:
        """Return empty panes of states with the same parameters as this one."""


def panes_of(create: Callable[[], S]) -> Panes[S]:
    """Return the best panes there are for the states that `create` makes."""
    state = create()
    return state.panes() if isinstance(state, Paned) else StatePanes(create)


class StatePanes(Panes[S]):
    """Panes of any state: one object per pane."""

    def __init__(self, create: Callable[[], S]) -> None:
        self._create = create
        self._kind = type(create())
        self._states: dict[int, S] = {}

    def update(self, batch: pa.RecordBatch, panes: I64) -> None:
        """Fold each row of `batch` into its pane, rows of a pane in their order."""
        if not len(panes):
            return
        if (panes[1:] < panes[:-1]).any():
            order = np.argsort(panes, kind="stable")
            batch, panes = batch.take(pa.array(order)), panes[order]
        starts = np.flatnonzero(np.diff(panes, prepend=panes[0] - 1))
        ends = np.append(starts[1:], len(panes))
        for pane, start, end in zip(
            panes[starts].tolist(), starts.tolist(), ends.tolist(), strict=True
        ):
            if pane not in self._states:
                self._states[pane] = self._create()
            self._states[pane].update(batch.slice(start, end - start))

    def numbers(self) -> I64:
        """Return the numbers of the panes that hold rows, ascending."""
        return np.array(sorted(self._states), dtype=np.int64)

    def states(self, numbers: I64) -> list[S]:
        """Return the states of these panes, which are there. They are to be read only."""
        return [self._states[pane] for pane in numbers.tolist()]

    def discard(self, before: int) -> None:
        """Forget all panes with smaller numbers; states given out before stay valid."""
        for pane in [pane for pane in self._states if pane < before]:
            del self._states[pane]

    def to_bytes(self) -> bytes:
        """Return all panes as bytes: MessagePack pairs of number and state in the envelope."""
        pairs = [(pane, state.to_bytes()) for pane, state in sorted(self._states.items())]
        return seal("panes", 1, msgspec.msgpack.encode(pairs))

    def load(self, data: bytes) -> None:
        """Replace the content by what `to_bytes` returned.

        Raises:
            ValueError: `data` is malformed.
        """
        _, payload = unseal("panes", data, versions={1})
        try:
            pairs = msgspec.msgpack.decode(payload, type=list[tuple[int, bytes]])
        except msgspec.DecodeError as error:
            raise ValueError(f"panes: {error}") from error
        self._states = {pane: self._kind.from_bytes(part) for pane, part in pairs}
