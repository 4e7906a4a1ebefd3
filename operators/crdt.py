"""Merge replicated maps and sets that come as columns: the big twins of `state.crdt`.

    batches of rows ── crdt_merge ── the rows that were news

Rows are those of `state.rows.lww_schema` or `or_schema`. They may come from many replicas, late,
twice and in any order; the state of a shard is that of one `LwwRows` or `OrRows`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import bytewax.operators as op
import numpy as np
import pyarrow as pa
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.shard import shard, shard_names
from state.hashing import hash64
from state.rows import LwwRows, OrRows
from state.rows.or_rows import Dots

Kind = Literal["lww-map", "or-set"]

_SHARDS = {"lww-map": 24, "or-set": 1}


@operator
def crdt_merge(
    step_id: str, up: Stream[pa.RecordBatch], kind: Kind, *, shards: int | None = None
) -> KeyedStream[pa.RecordBatch]:
    """Merge rows of replicated state, and emit those that changed it.

    - *Late, duplicate*: merging is commutative, associative and idempotent; what is no news emits
      nothing.
    - *What is emitted* can be merged elsewhere as it is. Of a map it is the newest write of each
      key; of a set the dots that came and went.
    - *Restart*: resumes from a snapshot of the rows.

    A batch of a set is one delta or state, so it is merged at one stroke. With several shards each
    gets the dots of its elements, and all rows without an element. A shard that sees gaps in the
    numbers of a replica's dots remembers the removed ones beyond them, so with more than one shard
    senders should tell how far they know (`Dots.SEEN`) now and then.

    Args:
        step_id: unique name of the step.
        up: batches of `lww_schema` or `or_schema`; the first one's type of keys or elements is that
            of all.
        kind: a map in which the last writer wins, or a set in which additions win.
        shards: how many states; part of a flow's life. Unset: 24 for a map, 1 for a set.

    Returns:
        Changes, keyed by shard.

    Raises:
        ValueError: `kind` is unknown; when running, rows that are none (the flow stops; see
            `LwwRows.fold` and `OrRows.fold`).
    """
    if kind not in _SHARDS:
        raise ValueError(f"step {step_id}: {kind!r} is none of {', '.join(_SHARDS)}")
    count = _SHARDS[kind] if shards is None else shards
    if kind == "lww-map":
        split = shard("shard", up, by="key", shards=count)
    else:
        split = op.flat_map("shard", up, lambda batch: _spread(batch, count))

    def resume(saved: bytes | None) -> _Rows:
        return _Rows(step_id, LwwRows if kind == "lww-map" else OrRows, saved)

    return op.stateful_batch("merge", split, resume)


def _spread(batch: pa.RecordBatch, shards: int) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the part of a delta of a set that belongs to each shard."""
    names = shard_names(shards)
    if shards == 1 or not {"element", "dots"} <= set(batch.schema.names):
        yield names[0], batch
        return
    element = batch.column("element")
    shared = ~element.is_valid().to_numpy(zero_copy_only=False)
    shared |= batch.column("dots").to_numpy(zero_copy_only=False) == Dots.SEEN
    at = hash64(element) % np.uint64(shards)
    everywhere = bool(shared.any())
    for number, name in enumerate(names):
        mine = (at == number) & ~shared
        if everywhere or mine.any():
            yield name, batch.take(pa.array(np.flatnonzero(mine | shared)))


class _Rows(StatefulBatchLogic[pa.RecordBatch, pa.RecordBatch, bytes]):
    """One shard's map or set."""

    def __init__(
        self, step_id: str, make: type[LwwRows] | type[OrRows], saved: bytes | None
    ) -> None:
        self._step_id, self._make = step_id, make
        self._rows = None if not saved else make.from_bytes(saved)

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], bool]:
        changes = []
        for batch in values:
            try:
                if self._rows is None:
                    column = "key" if self._make is LwwRows else "element"
                    self._rows = self._make(batch.schema.field(column).type)
                changed = self._rows.fold(batch)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"step {self._step_id}: {error}") from None
            if changed.num_rows:
                changes.append(changed)
        return changes, StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        return b"" if self._rows is None else self._rows.to_bytes()
