"""Turn graphs of consecutive windows into hypotheses that a person can check.

A hypothesis is a link (cause, effect, lag) that PCMCI found in a run of windows, with at most one
window missing at a time. Its confidence is Laplace's rule of succession over the tests in that
run, (hits + 1) / (tests + 2), where each window counts two tests: PCMCI at this lag, and
conditional Granger over all lags. Windows overlap, so these tests are not independent and the
number ranks hypotheses; it is no probability of truth.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import bytewax.operators as op
import msgspec
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.causal import GRANGER, PCMCI, WindowGraph
from state.schemas import HYPOTHESES

_PATIENCE = 1
"""Windows in a row that a link may be missing from before its hypothesis is closed."""


@operator
def hypothesize(step_id: str, up: KeyedStream[WindowGraph]) -> KeyedStream[pa.RecordBatch]:
    """Emit a `HYPOTHESES` batch whenever links end, and for those still open at end of input.

    Args:
        step_id: unique name of the step.
        up: graphs in the order of windows, as `operators.causal.causal_graph` gives them. A
            window that is not there counts as one without links.
    """
    return op.stateful_batch("track", up, _Tracker)


class _Open(msgspec.Struct, array_like=True):
    """A link that is being followed."""

    first_window: int
    last_window: int
    start: datetime
    end: datetime
    found: int
    confirmed: int
    best_q: float
    weight: float
    crashes: list[int]


Link = tuple[str, str, int]


class _Tracker(StatefulBatchLogic[WindowGraph, pa.RecordBatch, bytes]):
    def __init__(self, snapshot: bytes | None) -> None:
        kind = list[tuple[Link, _Open]]
        self._open: dict[Link, _Open] = (
            dict(msgspec.msgpack.decode(snapshot, type=kind)) if snapshot else {}
        )

    @override
    def on_batch(self, values: list[WindowGraph]) -> tuple[list[pa.RecordBatch], bool]:
        ended = [row for graph in values for row in self._follow(graph)]
        return ([_batch(ended)] if ended else []), StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[pa.RecordBatch], bool]:
        rows = [_hypothesis(link, open_) for link, open_ in sorted(self._open.items())]
        return ([_batch(rows)] if rows else []), StatefulBatchLogic.DISCARD

    @override
    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(list(self._open.items()))

    def _follow(self, graph: WindowGraph) -> list[dict[str, Any]]:
        ended = [
            _hypothesis(link, self._open.pop(link))
            for link, open_ in sorted(self._open.items())
            if graph.index > open_.last_window + 1 + _PATIENCE
        ]
        significant = [edge for edge in graph.edges.to_pylist() if edge["significant"]]
        confirmed = {(e["cause"], e["effect"]) for e in significant if e["method"] == GRANGER}
        for edge in significant:
            if edge["method"] != PCMCI:
                continue
            link = (edge["cause"], edge["effect"], edge["lag"])
            open_ = self._open.setdefault(
                link, _Open(graph.index, graph.index, graph.start, graph.end, 0, 0, 1.0, 0.0, [])
            )
            open_.last_window, open_.end = graph.index, graph.end
            open_.found += 1
            open_.confirmed += link[:2] in confirmed
            if edge["q"] <= open_.best_q:
                open_.best_q, open_.weight = edge["q"], edge["weight"]
            on_effect = {time for time, series in graph.alerts if series == edge["effect"]}
            open_.crashes = sorted(on_effect.union(open_.crashes))
        return ended


def _hypothesis(link: Link, open_: _Open) -> dict[str, Any]:
    cause, effect, lag = link
    windows = open_.last_window - open_.first_window + 1
    confidence = (open_.found + open_.confirmed + 1) / (2 * windows + 2)
    crashes = len(open_.crashes)
    during = f", through {crashes} crash alert{'s' * (crashes != 1)} on {effect}" if crashes else ""
    text = (
        f"{cause} led {effect} at lag {lag}, q = {open_.best_q:.2g}, "
        f"{open_.start:%Y-%m}..{open_.end:%Y-%m}{during}"
    )
    return {
        "cause": cause,
        "effect": effect,
        "lag": lag,
        "start": open_.start.astimezone(UTC),
        "end": open_.end.astimezone(UTC),
        "windows": windows,
        "q": open_.best_q,
        "weight": open_.weight,
        "confidence": confidence,
        "crashes": crashes,
        "text": text,
    }


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=HYPOTHESES)
