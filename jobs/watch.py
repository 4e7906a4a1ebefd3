"""Where a flow meets the rest of its process: a sink that calls a function, items given once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition


class Watch(DynamicSink[Any]):
    """Call a function with every item, in this process.

    Args:
        tell: Called with each item.
        done: Called when the stream has ended, for each worker.
    """

    def __init__(
        self, tell: Callable[[Any], None], done: Callable[[], None] = lambda: None
    ) -> None:
        self._tell, self._done = tell, done

    def build(
        self, step_id: str, worker_index: int, worker_count: int
    ) -> StatelessSinkPartition[Any]:
        """Build a partition."""
        return _WatchPartition(self._tell, self._done)


class _WatchPartition(StatelessSinkPartition[Any]):
    def __init__(self, tell: Callable[[Any], None], done: Callable[[], None]) -> None:
        self._tell, self._done = tell, done

    def write_batch(self, items: list[Any]) -> None:
        for item in items:
            self._tell(item)

    def close(self) -> None:
        self._done()


class Once(DynamicSource[Any]):
    """Give items once each time that the flow is started, resumed or not; one worker gives them.

    Args:
        items: What to give.
        first: Called before they are given.
    """

    def __init__(self, items: Sequence[Any], first: Callable[[], None] = lambda: None) -> None:
        self._items, self._first = items, first

    def build(
        self, step_id: str, worker_index: int, worker_count: int
    ) -> StatelessSourcePartition[Any]:
        """Build a partition."""
        return _OncePartition(self._items if worker_index == 0 else None, self._first)


class _OncePartition(StatelessSourcePartition[Any]):
    def __init__(self, items: Sequence[Any] | None, first: Callable[[], None]) -> None:
        self._items, self._first = items, first

    def next_batch(self) -> Sequence[Any]:
        items, self._items = self._items, None
        if items is None:
            raise StopIteration
        self._first()
        return items


class Steps(DynamicSource[Any]):
    """Give what a generator yields, a list each time; one worker runs it, and anew at each start.

    Args:
        steps: Makes the generator.
    """

    def __init__(self, steps: Callable[[], Iterator[list[Any]]]) -> None:
        self._steps = steps

    def build(
        self, step_id: str, worker_index: int, worker_count: int
    ) -> StatelessSourcePartition[Any]:
        """Build a partition."""
        return _StepsPartition(self._steps() if worker_index == 0 else iter(()))


class _StepsPartition(StatelessSourcePartition[Any]):
    def __init__(self, steps: Iterator[list[Any]]) -> None:
        self._steps = steps

    def next_batch(self) -> list[Any]:
        return next(self._steps)
