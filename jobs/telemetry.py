"""Answer questions about a million agents in a tree, each answer with its error.

    python -m bytewax.run jobs.telemetry

With no settings it generates a workload of one million agents on 64 hosts, folds each host's
events into sketches, merges them in a tree (64 -> 8 -> 1), and shows answers beside the truth.
`python -m jobs describe telemetry` lists the settings. Results go to `runs/telemetry/<time>/` or
the directory in `TELEMETRY_OUT`:

    report.html          the answers on one page, for people
    answer.json          the answers as one document; while the job runs, the newest interim ones
    answers.ndjson       the answers as rows, with bounds, in total and for each window
    sample.ndjson        a uniform sample of the events
    dead_letters.ndjson  rows of event files that could not be used
    run.json             settings

The source `host` has no end unless `TELEMETRY_LIMIT` sets one: Ctrl-C ends it, and the run is
finished with what was seen. A finished run that is resumed from its snapshots with more input
answers for all of it.

With `TELEMETRY_ROLE` a process is one node of a tree that QUIC links connect: a leaf folds its
share and tells its parent what it knows whenever that changed, a region merges what its children
know, the root answers. `python -m jobs.telemetry_tree` starts such a tree on this machine, and
`python -m jobs.telemetry` runs one node with epochs shorter than the second that
`python -m bytewax.run` can do.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import Source
from bytewax.operators import KeyedStream

from connectors import plugins
from connectors.events import GeneratedSource, HostSource, Workload
from connectors.files import RunSink, output
from flows.telemetry import TelemetryParameters, inner, leaf, root, telemetry
from flows.telemetry_parts import Part
from flows.telemetry_state import Telemetry
from jobs.link_log import show_links
from jobs.settings import fail, new_directory, one_line_errors, resume_finished
from jobs.telemetry_board import Board
from jobs.telemetry_run import TABLES, RunRecord, about, finish, words, write_answer
from jobs.telemetry_settings import TelemetrySettings
from operators.shard import shard, shard_names
from state.hashing import hash64

CHANNEL = "telemetry"
_ANY_LEAF = 1 << 40
"""Leaves that are not numbered get a number below this from their name."""

_interrupted = threading.Event()
"""Whether to end what has no end of its own."""


def flow() -> Dataflow:
    """Build the job's dataflow from the settings in force, and make the directory for results."""
    one_line_errors("telemetry")
    try:
        resume_finished()
        settings = TelemetrySettings.load()
        graph, out = _from_settings(settings)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        if settings.role != "local":
            show_links("telemetry")
        elif settings.source == "host":
            signal.signal(signal.SIGINT, _end_the_input)
        if settings.spool is not None:
            signal.signal(signal.SIGINT, _leave)
        return graph
    except (OSError, ValueError) as error:
        fail("telemetry", error)


def _end_the_input(number: int, frame: object) -> None:
    """Let the first Ctrl-C end the input, so that what was seen is answered, and the second all."""
    _interrupted.set()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: object) -> None:
    """Let Ctrl-C end a node that has a parent at once, as if it was killed.

    The engine would wait for its worker, which may be waiting for the parent for minutes.
    """
    sys.stderr.write("telemetry: stopped; what the parent does not have yet is in the spool\n")
    sys.stderr.flush()
    os._exit(130)


def run() -> None:
    """Run the dataflow of the settings in this process, alone in its cluster."""
    from bytewax.recovery import RecoveryConfig
    from bytewax.testing import cluster_main

    graph = flow()
    settings = TelemetrySettings.load()
    recovery = None
    if settings.recovery is not None:
        recovery = RecoveryConfig(recovery_directory(settings.recovery))
    cluster_main(graph, [], 0, epoch_interval=settings.epoch, recovery_config=recovery)


def recovery_directory(path: Path) -> Path:
    """Return the directory of snapshots; make it at one stroke if it is not there."""
    from bytewax.recovery import init_db_dir

    from connectors.recovery import forget_unfinished

    if not path.exists():
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.mkdir(parents=True)
        init_db_dir(new, 1)
        new.rename(path)
    forget_unfinished(path)
    return path


def drawn() -> Dataflow:
    """Build the same dataflow to look at it; nothing is written."""
    return _from_settings(TelemetrySettings.load())[0]


def _from_settings(settings: TelemetrySettings) -> tuple[Dataflow, Path | None]:
    if settings.role in ("leaf", "region"):
        return (_leaf if settings.role == "leaf" else _region)(settings), None
    out = settings.out or new_directory("telemetry")
    if settings.role == "root":
        return _root(settings, out), out
    return _local(settings, make_source(settings, out), out), out


def make_source(settings: TelemetrySettings, out: Path | None) -> Source[Any]:
    """Return the source that the settings name.

    Raises:
        ValueError: it cannot be had, or its input cannot be used.
        OSError: a file cannot be read.
    """
    if settings.source == "generated":
        only = None if settings.slice is None else [settings.slice.share]
        workload = _workload(settings)
        names = shard_names(workload.hosts)
        return GeneratedSource(workload, names, only=only, rate=settings.rate)
    if settings.source == "file":
        from connectors.events.files import EventFileSource

        rejects = None if out is None else out / "dead_letters.ndjson"
        files = EventFileSource(settings.path, dead_letters=rejects)
        if not files.total_rows and not files.rejected:
            raise ValueError(f"{', '.join(settings.path)}: no events, only a header")
        return files
    if settings.source == "host":
        return HostSource(settings.limit, every=settings.every, stopped=_interrupted.is_set)
    return plugins.make_source(settings.source)


def _workload(settings: TelemetrySettings) -> Workload:
    hosts = settings.hosts if settings.slice is None else settings.slice.of
    return Workload(agents=settings.agents, hosts=hosts, seed=settings.seed, period=settings.period)


def _parameters(settings: TelemetrySettings, nodes: dict[str, int], of: int) -> TelemetryParameters:
    return TelemetryParameters(
        nodes=nodes,
        of=of,
        fan_in=settings.fan_in,
        window=settings.window,
        every=settings.every,
        seed=settings.seed,
    )


def _numbered(hosts: int) -> dict[str, int]:
    return {name: number for number, name in enumerate(shard_names(hosts))}


def _read(graph: Dataflow, settings: TelemetrySettings, source: Source[Any]) -> KeyedStream[Any]:
    """Return the events of a source under the names of their hosts."""
    events = op.input("events", graph, source)
    if settings.source == "generated":
        return events
    hosts = settings.hosts if settings.slice is None else settings.slice.of
    return shard("spread", events, "agent", shards=hosts)


def _local(settings: TelemetrySettings, source: Source[Any], out: Path) -> Dataflow:
    graph = Dataflow("telemetry")
    board = _board(settings, source)
    events = _read(graph, settings, source)
    events = op.inspect("watch", events, lambda _, item: board.advance(item[1]))
    p = _parameters(settings, _numbered(settings.hosts), settings.hosts)
    rejected = getattr(source, "rejected", 0)
    _answer(telemetry(events, p), settings, source, out, board, rejected=rejected)
    return graph


def _leaf(settings: TelemetrySettings) -> Dataflow:
    from connectors.quic import send

    name = str(settings.name)
    graph = Dataflow("telemetry")
    events = _read(graph, settings, make_source(settings, settings.out))
    if settings.slice is None:
        nodes, of = {name: _number(name)}, _ANY_LEAF
        events = op.map("mine", events, lambda item: (name, item[1]))
    else:
        key = shard_names(settings.slice.of)[settings.slice.share]
        nodes, of = {key: settings.slice.share}, settings.slice.of
        events = op.filter("mine", events, lambda item: item[0] == key)
    send("parent", leaf(events, _parameters(settings, nodes, of)), _uplink(settings))
    return graph


def _number(name: str) -> int:
    return int(hash64(pa.array([name]))[0]) % _ANY_LEAF


def _region(settings: TelemetrySettings) -> Dataflow:
    from connectors.quic import send

    graph = Dataflow("telemetry")
    p = _parameters(settings, {}, _ANY_LEAF)
    parts = inner(_children(graph, settings), str(settings.name), p)
    send("parent", parts, _uplink(settings))
    return graph


def _root(settings: TelemetrySettings, out: Path) -> Dataflow:
    graph = Dataflow("telemetry")
    p = _parameters(settings, {}, _ANY_LEAF)
    parts = root(_children(graph, settings), str(settings.name), p)
    source = None
    if settings.knows_the_truth and settings.source == "file":
        source = make_source(settings, out)
    _answer(parts, settings, source, out, _board(settings, None), rejected=0)
    return graph


def _children(graph: Dataflow, settings: TelemetrySettings) -> KeyedStream[Part]:
    from connectors.quic import Identity, Limits, QuicSource, Received

    assert settings.keys is not None
    source = QuicSource(
        str(settings.listen),
        CHANNEL,
        identity=Identity.load(settings.keys, str(settings.name)),
        peers=settings.children,
        expect=settings.children,
        message=Part,
        limits=Limits(idle=settings.idle),
    )

    def signed(received: Received) -> tuple[str, Part]:
        # Whatever a child calls itself, it is who its certificate says.
        part: Part = received.item
        return "children", Part(part.window, received.sender, part.events, part.state, part.last)

    return op.map("signed", op.input("children", graph, source), signed)


def _uplink(settings: TelemetrySettings) -> Any:
    from connectors.quic import Identity, Limits, QuicSink

    assert settings.keys is not None
    assert settings.spool is not None
    return QuicSink(
        str(settings.parent),
        CHANNEL,
        identity=Identity.load(settings.keys, str(settings.name)),
        peer=str(settings.parent_name),
        spool=settings.spool,
        # When parts are told is a matter of time, so a restart may tell others.
        hold=True,
        limits=Limits(idle=settings.idle),
    )


def _board(settings: TelemetrySettings, source: Any) -> Board:
    title = about(settings.model_dump(mode="json"))
    return Board(title, words(settings.source), getattr(source, "total_rows", None))


def _answer(
    parts: Stream[Part],
    settings: TelemetrySettings,
    source: Any,
    out: Path,
    board: Board,
    *,
    rejected: int,
) -> None:
    """Show interim answers; write the last ones, beside the truth about `source`."""

    def beside_the_truth(answers: pa.RecordBatch) -> pa.RecordBatch:
        if not settings.knows_the_truth:
            return answers
        from flows.telemetry_exact import Truth

        events: Iterable[pa.RecordBatch] = (
            _workload(settings).batches()
            if settings.source == "generated"
            else source.table.to_batches()
        )
        return Truth(events, settings.window).beside(answers)

    def tables(part: Part) -> Iterator[tuple[str, tuple[str, pa.RecordBatch]]]:
        state = Telemetry.from_bytes(part.state)
        answers = state.answers(confidence=settings.confidence, top=settings.top)
        if not part.last:
            board.answer(answers.to_pylist())
            write_answer(out, answers.to_pylist(), complete=False)
            return
        yield "run", ("answers.ndjson", beside_the_truth(answers))
        yield "run", ("sample.ndjson", state.sample())

    def finished(directory: Path) -> None:
        board.close()
        finish(directory, RunRecord.of(settings, rejected))

    output("results", op.flat_map("tables", parts, tables), RunSink(out, TABLES, finish=finished))


if __name__ == "__main__":
    run()
