"""Score returns with any ensemble of streaming detectors, and raise alerts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import bytewax.operators as op
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from state.detectors import Ensemble
from state.mergeable import seal, unseal
from state.schemas import ALERTS, RETURNS, SCORED, TIME

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DetectOut:
    """Streams of :func:`detect`, one batch each for every input batch."""

    scored: KeyedStream[pa.RecordBatch]
    """`SCORED`: the input rows with drawdown, score and whether an alert was raised."""
    alerts: KeyedStream[pa.RecordBatch]
    """`ALERTS`, perhaps without rows: the input rows that raised one."""


@operator
def detect(
    step_id: str,
    up: KeyedStream[pa.RecordBatch],
    create: Callable[[], Ensemble],
    *,
    quiet: Collection[str] = (),
) -> DetectOut:
    """Score every return on its series' own past, and raise alerts.

    Every series of a key is judged on its own; one that appears later starts then, with the
    detectors' warm-up before it. A row's `drawdown` is its price over the highest price of its
    series so far, minus 1. A null `log_return` moves the drawdown but no detector; it scores 0.

    - *Late or duplicate*: a row at or before the last time of its series raises; what comes
      before this operator (`align`) puts rows in order.
    - *Empty*: a batch without rows gives a batch without rows.
    - *Restart*: detectors, running peaks and refractory periods resume exactly. The snapshot's
      parameters win over those of a changed `create`, which then applies to new keys only.

    Args:
        step_id: unique name of the step.
        up: batches of `state.schemas.RETURNS`.
        create: returns a fresh ensemble of no series, such as `crash_ensemble`; called once per
            key. Members of classes outside `state.detectors` are restored by class.
        quiet: series that are scored but raise no alert, because their fall is no crash: gauges
            of volatility, interest rates.

    Raises:
        ValueError: a row is not after the last one of its series.
    """

    def build(snapshot: bytes | None) -> _Detect:
        return _Detect(create(), frozenset(quiet), snapshot)

    both = op.stateful_batch("detect", up, build)
    return DetectOut(
        op.map_value("scored", both, lambda pair: pair[0]),
        op.map_value("alerts", both, lambda pair: pair[1]),
    )


class _Saved(msgspec.Struct, array_like=True):
    names: list[str]
    times: bytes
    peaks: bytes
    ensemble: bytes


_KIND = "detect"
_NAMES = ALERTS.field("detectors").type
_NEVER = np.iinfo(np.int64).min


_Pair = tuple[pa.RecordBatch, pa.RecordBatch]


class _Detect(StatefulBatchLogic[pa.RecordBatch, _Pair, bytes]):
    def __init__(self, ensemble: Ensemble, quiet: frozenset[str], snapshot: bytes | None) -> None:
        self._ensemble = ensemble
        self._quiet = quiet
        self._column: dict[str, int] = {}
        self._times: I64 = np.zeros(0, np.int64)
        self._peaks: F64 = np.zeros(0)
        if snapshot is not None:
            saved = msgspec.msgpack.decode(unseal(_KIND, snapshot, versions={1})[1], type=_Saved)
            self._column = {name: at for at, name in enumerate(saved.names)}
            self._times = np.frombuffer(saved.times, np.int64).copy()
            self._peaks = np.frombuffer(saved.peaks, np.float64).copy()
            kinds = [type(member) for member in ensemble.members]
            self._ensemble = Ensemble.from_bytes(saved.ensemble, kinds)

    @override
    def on_batch(self, values: list[pa.RecordBatch]) -> tuple[list[_Pair], bool]:
        return [self._score(batch) for batch in values], StatefulBatchLogic.RETAIN

    @override
    def snapshot(self) -> bytes:
        saved = _Saved(
            list(self._column),
            self._times.tobytes(),
            self._peaks.tobytes(),
            self._ensemble.to_bytes(),
        )
        return seal(_KIND, 1, msgspec.msgpack.encode(saved))

    def _score(self, batch: pa.RecordBatch) -> _Pair:
        if not batch.num_rows:
            return _without_rows(SCORED), _without_rows(ALERTS)
        encoded = batch["series"].dictionary_encode()
        names = encoded.dictionary.to_pylist()
        self._grow(names)
        column = np.array([self._column[name] for name in names])[encoded.indices.to_numpy()]
        time = batch["time"].cast(TIME).cast(pa.int64()).to_numpy()
        self._check_order(time, column)

        steps, row = np.unique(time, return_inverse=True)
        shape = (len(steps), len(self._column))
        returns, prices = np.full(shape, np.nan), np.full(shape, np.nan)
        returns[row, column] = batch["log_return"].to_numpy(zero_copy_only=False)
        prices[row, column] = batch["price"].to_numpy()
        peaks = np.fmax.accumulate(np.concatenate([self._peaks[None], prices]), axis=0)[1:]
        self._peaks = peaks[-1]
        np.maximum.at(self._times, column, time)
        detection = self._ensemble.detect(returns)

        drawdown = pa.array((prices / peaks - 1.0)[row, column])
        score = pa.array(detection.score[row, column])
        heard = np.array([name not in self._quiet for name in self._column])
        alert = detection.alert[row, column] & heard[column]
        columns = [batch[name] for name in RETURNS.names] + [drawdown, score]
        scored = pa.record_batch([*columns, pa.array(alert)], schema=SCORED)
        at = np.flatnonzero(alert)
        members = np.array(self._ensemble.names, dtype=object)
        fired = [members[votes].tolist() for votes in detection.fired[row, column][at]]
        alerts = pa.record_batch(
            [*(c.take(pa.array(at)) for c in columns), pa.array(fired, _NAMES)], schema=ALERTS
        )
        return scored, alerts

    def _grow(self, names: list[str]) -> None:
        for name in names:
            self._column.setdefault(name, len(self._column))
        more = len(self._column) - len(self._times)
        if more:
            self._times = np.append(self._times, np.full(more, _NEVER))
            self._peaks = np.append(self._peaks, np.full(more, np.nan))
            self._ensemble.grow(len(self._column))

    def _check_order(self, time: I64, column: I64) -> None:
        # A stable sort by series keeps each series' rows in the order they came in.
        order = np.argsort(column, kind="stable")
        sorted_time, sorted_column = time[order], column[order]
        first = np.append(True, sorted_column[1:] != sorted_column[:-1])
        before = np.append(_NEVER, sorted_time[:-1])
        before[first] = self._times[sorted_column[first]]
        late = np.flatnonzero(sorted_time <= before)
        if len(late):
            at = int(late[0])
            name = list(self._column)[sorted_column[at]]
            came, last = (pa.scalar(int(t), TIME).as_py() for t in (sorted_time[at], before[at]))
            raise ValueError(
                f"series {name!r}: a row at {came.isoformat()} came after one at "
                f"{last.isoformat()}; detect takes rows in time order"
            )


def _without_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)
