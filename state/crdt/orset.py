"""A set where concurrent additions win over removals, without tombstones.

Source: Bieniusa et al., "An optimized conflict-free replicated set", INRIA RR-8083, 2012.
"""

from __future__ import annotations

from typing import Any

from state.crdt.causal_state import CausalState
from state.crdt.dots import Entry, Path
from state.crdt.places import SetPlace, check_payload
from state.crdt.values import decode_key


class ORSet(CausalState, SetPlace["ORSet"]):
    """An add-wins set of hashable plain values.

    Its size grows with the elements that are in it, not with those that were.

    >>> ann, bob = ORSet(), ORSet()
    >>> bob.merge(ann.add("x", "ann"))
    >>> removed, added = ann.remove("x"), bob.add("x", "bob")
    >>> ann.merge(added), bob.merge(removed), ann.value, ann == bob
    (None, None, {'x'}, True)
    """

    kind = "or-set"

    def _look(self, key: Path) -> bool:
        return self._store.has(key)

    def _path(self, key: Path) -> tuple[Any, ...]:
        return (decode_key(key[0]),)

    @classmethod
    def _check_entry(cls, entry: Entry) -> None:
        if len(entry[0]) != 1:
            raise ValueError("or-set: an entry that is no element")
        decode_key(entry[0][0])
        check_payload(cls.leaf, entry[1])
