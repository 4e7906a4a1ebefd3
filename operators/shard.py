"""Split batches by a stable hash of key columns, so that keyed state is held per shard.

State per key makes Bytewax snapshot and route every key by itself; state per *shard* (the "key
groups" of Carbone et al., "State Management in Apache Flink", VLDB 2017) is a few large values
that workers can be rescaled over. A shard is one Bytewax key. Its name is chosen so that
Bytewax's routing, which is a fixed hash of the name modulo the number of workers, spreads the
shards evenly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import bytewax.operators as op
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream

from state.hashing import hash_rows
from state.routing import worker_of

_BALANCED = 24
"""Shard i is routed to worker i modulo any number of workers that divides this."""


@operator
def shard(
    step_id: str,
    up: Stream[pa.RecordBatch],
    by: str | Sequence[str],
    *,
    shards: int = 24,
) -> KeyedStream[pa.RecordBatch]:
    """Split every batch by the hash of its key columns, keyed by the name of the shard.

    Rows of one key keep their order. Batches that arrive together are split together, so that
    sub-batches stay as large as they can be without waiting; shards without rows get nothing.
    The number of shards is part of a flow's life: changing it on resume splits keys differently
    from the state that was saved.

    Args:
        step_id: unique name of the step.
        up: record batches; those that arrive together and differ in schema are split apart.
        by: the key column or columns: anything that `state.hashing.hash64` takes.
        shards: how many; a multiple of the number of workers spreads evenly. With one shard
            batches pass through whole.

    Raises:
        ValueError: `shards` is not positive or there is no key column.
        KeyError: a batch lacks a key column.
    """
    columns = [by] if isinstance(by, str) else list(by)
    if not columns and shards > 1:
        raise ValueError(f"step {step_id}: sharding needs at least one key column")
    names = shard_names(shards)

    def split(batches: list[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for batch in _coalesce(batches):
            if shards == 1:
                yield names[0], batch
            else:
                hashed = hash_rows([batch.column(name) for name in columns])
                yield from _take_each(batch, hashed % np.uint64(shards), names)

    return op.flat_map_batch("split", up, split)


@functools.cache
def shard_names(shards: int) -> tuple[str, ...]:
    """Return the names of `shards` shards, balanced over workers by Bytewax's routing.

    >>> names = shard_names(6)
    >>> names[:3]
    ('0-6', '1-31', '2-52')
    >>> [worker_of(name, 2) for name in names], [worker_of(name, 3) for name in names]
    ([0, 1, 0, 1, 0, 1], [0, 1, 2, 0, 1, 2])
    """
    if shards < 1:
        raise ValueError(f"the number of shards must be at least 1, not {shards}")
    return tuple(_balanced_name(index) for index in range(shards))


def _balanced_name(index: int) -> str:
    attempt = 0
    while worker_of(name := f"{index}-{attempt:x}", _BALANCED) != index % _BALANCED:
        attempt += 1
    return name


def _coalesce(batches: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Concatenate runs of batches that share a schema."""
    run: list[pa.RecordBatch] = []
    for batch in batches:
        if run and batch.schema != run[0].schema:
            yield pa.concat_batches(run)
            run = []
        run.append(batch)
    if run:
        yield pa.concat_batches(run)


def _take_each(
    batch: pa.RecordBatch, parts: np.ndarray[tuple[int], np.dtype[np.uint64]], names: Sequence[str]
) -> Iterable[tuple[str, pa.RecordBatch]]:
    order = np.argsort(parts, kind="stable")
    ends = np.searchsorted(parts[order], np.arange(1, len(names) + 1, dtype=np.uint64))
    start = 0
    for name, end in zip(names, ends.tolist(), strict=True):
        if end > start:
            # take, not slice: a slice keeps the whole batch alive, and pickles all of it.
            yield name, batch.take(pa.array(order[start:end]))
        start = end
