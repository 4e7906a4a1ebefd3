"""The contract of sinks."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    Sink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)

from connectors.testing.clauses import STEP, check_alias, check_close, check_parts, pickled


def check_sink(
    make_sink: Callable[[Path], Sink[Any]],
    items: Sequence[Any],
    read_back: Callable[[Path], object],
) -> None:
    """Check that a sink keeps its contract.

    The clauses, by the word that a failure begins with:

    - *parts*, *snapshot*, *close*: as for sources; `part_fn` returns the same integer for a key.
    - *batch*: what is written does not depend on how items are batched, nor on empty batches.
    - *restart*: after a crash at any item, with or without a `close`, and before any snapshot was
      stored, writing everything again leaves what an unbroken run does.
    - *resume*: after such a crash, resuming from the snapshot after any item, and writing again
      what came after it, leaves what an unbroken run does. So does resuming a finished run.

    A ``DynamicSink`` has no snapshots: only *batch* and *close* apply to it.

    Args:
        make_sink: Makes a sink over a directory, empty or left by an earlier sink.
        items: What to write, as on the stream: ``(key, value)``, or values for a dynamic sink. At
            least two.
        read_back: Returns, in a form that ``==`` compares, what was written in a directory.

    Raises:
        AssertionError: a clause is broken.
        TypeError: not a sink that Bytewax runs.
    """
    with tempfile.TemporaryDirectory(prefix="contract-") as place:
        check = _SinkCheck(make_sink, list(items), read_back, Path(place))
        sink = make_sink(check.fresh())
        if isinstance(sink, DynamicSink):
            check.dynamic()
        elif isinstance(sink, FixedPartitionedSink):
            check.partitioned()
        else:
            raise TypeError(f"{sink!r} is neither a FixedPartitionedSink nor a DynamicSink")


class _SinkCheck:
    def __init__(
        self,
        make_sink: Callable[[Path], Any],
        items: list[Any],
        read_back: Callable[[Path], object],
        place: Path,
    ) -> None:
        self._make = make_sink
        self._items = items
        self._read_back = read_back
        self._place = place
        self._count = 0

    def fresh(self) -> Path:
        self._count += 1
        directory = self._place / str(self._count)
        directory.mkdir()
        return directory

    def dynamic(self) -> None:
        results = []
        for batches in ([[item] for item in self._items], [[], self._items, []]):
            directory = self.fresh()
            part: StatelessSinkPartition[Any] = self._make(directory).build(STEP, 0, 1)
            for batch in batches:
                part.write_batch(list(batch))
            check_close(part, "the sink")
            results.append(self._read_back(directory))
        if results[0] != results[1]:
            raise AssertionError(
                f"batch: items one by one left {results[0]!r}, in one batch {results[1]!r}"
            )

    def partitioned(self) -> None:
        sink = self._make(self.fresh())
        check_parts(sink, self._make(self.fresh()))
        for key in {key for key, _ in self._items}:
            routes = [sink.part_fn(key), self._make(self.fresh()).part_fn(key)]
            if not all(isinstance(route, int) for route in routes) or len(set(routes)) > 1:
                raise AssertionError(f"parts: part_fn({key!r}) returned {routes}")
        directory = self.fresh()
        whole, states = self._unbroken(directory)
        for empties in (False, True):
            self._in_one_batch(whole, empties)
        self._resume(directory, states[-1], len(self._items), whole, "a finished run")
        last = len(self._items)
        for kept in range(last + 1):
            for lost in {kept, min(kept + 1, last), last}:
                for closed in (False, True):
                    self._crash(kept, lost, closed, whole)

    def _unbroken(self, directory: Path) -> tuple[object, list[dict[str, bytes]]]:
        run = _SinkRun(self._make(directory), {})
        states = [run.states]
        for item in self._items:
            run.write([item])
            states.append(run.states)
        run.check_aliases()
        run.close()
        return self._read_back(directory), states

    def _in_one_batch(self, whole: object, empties: bool) -> None:
        directory = self.fresh()
        run = _SinkRun(self._make(directory), {})
        if empties:
            run.write(self._items[:1])
            run.write_nothing()
            run.write(self._items[1:])
            run.write_nothing()
        else:
            run.write(self._items)
        run.close()
        found = self._read_back(directory)
        if found != whole:
            how = "with empty batches between" if empties else "in one batch"
            raise AssertionError(f"batch: items {how} left {found!r}, one by one {whole!r}")

    def _crash(self, kept: int, lost: int, closed: bool, whole: object) -> None:
        """Break off after `lost` items, when the snapshot after `kept` is the last stored."""
        directory = self.fresh()
        run = _SinkRun(self._make(directory), {})
        for item in self._items[:kept]:
            run.write([item])
        states = run.states
        for item in self._items[kept:lost]:
            run.write([item])
        if closed:
            run.close()
        where = f"a crash {'that closed the sink ' if closed else ''}after item {lost}"
        try:
            self._resume(directory, states, kept, whole, where)
        finally:
            run.abandon()

    def _resume(
        self, directory: Path, states: dict[str, bytes], kept: int, whole: object, what: str
    ) -> None:
        clause = "resume" if states else "restart"
        where = f"after {what}, from {f'the snapshot after item {kept}' if states else 'the start'}"
        try:
            run = _SinkRun(self._make(directory), states)
            for item in self._items[kept:]:
                run.write([item])
            run.close()
            found = self._read_back(directory)
        except Exception as error:
            raise AssertionError(f"{clause}: {where}: {type(error).__name__}: {error}") from error
        if found != whole:
            raise AssertionError(f"{clause}: {where}, the sink left {found!r}, not {whole!r}")


class _SinkRun:
    """One execution. Partitions are built at their first item, or from snapshots.

    Each `write` is an epoch, after which the partitions that it woke are snapshotted.
    """

    def __init__(self, sink: FixedPartitionedSink[Any, Any], states: dict[str, bytes]) -> None:
        self._sink = sink
        self._names = sorted(sink.list_parts())
        self._parts: dict[str, StatefulSinkPartition[Any, Any]] = {}
        self._held: list[tuple[str, Any, bytes]] = []
        self.states = dict(states)
        for name, state in states.items():
            self._parts[name] = sink.build_part(STEP, name, pickle.loads(state))

    def write(self, items: list[Any]) -> None:
        values: dict[str, list[Any]] = {}
        for key, value in items:
            name = self._names[self._sink.part_fn(key) % len(self._names)]
            values.setdefault(name, []).append(value)
        for name, batch in values.items():
            if name not in self._parts:
                self._parts[name] = self._sink.build_part(STEP, name, None)
            self._parts[name].write_batch(batch)
        self._snapshot(values)

    def write_nothing(self) -> None:
        for part in self._parts.values():
            part.write_batch([])
        self._snapshot(self._parts)

    def _snapshot(self, names: Iterable[str]) -> None:
        self.states = dict(self.states)
        for name in names:
            state = self._parts[name].snapshot()
            self.states[name] = pickled(state, f"partition {name!r}")
            self._held.append((name, state, self.states[name]))

    def check_aliases(self) -> None:
        for name, state, then in self._held:
            check_alias(state, then, f"partition {name!r}")

    def close(self) -> None:
        for name, part in self._parts.items():
            check_close(part, f"partition {name!r}")

    def abandon(self) -> None:
        """Let go of what a killed process would leave to the operating system."""
        for part in self._parts.values():
            with contextlib.suppress(Exception):
                part.close()
