"""Answers about streams of batches, estimated with bounds, from sketches of bounded size.

    distinct        how many different values
    quantiles       the value at each rank
    heavy_hitters   the most frequent values
    sample          random rows
    answers         any of these, of states that were merged elsewhere (`tree_merge`, a link)

Each operator asks its question, one of :mod:`operators.questions`, of every key, either of all
rows so far or of windows of event time. A question knows how its state is made and how its answer
is read off, so that what is folded here and what a tree merged have the same answers. The schemas
of answers, `DISTINCT` and so on, are in that module too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from operators.merge import Emit, fold
from operators.questions import (
    HEAVY_HITTERS,
    SPAN,
    Distinct,
    Heaviest,
    Quantiles,
    Question,
    Sample,
    fresh_stream,
)
from operators.window import Window, session, sliding, tumbling
from operators.window.event_time import EPOCH
from operators.window.session import Session
from state.mergeable import Foldable

F = TypeVar("F", bound=Foldable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tumbling:
    """Ask of tumbling windows; see :func:`operators.window.tumbling`."""

    length: timedelta
    time: str = "time"
    align_to: datetime = EPOCH
    lateness: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliding:
    """Ask of sliding windows; see :func:`operators.window.sliding`."""

    length: timedelta
    every: timedelta
    time: str = "time"
    align_to: datetime = EPOCH
    lateness: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Ask of sessions; see :func:`operators.window.session`."""

    by: str | Sequence[str]
    gap: timedelta
    time: str = "time"
    lateness: timedelta = timedelta(0)


Windows: TypeAlias = Tumbling | Sliding | Sessions


@dataclass(frozen=True, slots=True)
class Answers:
    """The streams that an operator of this module returns."""

    answers: KeyedStream[pa.RecordBatch]
    """Answers under the key they are about."""
    late: KeyedStream[pa.RecordBatch]
    """Whole rows that came too late for their windows; nothing where there are no windows."""


@operator
def ask(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    question: Question[Any],
    *,
    window: Windows | None = None,
    emit: Emit = "change",
) -> Answers:
    """Ask a question of every key, of all its rows so far or of windows.

    - *Late*: only windows know it; such rows go whole to `late`.
    - *Empty*: a window without rows has no answer. Without windows an empty batch is an arrival
      like others, and so are rows of nulls anywhere: the answer is that of no values.
    - *Duplicate* rows count again, except in `distinct`.
    - *Restart*: resumes from a snapshot of the sketches; answers of an unfinished epoch come again.
      Sketches of a question that was about another column, or of another accuracy, are refused.

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        question: what to ask.
        window: the windows to ask of; None for all rows so far, for as long as the flow lives.
        emit: without windows, see `operators.merge.Emit`. Windows answer when they close.

    Raises:
        ValueError: `emit` is given together with windows, or a parameter is out of range; when
            running, as the windows and the sketches do, or a snapshot is of another question.
        KeyError: a batch lacks the column (the flow stops).
    """
    if window is None:
        states = fold("fold", up, question.create, emit=emit)
        late: KeyedStream[pa.RecordBatch] = op.filter_map_value("late", up, lambda _: None)
        return Answers(answers("answers", states, question), late)
    if emit != "change":
        raise ValueError(f"step {step_id}: windows answer when they close, not at {emit!r}")
    match window:
        case Tumbling():
            out: Any = tumbling("window", up, question.create, **_fields(window))
        case Sliding():
            out = sliding("window", up, question.create, **_fields(window))
        case Sessions():
            out = session("window", up, question.create, **_fields(window))
    closed = op.map_value(
        "answers", out.closed, lambda found: _with_span(_read(question, found.state), found)
    )
    return Answers(closed, out.late)


@operator
def answers(
    step_id: str, up: KeyedStream[bytes], question: Question[Any]
) -> KeyedStream[pa.RecordBatch]:
    """Read the answers off states that come as bytes, say from `tree_merge` or `merge_states`.

    Keeps nothing. The columns of `SPAN` are null.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from operators.merge import merge_states
    >>> flow, out, question = Dataflow("demo"), [], Quantiles("ms", at=(0.5,))
    >>> parts = []
    >>> for values in ([1.0, 2.0], [3.0, 4.0, 5.0]):
    ...     part = question.create()
    ...     part.update(pa.record_batch({"ms": values}))
    ...     parts.append(("all", part.to_bytes()))
    >>> up = op.input("parts", flow, TestingSource(parts))
    >>> whole = merge_states("whole", up, question.create, emit="eof")
    >>> op.output("out", answers("answers", whole, question), TestingSink(out))
    >>> run_main(flow)
    >>> [(key, batch.select(["estimate", "count"]).to_pylist()) for key, batch in out]
    [('all', [{'estimate': 3.0, 'count': 5}])]

    Args:
        step_id: unique name of the step.
        up: the `to_bytes` of states that `question.create` began.
        question: what to ask.

    Raises:
        ValueError: an item is not the bytes of such a state, or its parameters are others (the
            flow stops).
    """
    kind = type(question.create())
    return op.map_value(
        "read", up, lambda data: _with_span(_read(question, kind.from_bytes(data)), None)
    )


@operator
def distinct(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    column: str,
    *,
    window: Windows | None = None,
    emit: Emit = "change",
    lg_k: int = 12,
    confidence: float = 0.95,
) -> Answers:
    """Count the different values of a column, nulls not among them; answers are `DISTINCT`.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> flow, out = Dataflow("demo"), []
    >>> visits = pa.record_batch({"user": ["ann", "bob", "ann", None]})
    >>> up = op.input("visits", flow, TestingSource([("site", visits)]))
    >>> op.output("out", distinct("users", up, "user").answers, TestingSink(out))
    >>> run_main(flow)
    >>> [(key, round(batch["estimate"][0].as_py())) for key, batch in out]
    [('site', 2)]

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        column: numbers, times, text, binary or a dictionary of these.
        window: see `ask`.
        emit: see `ask`.
        lg_k: accuracy; the relative standard error is about 1.04 / sqrt(2**lg_k).
        confidence: of the bounds.

    Raises:
        ValueError: see `ask`.
    """
    return ask("ask", up, Distinct(column, lg_k, confidence), window=window, emit=emit)


@operator
def quantiles(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    column: str,
    *,
    at: Sequence[float] = (0.5, 0.9, 0.99),
    window: Windows | None = None,
    emit: Emit = "change",
    k: int = 200,
    confidence: float = 0.95,
) -> Answers:
    """Estimate quantiles of a column, a row each, without nulls and NaN; answers are `QUANTILES`.

    >>> from datetime import UTC
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> flow, told, late = Dataflow("demo"), [], []
    >>> times = [datetime(2024, 1, 1, 12, minute, tzinfo=UTC) for minute in (0, 0, 0, 1, 2, 0)]
    >>> served = pa.record_batch({
    ...     "time": pa.array(times, pa.timestamp("us", "UTC")),
    ...     "ms": [10.0, 30.0, 20.0, 40.0, 50.0, 60.0]})
    >>> up = op.input("served", flow, TestingSource([("site", served)]))
    >>> minutes = Tumbling(length=timedelta(minutes=1))
    >>> out = quantiles("ms", up, "ms", at=[0.5, 1.0], window=minutes)
    >>> op.output("told", out.answers, TestingSink(told))
    >>> op.output("late", out.late, TestingSink(late))
    >>> run_main(flow)
    >>> for _, batch in told:
    ...     print(f"{batch['window_start'][0].as_py():%X}", batch["estimate"].to_pylist())
    12:00:00 [20.0, 30.0]
    12:01:00 [40.0, 40.0]
    12:02:00 [50.0, 50.0]
    >>> [batch["ms"].to_pylist() for _, batch in late]
    [[60.0]]

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        column: numbers or times (as numbers, in the column's unit).
        at: ranks in [0, 1].
        window: see `ask`.
        emit: see `ask`.
        k: accuracy; see `state.sketches.Kll`.
        confidence: of the bounds.

    Raises:
        ValueError: see `ask`.
        TypeError: the column does not hold numbers (the flow stops).
    """
    return ask("ask", up, Quantiles(column, tuple(at), k, confidence), window=window, emit=emit)


@operator
def heavy_hitters(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    column: str,
    *,
    top: int = 10,
    window: Windows | None = None,
    emit: Emit = "change",
    capacity: int = 256,
    value_type: pa.DataType | None = None,
) -> Answers:
    """Find the most frequent values of a column; answers are `HEAVY_HITTERS`.

    Counts are exact up to `capacity` different values. Beyond, `upper_bound - lower_bound` is at
    most ``total / (capacity + 1)``, and every value more frequent than that is kept, the `top` of
    which are told.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> flow, out = Dataflow("demo"), []
    >>> calls = pa.record_batch({"endpoint": ["/a", "/b", "/a", "/c", "/a"]})
    >>> up = op.input("calls", flow, TestingSource([("site", calls)]))
    >>> found = heavy_hitters("top", up, "endpoint", top=1, capacity=2)
    >>> op.output("out", found.answers, TestingSink(out))
    >>> run_main(flow)
    >>> out[0][1].select(["value", "lower_bound", "upper_bound", "total"]).to_pylist()
    [{'value': '/a', 'lower_bound': 2, 'upper_bound': 3, 'total': 5}]

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        column: values, of one type in all batches; null counts as nothing.
        top: how many to tell, at most.
        window: see `ask`.
        emit: see `ask`.
        capacity: how many values to keep.
        value_type: of the answer's `value`, to which the values are cast; None for text.

    Raises:
        ValueError: see `ask`; or a value cannot be cast.
    """
    kind = HEAVY_HITTERS.field("value").type if value_type is None else value_type
    return ask("ask", up, Heaviest(column, top, capacity, kind), window=window, emit=emit)


@operator
def sample(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    columns: Sequence[str],
    *,
    size: int = 256,
    weight: str | None = None,
    window: Windows | None = None,
    emit: Emit = "change",
    streams: Callable[[], int] = fresh_stream,
) -> Answers:
    """Keep a random sample of rows; answers are the rows behind the columns of `SAMPLE`.

    Every key and window draws from a stream of random numbers of its own, which its snapshot
    carries on. With random streams a *restart* samples anew what was first seen after the
    snapshot: the sample stays a fair one, but answers that come again may differ.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> flow, out = Dataflow("demo"), []
    >>> rows = pa.record_batch({"x": range(100)})
    >>> up = op.input("rows", flow, TestingSource([("k", rows)]))
    >>> op.output("out", sample("some", up, ["x"], size=4).answers, TestingSink(out))
    >>> run_main(flow)
    >>> out[0][1].select(["seen", "inclusion"]).to_pylist()[0], out[0][1].num_rows
    ({'seen': 100, 'inclusion': 0.04}, 4)

    Args:
        step_id: unique name of the step.
        up: batches under their key.
        columns: the columns of the rows to keep; none may be called as one of `SAMPLE`.
        size: rows to keep.
        weight: column of weights, which is kept with the rows; None for a uniform sample.
        window: see `ask`.
        emit: see `ask`.
        streams: numbers the streams. States that are merged, as in sliding windows, sessions and
            trees, need different ones: a merge of equal ones is refused and stops the flow. A
            counter makes a run on one worker repeatable, but one that starts again with its
            process may repeat numbers that the snapshots hold, and one for each process of a
            cluster those of the others. Start it above all numbers given, or keep the default.

    Raises:
        ValueError: see `ask`.
        TypeError: `columns` is a text, not a list of them.
    """
    question = Sample(columns, size, weight, streams=streams)
    return ask("ask", up, question, window=window, emit=emit)


def _read(question: Question[F], state: F) -> pa.RecordBatch:
    # Merging refuses states of another column or accuracy; reading alone would not.
    own = question.create()
    own.merge(state)
    return question.answer(own)


def _fields(window: Windows) -> dict[str, Any]:
    return {name: getattr(window, name) for name in window.__dataclass_fields__}


def _with_span(answer: pa.RecordBatch, found: Window[Any] | None) -> pa.RecordBatch:
    start = end = by = None
    if found is not None:
        start, end = found.start, found.end
    if isinstance(found, Session):
        by = [None if value is None else str(value) for value in found.by]
    n = answer.num_rows
    span = [
        pa.array([value] * n, field.type)
        for value, field in zip((start, end, by), SPAN, strict=True)
    ]
    schema = pa.schema([*SPAN, *answer.schema])
    return pa.record_batch([*span, *answer.columns], schema=schema)
