"""The part that the types with a causal context share: a store of dots as a replica's state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from state.crdt.causal import CausalContext, VersionVector
from state.crdt.dots import DotStore, Entry, Path
from state.crdt.replica_state import ReplicaState


class CausalState(ReplicaState):
    """A state that is a store of dots. It has no tombstones, so there is nothing to compact."""

    _prefix: Path = ()

    def __init__(self) -> None:
        self._store = DotStore()

    @property
    def context(self) -> CausalContext:
        """A copy of the context: all dots that this state has seen."""
        return self._store.context.copy()

    @property
    def version(self) -> VersionVector:
        """The part of the context without gaps, for another's `delta_since`."""
        return self._store.context.vector

    def delta_since(self, version: VersionVector) -> Self:
        """Return what a replica lacks that has seen all dots up to `version`.

        Removals below `version` are in it again, known or not; where these are many, it is the
        whole state.
        """
        return self._of(self._store.since(version))

    @classmethod
    def _of(cls, store: DotStore) -> Self:
        state = cls()
        state._store = store
        return state

    def _edit(self, delta: DotStore) -> Self:
        return self._commit(self._of(delta))

    def _join(self, other: Self) -> None:
        self._store.merge(other._store)

    def _touched(self, other: Self) -> Iterable[Path]:
        return self._store.touched(other._store)

    def _to_plain(self) -> Any:
        return self._store.to_plain()

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        store = DotStore.from_plain(plain)
        for entry in store.entries.values():
            cls._check_entry(entry)
        return cls._of(store)

    @classmethod
    def _check_entry(cls, entry: Entry) -> None:
        raise NotImplementedError
