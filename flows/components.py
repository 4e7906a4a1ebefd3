"""Connected components of a graph that comes as batches of edges, by hash-min label propagation.

Every vertex begins with its own number as its label. Each shard keeps the edges of its vertices, in
both directions. In each superstep a vertex that has heard of a smaller label takes it and tells its
neighbours; when nobody has news, all vertices of a component have its smallest number. A path of n
vertices takes n supersteps.

The flow is pure: what comes round and what goes round are a stream each, which a feedback edge
connects.

>>> from datetime import timedelta
>>> from bytewax.dataflow import Dataflow
>>> from bytewax.testing import TestingSink, TestingSource, run_main
>>> from connectors.loop import Loop, Place
>>> edges = pa.record_batch({"vertex": [7, 5, 1], "other": [5, 3, 2]}, schema=LINKS)
>>> flow, loop, found = Dataflow("graph"), Loop("labels", place=Place()), []
>>> links = op.input("links", flow, TestingSource([edges]))
>>> streams = components(links, loop.input("back", flow), shards=2)
>>> loop.output("again", streams.again, outside=links)
>>> op.output("out", streams.labels, TestingSink(found))
>>> run_main(flow, epoch_interval=timedelta(0))
>>> sorted((row["vertex"], row["label"]) for batch in found for row in batch.to_pylist())
[(1, 1), (2, 1), (3, 3), (5, 3), (7, 3)]

Source: Kang, Tsourakakis and Faloutsos, "PEGASUS: A Peta-Scale Graph Mining System", ICDM 2009
(HCC, hash-min).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import bytewax.operators as op
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.shard import shard

I64 = npt.NDArray[np.int64]

LINKS = pa.schema({"vertex": pa.int64(), "other": pa.int64()})
"""Undirected edges."""

LABELS = pa.schema({"vertex": pa.int64(), "label": pa.int64()})
"""The label of a vertex; in the end its component's smallest vertex."""


@dataclass(frozen=True, slots=True)
class ComponentStreams:
    """What the flow emits.

    Args:
        again: LABELS that neighbours are told of, to go round.
        labels: the LABELS of all vertices, at the end.
    """

    again: KeyedStream[pa.RecordBatch]
    labels: Stream[pa.RecordBatch]


def components(
    links: Stream[pa.RecordBatch], back: KeyedStream[pa.RecordBatch], *, shards: int = 24
) -> ComponentStreams:
    """Connect the flow to LINKS batches and to what comes round."""
    edges = shard("edges", op.map("both_ways", links, _both_ways), "vertex", shards=shards)
    said = op.stateful_batch("vertices", op.merge("all", edges, back), _Vertices)
    split = op.branch("ended", op.key_rm("said", said), lambda word: word.final)
    told = op.map("told", split.falses, lambda word: word.labels)
    return ComponentStreams(
        again=shard("tell", told, "vertex", shards=shards),
        labels=op.map("labels", split.trues, lambda word: word.labels),
    )


def _both_ways(links: pa.RecordBatch) -> pa.RecordBatch:
    turned = pa.record_batch([links["other"], links["vertex"]], schema=LINKS)
    return pa.concat_batches([links.cast(LINKS), turned])


class _Word(NamedTuple):
    """LABELS for the neighbours, or of the shard's own vertices at the end."""

    final: bool
    labels: pa.RecordBatch


class _Vertices(StatefulBatchLogic[pa.RecordBatch, _Word, bytes]):
    """The vertices of one shard, sorted, with their labels and edges."""

    def __init__(self, snapshot: bytes | None) -> None:
        arrays = (
            [b""] * 4 if snapshot is None else msgspec.msgpack.decode(snapshot, type=list[bytes])
        )
        self._vertices, self._labels, self._from, self._to = (
            np.frombuffer(data, np.int64).copy() for data in arrays
        )

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[_Word], bool]:
        told = [self._link(batch) for batch in values if batch.schema == LINKS]
        heard = [batch for batch in values if batch.schema == LABELS]
        if heard:
            told.append(self._hear(pa.concat_batches(heard)))
        vertices, labels = (np.concatenate(part) for part in zip(*told, strict=True))
        if not len(vertices):
            return [], StatefulBatchLogic.RETAIN
        return [_Word(False, _batch(*_smallest(vertices, labels)))], StatefulBatchLogic.RETAIN

    def _link(self, links: pa.RecordBatch) -> tuple[I64, I64]:
        """Add edges; return what the vertices at their other ends are told."""
        here, there = links["vertex"].to_numpy(), links["other"].to_numpy()
        self._know(here)
        ends, starts = np.concatenate([self._to, there]), np.concatenate([self._from, here])
        order = np.argsort(starts, kind="stable")
        self._from, self._to = starts[order], ends[order]
        return there, self._labels[np.searchsorted(self._vertices, here)]

    def _know(self, vertices: I64) -> None:
        new = np.setdiff1d(vertices, self._vertices)
        at = np.searchsorted(self._vertices, new)
        self._vertices = np.insert(self._vertices, at, new)
        self._labels = np.insert(self._labels, at, new)

    def _hear(self, news: pa.RecordBatch) -> tuple[I64, I64]:
        """Take smaller labels; return what the neighbours of those who took one are told."""
        vertices, labels = _smallest(news["vertex"].to_numpy(), news["label"].to_numpy())
        self._know(vertices)
        at = np.searchsorted(self._vertices, vertices)
        smaller = labels < self._labels[at]
        self._labels[at[smaller]] = labels[smaller]
        changed = vertices[smaller]
        first = np.searchsorted(self._from, changed, side="left")
        count = np.searchsorted(self._from, changed, side="right") - first
        edges = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        return self._to[edges], np.repeat(labels[smaller], count)

    @override
    def on_eof(self) -> tuple[list[_Word], bool]:
        return [_Word(True, _batch(self._vertices, self._labels))], StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        arrays = (self._vertices, self._labels, self._from, self._to)
        return msgspec.msgpack.encode([array.tobytes() for array in arrays])


def _smallest(vertices: I64, labels: I64) -> tuple[I64, I64]:
    """Return each vertex once, sorted, with the smallest of its labels."""
    order = np.lexsort((labels, vertices))
    vertices, labels = vertices[order], labels[order]
    first = np.ones(len(vertices), bool)
    first[1:] = vertices[1:] != vertices[:-1]
    return vertices[first], labels[first]


def _batch(vertices: I64, labels: I64) -> pa.RecordBatch:
    return pa.record_batch([pa.array(vertices), pa.array(labels)], schema=LABELS)
