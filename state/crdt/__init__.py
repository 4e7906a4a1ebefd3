"""Replicated data types that merge without a centre: conflict-free replicated data types.

Standard library only, so they run in a browser's Python too.

===================  ================================  ==========================================
type                 of concurrent writes              removal
===================  ================================  ==========================================
`GCounter`           all count, each once              none
`PNCounter`          all count, each once              none
`LWWRegister`        the last by stamp stays           none
`MVRegister`         all stay                          none
`LWWMap`             the last by stamp stays, by key   a row without a value, until `compact`
`LWWElementSet`      the last by stamp, by element     a row, until `compact`
`ORSet`              additions win                     leaves nothing but its place in the context
`ORMap`              writes win; nests the others      leaves nothing but its place in the context
`Sequence`           runs follow each other            places, until `compact`
`Document`           each name by its kind             as its kind
===================  ================================  ==========================================

The laws. Each type is a join-semilattice (`state.mergeable`): merging is associative, commutative
and idempotent, and a mutator's delta is a small state of the same class, so

    merge(state, delta)  ==  merge(state, the state that the delta was made from, before and after)

for a peer that has the rest, and deltas may come late, twice, out of order, or be lost and made
good by a whole state or by `delta_since`. Equal states have equal bytes, whatever they went
through (`state.crdt.values`: deterministic CBOR). Elements, keys and values are plain values; 1,
1.0 and True are three. Bytes are checked: what no replica writes is a ValueError.

Time and identity are arguments. A *replica id* must be new whenever state may have been lost
(`replica_id(name, incarnation)`): a counter or a dot that is used twice cannot be told apart. A
`Stamp` comes from the caller's `HybridClock`, made with `after=` the stamp of what it replaces.

Who calls whom:

    Document -> the types -> DotStore (dots) -> CausalContext (causal)
                          -> stamped rows (lww) -> Stamp (clock)
    all      -> values -> bytes in the envelope of `state.mergeable`

`follow` does what `merge` does and returns the visible changes; `Document` gives one such feed for
all its names, local edits included.
"""

from state.crdt.causal import CausalContext, Dot, VersionVector, replica_id
from state.crdt.clock import ClockDrift, HybridClock, Stamp
from state.crdt.counters import GCounter, PNCounter
from state.crdt.document import Document, DocumentChange, Kind
from state.crdt.lww import LWWElementSet, LWWMap
from state.crdt.ormap import ORMap
from state.crdt.orset import ORSet
from state.crdt.protocol import Crdt
from state.crdt.registers import LWWRegister, MVRegister
from state.crdt.replica_state import Change
from state.crdt.sequence import Edit, PendingOverflow, Sequence

__all__ = [
    "CausalContext",
    "Change",
    "ClockDrift",
    "Crdt",
    "Document",
    "DocumentChange",
    "Dot",
    "Edit",
    "GCounter",
    "HybridClock",
    "Kind",
    "LWWElementSet",
    "LWWMap",
    "LWWRegister",
    "MVRegister",
    "ORMap",
    "ORSet",
    "PNCounter",
    "PendingOverflow",
    "Sequence",
    "Stamp",
    "VersionVector",
    "replica_id",
]
