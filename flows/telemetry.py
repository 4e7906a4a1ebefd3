"""A million agents' values as one answer: a tree of mergeable states, in one flow or over many.

    in one flow      events -> a state per host -> tree of merges -> the whole
    as processes     leaf: events -> parts | region: parts -> parts | root: parts -> the whole

Both fold the same states with the same parameters, and send them up whenever they have changed,
each in the place of the one before. In one flow that is all a node knows; between processes, the
windows that changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream

from flows.telemetry_parts import Part, newest, observe
from flows.telemetry_state import Telemetry
from operators.merge import tree_merge
from operators.tree import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryParameters:
    """What the flow needs to know.

    Args:
        nodes: the number of each leaf, all below `of`; in one flow all there are.
        of: how many leaves the whole tree may have.
        fan_in: how many states an inner node merges.
        window: length of the windows of event time; None for one over all time.
        every: least time between interim answers.
        seed: of the samples.
    """

    nodes: Mapping[str, int]
    of: int
    fan_in: int
    window: timedelta | None
    every: timedelta
    seed: int

    def create(self, node: int = 0) -> Telemetry:
        """Return the empty state of a leaf."""
        return Telemetry(window=self.window, host=node, hosts=self.of, seed=self.seed)


def telemetry(events: KeyedStream[pa.RecordBatch], p: TelemetryParameters) -> Stream[Part]:
    """Connect the whole tree to EVENTS under the names of their hosts; emit the root's parts."""
    parts = observe("hosts", events, p.create, nodes=p.nodes, every=p.every, whole=True)
    states = op.map_value("states", parts, lambda part: part.state)
    whole = tree_merge(
        "tree", states, p.create, leaves=list(p.nodes), fan_in=p.fan_in, emit=p.every
    )
    # A tree of one leaf keeps the newest state, and tells it when the input has ended.
    last = tree_merge("last", whole, p.create, leaves=[ROOT], emit="eof")
    interim = op.map("interim", whole, lambda item: _part(item, last=False))
    return op.merge("parts", interim, op.map("answer", last, lambda item: _part(item, last=True)))


def _part(item: tuple[str, bytes], *, last: bool) -> Part:
    node, data = item
    state = Telemetry.from_bytes(data)
    return Part(None, node, sum(map(state.events, state.windows)), data, last)


def leaf(events: KeyedStream[pa.RecordBatch], p: TelemetryParameters) -> KeyedStream[Part]:
    """Connect a leaf to its share of EVENTS, under its own name; emit what it tells its parent."""
    return observe("leaf", events, p.create, nodes=p.nodes, every=p.every)


def inner(parts: KeyedStream[Part], name: str, p: TelemetryParameters) -> KeyedStream[Part]:
    """Connect a region to the parts of its children; emit what it tells its parent."""
    return newest("merge", parts, node=name, every=p.every)


def root(parts: KeyedStream[Part], name: str, p: TelemetryParameters) -> Stream[Part]:
    """Connect the root to the parts of its children; emit parts of all windows in one state."""
    return op.key_rm("whole", newest("merge", parts, node=name, every=p.every, whole=True))
