"""The main job: find crashes in prices, and which series led which, over sliding windows.

    python -m bytewax.run jobs.market

With no settings it replays twenty years of real daily prices. `python -m jobs describe market`
lists the settings. Results go to `runs/market/<time>/` or the directory in `MARKET_OUT`:

    report.html          the run on one page, for people
    alerts.ndjson        crash alerts, as they happen
    hypotheses.ndjson    links that held over windows, as they end
    edges.parquet        every link tested in every window
    returns.parquet      aligned prices, returns, drawdowns and scores
    ticks.parquet        what was taken in, for `jobs.recompute`
    late.ndjson          ticks that came after their step was closed
    dead_letters.ndjson  rows of price files that could not be used
    run.json             settings and counts
    shared_alerts.ndjson alerts of all monitors, with MARKET_GOSSIP_NAME

With `MARKET_GOSSIP_NAME` it is one of several monitors on different feeds that share their alerts
with no centre (`jobs.market_shared`); all end with the same ones.

A live feed ends after `MARKET_LIMIT` trades; kept in recovery (`-r`, `MARKET_OUT`), it may be
killed at any time and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pyarrow.parquet as pq
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.operators import KeyedStream

from connectors import plugins
from connectors.files import RunSink, output
from connectors.market import LiveSource, PriceFileSource, ReplaySource, daily_prices
from flows.market import MarketParameters, MarketStreams, market
from jobs.link_log import show_links
from jobs.market_run import TABLES, RunRecord, finish
from jobs.market_settings import LIVE, MarketSettings
from jobs.progress import RunProgress
from jobs.settings import fail, new_directory, one_line_errors, resume_finished


def flow() -> Dataflow:
    """Build the job's dataflow from the settings in force, and make the directory for results."""
    one_line_errors("market")
    try:
        resume_finished()
        settings = MarketSettings.load()
        graph, out = _from_settings(settings)
        out.mkdir(parents=True, exist_ok=True)
        if settings.gossip_name is not None:
            show_links("market")
        return graph
    except (OSError, ValueError) as error:
        fail("market", error)


def drawn() -> Dataflow:
    """Build the same dataflow to look at it; nothing is written."""
    return _from_settings(MarketSettings.load())[0]


def _from_settings(settings: MarketSettings) -> tuple[Dataflow, Path]:
    out = settings.out or new_directory("market")
    return _watched(settings, make_source(settings, out), out), out


def make_source(settings: MarketSettings, out: Path) -> Source[pa.RecordBatch]:
    """Return the source that the settings name.

    Raises:
        ValueError: it cannot be had, or its input cannot be used.
        OSError: a file cannot be read.
    """
    if settings.source == "replay":
        return ReplaySource(daily_prices(settings.series or None), speed=settings.speed)
    rejects = out / "dead_letters.ndjson"
    if settings.source == "file":
        files = PriceFileSource(settings.path, dead_letters=rejects, speed=settings.speed)
        if not files.total_rows and not files.rejected:
            raise ValueError(f"{', '.join(settings.path)}: no prices, only a header")
        return files
    if settings.source in LIVE:
        return LiveSource(
            settings.source,
            settings.series,
            url=settings.url,
            limit=settings.limit,
            dead_letters=rejects,
        )
    return plugins.make_source(settings.source)


def build(
    settings: MarketSettings,
    source: Source[pa.RecordBatch],
    out: Path,
    *,
    watch: Callable[[pa.RecordBatch], None] = lambda batch: None,
    finished: Callable[[Path], None] | None = None,
    shared: bool = False,
) -> Dataflow:
    """Connect a source, the flow and the run directory; if wanted, share alerts with others."""
    graph = Dataflow("market")
    ticks = op.input("ticks", graph, source)
    ticks = op.inspect("watch", ticks, lambda _, batch: watch(batch))
    streams = market(ticks, _parameters(settings))
    if shared:
        from jobs.market_shared import share

        share(graph, streams.alerts, settings, out)
    tables = {"ticks.parquet": ticks, **_results(streams)}
    labelled = [_label(name, stream) for name, stream in tables.items()]
    output("results", op.merge("gather", *labelled), RunSink(out, TABLES, finish=finished))
    return graph


def recompute_flow(record: RunRecord, ticks: Path, out: Path) -> Dataflow:
    """Build the flow of a finished run over its stored ticks, in one batch."""
    table = pq.read_table(ticks)
    source = ReplaySource(table, batch_rows=max(1, table.num_rows))
    return build(MarketSettings.model_validate(record.settings), source, out)


def _label(name: str, stream: Stream[pa.RecordBatch]) -> KeyedStream[tuple[str, pa.RecordBatch]]:
    def label(batch: pa.RecordBatch) -> tuple[str, tuple[str, pa.RecordBatch]]:
        return "run", (name, batch)

    return op.map(f"to_{name.partition('.')[0]}", stream, label)


def _parameters(settings: MarketSettings) -> MarketParameters:
    wanted = {field.name for field in fields(MarketParameters)}
    return MarketParameters(**settings.model_dump(include=wanted))


def _watched(settings: MarketSettings, source: Source[pa.RecordBatch], out: Path) -> Dataflow:
    """Build the flow with a progress display, a record and a report."""
    progress = RunProgress("market", getattr(source, "total_rows", None))

    def finished(directory: Path) -> None:
        progress.close()
        finish(directory, RunRecord.of(settings, getattr(source, "rejected", 0)))

    return build(
        settings,
        source,
        out,
        watch=progress.advance,
        finished=finished,
        shared=settings.gossip_name is not None,
    )


def _results(streams: MarketStreams) -> dict[str, Stream[pa.RecordBatch]]:
    return {
        "returns.parquet": streams.scored,
        "alerts.ndjson": streams.alerts,
        "edges.parquet": streams.edges,
        "hypotheses.ndjson": streams.hypotheses,
        "late.ndjson": streams.late,
    }
