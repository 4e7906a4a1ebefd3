"""Causal graphs over windows: conditional Granger and PCMCI, corrected for multiple tests.

Each closed window of a :class:`~state.panel.Panel` becomes one :class:`WindowGraph`: its tested
links as an `EDGES` batch. Both methods condition on the other series of the panel: a pairwise test
finds every indirect link as well, and finds more of them the more data there is, so it is not
offered here. Nothing observed rules out a driver that is not in the panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, map_value

from operators.ordered import ordered_map
from operators.window import Window
from state.causal import benjamini_hochberg, granger, granger_robust, pcmci
from state.causal.parcorr import Status
from state.moments import LaggedMoments
from state.panel import Panel, PanelView
from state.schemas import EDGES

GRANGER = "granger"
PCMCI = "pcmci"


@dataclass(frozen=True, slots=True)
class WindowGraph:
    """What was tested in one window."""

    index: int
    start: datetime
    """Time of the first row in the window."""
    end: datetime
    """Time of the last row in the window."""
    edges: pa.RecordBatch
    """`EDGES`: one row per ordered pair for Granger, per pair and lag for PCMCI."""
    alerts: tuple[tuple[int, str], ...]
    """(time in microseconds, series) of the alerts inside the window."""


@operator
def causal_graph(
    step_id: str,
    up: KeyedStream[Window[Panel]],
    *,
    lags: int,
    level: float = 0.05,
    coverage: float = 0.8,
) -> KeyedStream[WindowGraph]:
    """Test all links in every window, on any worker; emit graphs in the order of windows.

    In one window, q values are Benjamini-Hochberg over all links of one method. Granger tests are
    heteroskedasticity-robust (HC3) when the panel keeps its rows. A window in which fewer than
    two series have enough rows, or with too few rows for the tests, gives a graph without edges;
    a singular system gives edges with null statistics and the reason in `note`.

    Args:
        step_id: unique name of the step.
        up: windows of panels made with ``max_lag=2 * lags``.
        lags: how far back causes are looked for, in grid steps.
        level: false discovery rate at which a link is significant.
        coverage: share of a window's rows that a series must be present in.

    Raises:
        ValueError: a panel carries fewer lags than the tests need.
    """
    sealed = map_value("seal", up, lambda w: (w.index, w.state.to_bytes()))

    def test(item: tuple[int, bytes]) -> WindowGraph:
        index, data = item
        return graph_of(
            Panel.from_bytes(data), index=index, lags=lags, level=level, coverage=coverage
        )

    return ordered_map("test", sealed, test)


def graph_of(
    panel: Panel, *, index: int, lags: int, level: float, coverage: float = 0.8
) -> WindowGraph:
    """Test all links of one panel: the pure function behind :func:`causal_graph`."""
    first, last = panel.span or (0, 0)
    view = panel.read(coverage)
    rows: list[dict[str, Any]] = []
    if len(view.names) >= 2 and view.moments and _enough(view.moments, lags):
        rows = [
            *_granger_rows(view, view.moments, lags, level),
            *_pcmci_rows(view, view.moments, lags, level),
        ]
    start, end = _time(first), _time(last)
    here = {"window": index, "start": start, "end": end}
    edges = pa.RecordBatch.from_pylist([here | row for row in rows], schema=EDGES)
    return WindowGraph(index, start, end, edges, panel.alerts)


def _enough(moments: LaggedMoments, lags: int) -> bool:
    """Whether PCMCI's largest regression keeps some residual degrees of freedom."""
    return moments.scatter(2 * lags).n > 2 * lags * moments.n_series + 2


def _time(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _granger_rows(
    view: PanelView, moments: LaggedMoments, lags: int, level: float
) -> list[dict[str, Any]]:
    classic = granger(moments, lags, conditional=True)
    # The share of the effect's remaining variance that the cause explains: a partial R squared. It
    # follows from the classic F only; the robust test judges whether there is a link at all.
    explained = classic.f * classic.df_num / (classic.f * classic.df_num + classic.df_den)
    result = granger_robust(view.rows, lags, conditional=True) if len(view.rows) else classic
    q = benjamini_hochberg(result.p)
    rows = []
    for i, j in _pairs(len(view.names)):
        at = (i, j)
        row = _row(
            view, GRANGER, i, j, None, result.n, result.f[at], explained[at], result.p[at], q[at]
        )
        if result.singular[at]:
            row["note"] = "singular"
        rows.append(row | {"significant": bool(q[at] <= level)})
    return rows


def _pcmci_rows(
    view: PanelView, moments: LaggedMoments, lags: int, level: float
) -> list[dict[str, Any]]:
    result = pcmci(moments, lags, family="cross")
    found = result.links(level)
    rows = []
    for i, j in _pairs(len(view.names)):
        for lag in range(1, lags + 1):
            at = (i, j, lag)
            value = result.value[at]
            row = _row(
                view, PCMCI, i, j, lag, result.rows, value, value, result.p[at], result.q[at]
            )
            if result.singular[at]:
                row["note"] = Status(result.status[at]).name.lower()
            rows.append(row | {"significant": bool(found[at])})
    return rows


def _pairs(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(n) if i != j]


def _row(
    view: PanelView,
    method: str,
    cause: int,
    effect: int,
    lag: int | None,
    n: int,
    *numbers: float | npt.NDArray[np.float64],
) -> dict[str, Any]:
    statistic, weight, p, q = (float(x) if np.isfinite(x) else None for x in numbers)
    return {
        "rows": n,
        "method": method,
        "cause": view.names[cause],
        "effect": view.names[effect],
        "lag": lag,
        "statistic": statistic,
        "weight": weight,
        "p": p,
        "q": q,
        "note": None,
    }
