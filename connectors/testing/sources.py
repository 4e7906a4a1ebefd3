"""The contract of sources."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
from bytewax.inputs import (
    DynamicSource,
    FixedPartitionedSource,
    Source,
    StatefulSourcePartition,
    StatelessSourcePartition,
)

from connectors.testing.clauses import STEP, check_alias, check_close, check_parts, pickled

Partition = StatefulSourcePartition[Any, Any] | StatelessSourcePartition[Any]


def check_source(
    make_source: Callable[[], Source[Any]],
    *,
    schema: pa.Schema | None = None,
    repeatable: bool = True,
    limit: int = 1000,
    patience: float = 5.0,
) -> None:
    """Check that a source keeps its contract.

    The clauses, by the word that a failure begins with:

    - *parts*: names are unique strings and always the same.
    - *batch*: `next_batch` returns an iterable of items, or raises ``StopIteration``.
    - *awake*: `next_awake` returns None or a ``datetime`` with a time zone.
    - *end*: once ended, a partition stays ended.
    - *schema*: an item is a ``RecordBatch`` of the schema, without nulls where the schema has
      none or in a column `time`.
    - *repeat*: a partition that is built again emits the same rows, however they are batched.
    - *snapshot*: it can be pickled, taking it changes nothing, and it does not change later.
    - *resume*: from the snapshot at any boundary between batches, the remaining rows come, each
      once; from the one at the end, none.
    - *workers*: workers of a dynamic source together emit what one does.
    - *close*: may come at any time, and twice.

    Args:
        make_source: Makes the source anew, over the same finite input.
        schema: Of the items, if they are batches.
        repeatable: Whether the input can be read again. If not (a live feed), *repeat*, *resume*
            and *workers* are left out.
        limit: How many batches of each partition to look at; a source may be endless.
        patience: How many seconds a source may have nothing. Sources that wait for longer need a
            clock of their own for the check.

    Raises:
        AssertionError: a clause is broken.
        TypeError: not a source that Bytewax runs.
    """
    reader = _Reader(schema, limit, patience)
    source = make_source()
    if isinstance(source, DynamicSource):
        _check_dynamic_source(source, reader, repeatable)
        return
    if not isinstance(source, FixedPartitionedSource):
        raise TypeError(f"{source!r} is neither a FixedPartitionedSource nor a DynamicSource")
    for name in check_parts(source, make_source()):

        def build(state: Any, name: str = name) -> StatefulSourcePartition[Any, Any]:
            again: Any = make_source()
            part: StatefulSourcePartition[Any, Any] = again.build_part(STEP, name, state)
            return part

        whole, snapshots = _check_stateful(build(None), reader, name)
        if not repeatable:
            continue
        again = reader.read(build(None), name)
        _same("repeat", again, whole, f"partition {name!r}, built again,")
        for before, state in _spread(snapshots):
            rest = reader.read(build(pickle.loads(state)), name)
            where = f"partition {name!r}, resumed after {before} of {len(whole.rows)} rows,"
            _same("resume", rest, _Read(whole.rows[before:], whole.ended), where)


class _Read(NamedTuple):
    rows: list[Any]
    ended: bool
    """Whether there are no more, or only the limit was reached."""


def _skip(rows: list[Any]) -> None:
    pass


class _Reader:
    """Reads a partition as the engine would, and checks each call."""

    def __init__(self, schema: pa.Schema | None, limit: int, patience: float) -> None:
        self._schema = schema
        self._limit = limit
        self._patience = patience

    def read(self, part: Partition, name: str, after: Callable[[list[Any]], None] = _skip) -> _Read:
        """Return the rows of up to `limit` batches that are not empty.

        Calls `after` with all rows after each of the batches and at the end.
        """
        rows: list[Any] = []
        waited, batches, ended = 0.0, 0, False
        while batches < self._limit and not ended:
            delay = self._delay(part, name)
            if waited + delay > self._patience:
                raise AssertionError(
                    f"awake: partition {name!r} has nothing for {self._patience} s: give it a "
                    "clock of its own, or this check more patience"
                )
            time.sleep(delay)
            try:
                batch = part.next_batch()
            except StopIteration:
                self._check_end(part, name)
                ended = True
            else:
                items = self._items(batch, name)
                waited = 0.0 if items else waited + max(delay, 0.001)
                if not items and not delay:
                    time.sleep(0.001)  # as the engine does
                batches += bool(items)
                rows += _flat(items)
            after(rows)
        check_close(part, f"partition {name!r}")
        return _Read(rows, ended)

    def _items(self, batch: Any, name: str) -> list[Any]:
        if not isinstance(batch, Iterable):
            raise AssertionError(f"batch: partition {name!r} returned {batch!r}, not items")
        items = list(batch)
        for item in items:
            self._check_item(item, name)
        return items

    def _delay(self, part: Partition, name: str) -> float:
        awake = part.next_awake()
        if awake is None:
            return 0.0
        if not isinstance(awake, datetime) or awake.tzinfo is None:
            raise AssertionError(
                f"awake: partition {name!r} returned {awake!r}, not a datetime with a time zone"
            )
        return max(0.0, (awake - datetime.now(UTC)).total_seconds())

    def _check_end(self, part: Partition, name: str) -> None:
        for _ in range(2):
            try:
                batch = part.next_batch()
            except StopIteration:
                continue
            raise AssertionError(f"end: partition {name!r} had ended and then returned {batch!r}")

    def _check_item(self, item: Any, name: str) -> None:
        if self._schema is None:
            return
        if not isinstance(item, pa.RecordBatch) or not item.schema.equals(self._schema):
            kind = item.schema.to_string() if isinstance(item, pa.RecordBatch) else repr(item)
            raise AssertionError(f"schema: partition {name!r} emitted {kind}, not {self._schema}")
        for field, column in zip(self._schema, item.columns, strict=True):
            if column.null_count and (not field.nullable or field.name == "time"):
                raise AssertionError(f"schema: partition {name!r}: a null in {field.name!r}")


def _check_stateful(
    part: StatefulSourcePartition[Any, Any], reader: _Reader, name: str
) -> tuple[_Read, list[tuple[int, bytes]]]:
    """Read it all; return that, and (rows before, pickle) of each boundary's snapshot."""
    held: list[tuple[int, Any, bytes]] = []

    def take(rows: list[Any]) -> None:
        state = part.snapshot()
        held.append((len(rows), state, pickled(state, f"partition {name!r}")))

    take([])
    whole = reader.read(part, name, take)
    for before, state, then in held:
        check_alias(state, then, f"partition {name!r}, taken after {before} rows,")
    return whole, [(before, then) for before, _, then in held]


def _check_dynamic_source(source: DynamicSource[Any], reader: _Reader, repeatable: bool) -> None:
    one = reader.read(source.build(STEP, 0, 1), "worker 1 of 1").rows
    if not repeatable:
        return
    for workers in (1, 2, 3):
        together: list[Any] = []
        for index in range(workers):
            part = source.build(STEP, index, workers)
            together += reader.read(part, f"worker {index + 1} of {workers}").rows
        if Counter(map(repr, together)) != Counter(map(repr, one)):
            raise AssertionError(
                f"workers: {workers} of them emitted {len(together)} rows, which are not the "
                f"{len(one)} that one emits"
            )


def _flat(items: list[Any]) -> list[Any]:
    """Return rows of batches, and other items as they are."""
    rows: list[Any] = []
    for item in items:
        rows += item.to_pylist() if isinstance(item, pa.RecordBatch) else [item]
    return rows


def _same(clause: str, found: _Read, expected: _Read, where: str) -> None:
    """Compare by `repr`, in which NaN equals NaN; of endless sources, what both have."""
    for at, (a, b) in enumerate(zip(found.rows, expected.rows, strict=False)):
        if repr(a) != repr(b):
            raise AssertionError(f"{clause}: {where} emits {a!r} as row {at}, not {b!r}")
    if expected.ended and len(found.rows) != len(expected.rows):
        raise AssertionError(
            f"{clause}: {where} emits {len(found.rows)} rows, not {len(expected.rows)}"
        )


def _spread(snapshots: list[tuple[int, bytes]], most: int = 24) -> list[tuple[int, bytes]]:
    """Return at most about `most` of the snapshots, the first and the last two among them."""
    step = max(1, len(snapshots) // most)
    return [*snapshots[::step], *snapshots[-2:]]
