"""Keep one key's state, and say when it is emitted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from bytewax.operators import StatefulBatchLogic
from typing_extensions import override

Emit = Literal["change", "eof"] | timedelta
"""When a keyed state is emitted: after each arrival that touched it, once at the end of input, or
at most once in this much system time while it changes (and at the end). Bytewax does not tell an
operator where an epoch ends, so there is no 'each epoch'."""

X = TypeVar("X")


class Keeper(StatefulBatchLogic[X, bytes, bytes]):
    """Take items in, emit the state as bytes when it is due, snapshot it as bytes.

    Args:
        take: folds one item into the state.
        whole: returns what is emitted.
        save: returns what is snapshotted.
        emit: when to emit.
        resumed: whether the state comes from a snapshot.
    """

    def __init__(
        self,
        take: Callable[[X], None],
        whole: Callable[[], bytes],
        save: Callable[[], bytes],
        emit: Emit,
        *,
        resumed: bool,
    ) -> None:
        self._take = take
        self._whole = whole
        self._save = save
        self._emit = emit
        # What changed before the snapshot may not have been emitted yet.
        pending = resumed and isinstance(emit, timedelta)
        self._due: datetime | None = datetime.now(UTC) if pending else None

    @override
    def on_batch(self, values: list[X]) -> tuple[list[bytes], bool]:
        for value in values:
            self._take(value)
        if self._emit == "change":
            return [self._whole()], StatefulBatchLogic.RETAIN
        if isinstance(self._emit, timedelta) and self._due is None:
            self._due = datetime.now(UTC) + self._emit
        return [], StatefulBatchLogic.RETAIN

    @override
    def on_notify(self) -> tuple[list[bytes], bool]:
        self._due = None
        return [self._whole()], StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[bytes], bool]:
        if self._emit == "eof" or self._due is not None:
            self._due = None
            return [self._whole()], StatefulBatchLogic.RETAIN
        return [], StatefulBatchLogic.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        return self._due

    @override
    def snapshot(self) -> bytes:
        return self._save()
