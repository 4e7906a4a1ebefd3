"""Align the bars of many series to one time grid and take log returns.

The grid is the set of steps at which at least one series has a bar, so that nights, weekends and
holidays of a market that is closed as a whole are not steps. A series without a bar at a step
keeps its last price (its return is 0: nothing was traded) for up to `max_stale` steps; after that
it is not present until its next bar, whose return is null because it spans an unknown time.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from state.schemas import RETURNS, TIME

F64 = npt.NDArray[np.float64]


@operator
def align(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    *,
    max_stale: int = 5,
) -> KeyedStream[pa.RecordBatch]:
    """Turn bars into aligned prices and log returns, one `RETURNS` batch per input batch.

    Args:
        step_id: unique name of the step.
        up: bars with columns `time`, `series`, `price` (> 0); whole steps in time order, each
            (time, series) once, as closed windows are. Other columns are ignored.
        max_stale: steps for which a series without bars keeps its last price.

    Raises:
        ValueError: a step comes before or at one that is done, or a price is not positive.
    """
    if max_stale < 0:
        raise ValueError(f"step {step_id}: max_stale must not be negative, not {max_stale}")

    def build(snapshot: bytes | None) -> _Aligner:
        return _Aligner(max_stale, snapshot)

    return op.stateful_batch("align", up, build)


class _Carried(msgspec.Struct, array_like=True):
    """The last price of every series, and how many steps ago it was traded."""

    names: list[str]
    prices: list[float]
    ages: list[int]
    last_time: int | None


class _Aligner(StatefulBatchLogic[pa.RecordBatch, pa.RecordBatch, bytes]):
    def __init__(self, max_stale: int, snapshot: bytes | None) -> None:
        self._max_stale = max_stale
        empty = _Carried([], [], [], None)
        self._carried = msgspec.msgpack.decode(snapshot, type=_Carried) if snapshot else empty

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[pa.RecordBatch], bool]:
        return [self._align(batch) for batch in values], StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self._carried)

    def _align(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if not batch.num_rows:
            return pa.RecordBatch.from_pylist([], schema=RETURNS)
        carried = self._carried
        times = batch["time"].cast(TIME).cast(pa.int64()).to_numpy()
        steps, row = np.unique(times, return_inverse=True)
        if (np.diff(times) < 0).any() or (
            carried.last_time is not None and steps[0] <= carried.last_time
        ):
            raise ValueError("align takes whole steps in time order; one came late")
        bars = batch["price"].to_numpy()
        if not ((bars > 0) & np.isfinite(bars)).all():
            raise ValueError("align takes finite, positive prices")

        known = set(carried.names)
        series = batch["series"].to_pylist()
        names = [*carried.names, *sorted(set(series) - known)]
        column = {name: at for at, name in enumerate(names)}
        new = len(names) - len(known)
        prices = np.full((len(steps) + 1, len(names)), np.nan)
        prices[0] = [*carried.prices, *[np.nan] * new]
        age = np.zeros(len(names), np.int64)
        age[: len(known)] = carried.ages
        prices[row + 1, [column[name] for name in series]] = bars

        filled, ages = _carry_forward(prices, age)
        stale = ages > self._max_stale
        filled[stale] = np.nan
        with np.errstate(invalid="ignore"):
            returns = np.diff(np.log(filled), axis=0)

        self._carried = _Carried(names, filled[-1].tolist(), ages[-1].tolist(), int(steps[-1]))
        return _long(steps, names, filled[1:], returns)


def _carry_forward(prices: F64, first_age: npt.NDArray[np.int64]) -> tuple[F64, Any]:
    """Fill each NaN with the value above; return that and the steps since it was there."""
    steps = np.arange(len(prices))[:, None]
    source = np.maximum.accumulate(np.where(np.isnan(prices), 0, steps), axis=0)
    filled = np.take_along_axis(prices, source, axis=0)
    ages = np.where(source > 0, steps - source, steps + first_age)
    return filled, ages


def _long(steps: Any, names: list[str], prices: F64, returns: F64) -> pa.RecordBatch:
    order = np.argsort(names)
    at_row, at_name = np.nonzero(~np.isnan(prices[:, order]))
    at_column = order[at_name]
    value = returns[at_row, at_column]
    return pa.record_batch(
        [
            pa.array(steps[at_row], pa.int64()).cast(TIME),
            pa.array(np.array(names, dtype=object)[at_column], pa.string()),
            pa.array(prices[at_row, at_column]),
            pa.array(value, mask=np.isnan(value)),
        ],
        schema=RETURNS,
    )
