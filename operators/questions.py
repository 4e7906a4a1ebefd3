"""Questions about streams of batches: how each one's sketch is made, and its answer read off.

    Distinct    how many different values    DISTINCT
    Quantiles   the value at each rank       QUANTILES
    Heaviest    the most frequent values     HEAVY_HITTERS
    Sample      random rows                  SAMPLE

A question has no stream of its own: :mod:`operators.sketch` asks it of keys and windows, and a leaf
of a tree may fold `create()` itself, for `operators.sketch.answers` to read what was merged.

Every answer that leaves an operator starts with the columns of `SPAN`. Bounds are two-sided at the
question's confidence.

>>> question = Heaviest("endpoint", top=1)
>>> here, there = question.create(), question.create()
>>> here.update(pa.record_batch({"endpoint": ["/a", "/b"]}))
>>> there.update(pa.record_batch({"endpoint": ["/b"]}))
>>> here.merge(there)
>>> question.answer(here).select(["value", "estimate", "total"]).to_pylist()
[{'value': '/b', 'estimate': 2, 'total': 3}]
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from state.mergeable import Foldable
from state.schemas import TIME
from state.sketches import HeavyHitters, Hll, Kll, Reservoir

F = TypeVar("F", bound=Foldable)

SPAN = pa.schema(
    [
        pa.field("window_start", TIME),
        pa.field("window_end", TIME),
        pa.field("session", pa.list_(pa.string())),
    ]
)
"""What an answer is about: null for all rows so far. `session` has the values of a session's key
columns as text."""

_BOUNDS = [pa.field(name, pa.float64()) for name in ("estimate", "lower_bound", "upper_bound")]
_COUNTS = [
    pa.field(name, pa.int64(), nullable=False)
    for name in ("estimate", "lower_bound", "upper_bound", "total")
]

DISTINCT = pa.schema([*SPAN, *_BOUNDS])
"""One row: the number of different values."""

QUANTILES = pa.schema(
    [
        *SPAN,
        pa.field("quantile", pa.float64(), nullable=False),
        *_BOUNDS,
        pa.field("rank_error", pa.float64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
    ]
)
"""One row for each quantile; null where there are no values. `count` is of the values folded."""

HEAVY_HITTERS = pa.schema([*SPAN, pa.field("value", pa.string()), *_COUNTS])
"""The most frequent values first; `total` counts all values. The bounds hold with certainty."""

SAMPLE = pa.schema(
    [
        *SPAN,
        pa.field("seen", pa.int64(), nullable=False),
        pa.field("inclusion", pa.float64(), nullable=False),
    ]
)
"""One row for each sampled row, before the row's own columns: how many rows were sampled from, and
the probability with which the row came in. A sum over rows / inclusion estimates that of all."""


class Question(Protocol[F]):
    """What is asked of a stream: how its state is made, and how the answer is read off."""

    def create(self) -> F:
        """Return an empty state."""

    def answer(self, state: F) -> pa.RecordBatch:
        """Return the answer, without the columns of `SPAN`, and leave the state as it is."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """How many different values a column has; see `operators.sketch.distinct`."""

    column: str
    lg_k: int = 12
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)

    def create(self) -> Hll:
        """Return an empty state."""
        return Hll(self.column, lg_k=self.lg_k)

    def answer(self, state: Hll) -> pa.RecordBatch:
        """Return one row of `DISTINCT`."""
        low, high = state.lower_bound(self.confidence), state.upper_bound(self.confidence)
        return _batch(DISTINCT, [state.estimate()], [low], [high])


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The values of a column at some ranks; see `operators.sketch.quantiles`."""

    column: str
    at: Sequence[float] = (0.5, 0.9, 0.99)
    k: int = 200
    confidence: float = 0.95

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        if not len(self.at) or not all(0 <= q <= 1 for q in self.at):
            raise ValueError(f"quantiles are asked for at ranks in [0, 1], not at {self.at}")

    def create(self) -> Kll:
        """Return an empty state."""
        return Kll(self.column, k=self.k)

    def answer(self, state: Kll) -> pa.RecordBatch:
        """Return a row of `QUANTILES` for each rank."""
        q = np.asarray(self.at, dtype=np.float64)
        return _batch(
            QUANTILES,
            q,
            state.estimate(q),
            state.lower_bound(q, self.confidence),
            state.upper_bound(q, self.confidence),
            np.full(len(q), state.rank_error(self.confidence)),
            np.full(len(q), state.count),
        )


@dataclass(frozen=True, slots=True)
class Heaviest:
    """The most frequent values of a column; see `operators.sketch.heavy_hitters`."""

    column: str
    top: int = 10
    capacity: int = 256
    value_type: pa.DataType = HEAVY_HITTERS.field("value").type

    def __post_init__(self) -> None:
        if not 1 <= self.top <= self.capacity:
            raise ValueError(f"the top {self.top} of {self.capacity} values cannot be told")

    def create(self) -> HeavyHitters:
        """Return an empty state."""
        return HeavyHitters(self.column, capacity=self.capacity)

    def answer(self, state: HeavyHitters) -> pa.RecordBatch:
        """Return at most `top` rows of `HEAVY_HITTERS`, its values of the type asked for."""
        top = state.top(self.top)
        at = HEAVY_HITTERS.get_field_index("value")
        schema = HEAVY_HITTERS.set(at, pa.field("value", self.value_type))
        value = top["value"].cast(self.value_type)
        bounds = [top[field.name] for field in _COUNTS[:3]]
        return _batch(schema, value, *bounds, np.full(top.num_rows, state.total))


def fresh_stream() -> int:
    """Return 64 random bits, a stream that no other reservoir draws from."""
    return secrets.randbits(64)


@dataclass(frozen=True, slots=True)
class Sample:
    """Random rows; see `operators.sketch.sample`."""

    columns: Sequence[str]
    size: int = 256
    weight: str | None = None
    seed: int = 0
    streams: Callable[[], int] = fresh_stream

    def __post_init__(self) -> None:
        if isinstance(self.columns, str):
            raise TypeError(f"a sample is of a list of columns, not of {self.columns!r}")
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise ValueError(f"a sample needs columns, each once, not {self.columns}")
        if not {*self.columns, self.weight}.isdisjoint(SAMPLE.names):
            raise ValueError(f"the columns of a sample are not called as {SAMPLE.names}")

    def create(self) -> Reservoir:
        """Return an empty state with a stream of its own."""
        return Reservoir(
            self.columns,
            size=self.size,
            stream=self.streams(),
            weight=self.weight,
            seed=self.seed,
        )

    def answer(self, state: Reservoir) -> pa.RecordBatch:
        """Return the sampled rows behind the columns of `SAMPLE`."""
        rows = state.sample()
        schema = pa.schema([*SAMPLE, *rows.schema])
        seen = np.full(rows.num_rows, state.count)
        return _batch(schema, seen, state.inclusion(), *rows.columns)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is within (0, 1), not {confidence}")


def _batch(schema: pa.Schema, *columns: Any) -> pa.RecordBatch:
    """Make the columns behind `SPAN`, NaN as null."""
    fields = list(schema)[len(SPAN) :]
    arrays = [
        c if isinstance(c, pa.Array) else pa.array(c, f.type, from_pandas=True)
        for c, f in zip(columns, fields, strict=True)
    ]
    return pa.record_batch(arrays, schema=pa.schema(fields))
