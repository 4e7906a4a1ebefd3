"""Result files lose and double nothing, whatever breaks; and say which file is wrong."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSource, cluster_main, run_main

from connectors.files import Mark, NdjsonSink, ParquetSink, RunSink, TableSpec, output
from connectors.testing import check_sink
from state.schemas import ALERTS, EDGES

DAY = datetime(2008, 9, 29, tzinfo=UTC)
SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("names", pa.list_(pa.string())),
    ]
)


def rows(*seconds):
    times = [DAY + timedelta(seconds=s) for s in seconds]
    return pa.record_batch([times, [s / 3 for s in seconds], [["a", "b"]] * len(times)], SCHEMA)


def contents(directory):
    files = (p for p in directory.rglob("*") if p.is_file() and p.suffix != ".spool")
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def run(items, sink, **options):
    flow = Dataflow("flow")
    stream = op.input("in", flow, TestingSource(items))
    output("out", op.map("key", stream, lambda item: ("k", item)), sink)
    run_main(flow, epoch_interval=timedelta(0), **options)


def write(sink, batches, state=None):
    """Write batches as the engine does, up to the end of input; return the last snapshot."""
    part = sink.build_part("out", "run", state)
    try:
        part.write_batch([Mark(None), *batches, Mark(len(batches))])
        return part.snapshot()
    finally:
        part.close()


def test_ndjson_is_json_with_times_in_utc(tmp_path):
    schema = pa.schema(
        {
            "b": pa.timestamp("s", "America/New_York"),
            "a": pa.float64(),
            "list": pa.list_(pa.float64()),
            "n": pa.int64(),
            "text": pa.string(),
            "ok": pa.bool_(),
        }
    )
    batch = pa.record_batch(
        [
            pa.array([DAY, None, DAY, DAY, DAY], schema.field("b").type),
            [0.1 + 0.2, float("nan"), float("inf"), 1e300, -0.0],
            [[1.5], [], None, [float("-inf")], [None]],
            [1, 2**62, None, -4, 5],
            ['"', "\n", "é", "", None],
            [True, False, None, True, True],
        ],
        schema,
    )
    run([batch], NdjsonSink(tmp_path / "x.ndjson", schema))
    text = (tmp_path / "x.ndjson").read_text("utf-8")
    assert text.splitlines()[0] == (
        '{"b":"2008-09-29T00:00:00Z","a":0.30000000000000004,"list":[1.5],"n":1,"text":"\\"",'
        '"ok":true}'
    )
    read = [json.loads(line) for line in text.splitlines()]
    assert [r["a"] for r in read] == [0.1 + 0.2, None, None, 1e300, 0.0]
    assert [r["list"] for r in read] == [[1.5], [], None, [None], [None]]
    assert [r["n"] for r in read] == [1, 2**62, None, -4, 5]
    assert [r["text"] for r in read] == ['"', "\n", "é", "", None]
    assert pl.read_ndjson(tmp_path / "x.ndjson").columns == schema.names


def test_parquet_holds_the_rows_schema_and_metadata(tmp_path):
    schema = SCHEMA.with_metadata({"made by": "a test"})
    run([rows(3), rows(1, 2)], ParquetSink(tmp_path / "x.parquet", schema))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table == pa.Table.from_batches([rows(3, 1, 2)])
    assert table.schema.metadata == schema.metadata
    assert pl.read_parquet(tmp_path / "x.parquet")["value"].to_list() == [1.0, 1 / 3, 2 / 3]
    assert contents(tmp_path).keys() == {"x.parquet"}
    assert not (tmp_path / "x.parquet.spool").exists()


@pytest.mark.parametrize(
    "sink",
    [
        lambda d, **k: NdjsonSink(d / "x.ndjson", SCHEMA, **k),
        lambda d, **k: ParquetSink(d / "x.parquet", SCHEMA, **k),
    ],
    ids=["ndjson", "parquet"],
)
@pytest.mark.parametrize("sort_by", [None, "time", ["value", "time"]])
def test_the_sinks_keep_the_contract(sink, sort_by):
    batches = [rows(4, 2), rows(), rows(3, 1, 9), rows(2)]
    items = [("k", Mark(None)), *(("k", b) for b in batches), ("k", Mark(len(batches)))]
    check_sink(lambda d: sink(d / "new" / "directory", sort_by=sort_by), items, contents)


TABLES = {
    "a.ndjson": TableSpec(SCHEMA, "time"),
    "b.parquet": TableSpec(SCHEMA, "time"),
    "c.ndjson": TableSpec(SCHEMA),
    "d.parquet": TableSpec(SCHEMA),
}
WORK = [
    ("a.ndjson", rows(3, 1)),
    ("b.parquet", rows(5)),
    ("d.parquet", rows(8, 7)),
    ("b.parquet", rows(4, 3)),
    ("c.ndjson", rows(6)),
]


def report(directory):
    (directory / "report").write_text(",".join(sorted(p.name for p in directory.iterdir())))


def test_a_run_of_several_tables_keeps_the_contract():
    items = [("k", i) for i in [Mark(None), *WORK, Mark(len(WORK))]]
    check_sink(lambda d: RunSink(d / "run", TABLES, finish=finish_once(d)), items, contents)


def finish_once(directory):
    def finish(given):
        assert given == directory / "run"
        assert set(TABLES) <= {p.name for p in given.iterdir()}
        assert pq.read_table(given / "b.parquet")["time"].to_pylist() == [
            DAY + timedelta(seconds=s) for s in (3, 4, 5)
        ]
        (given / "report").write_text("made")

    return finish


class Died(BaseException):
    """The process is gone: nothing that catches errors may run on."""


@contextmanager
def dying_at(call: int) -> Iterator[list[str]]:
    """Let the n-th change of the file system be the last one that happens."""
    calls: list[str] = []
    patch = pytest.MonkeyPatch()

    def counted(name, real):
        def wrapper(*arguments, **options):
            if len(calls) >= call:
                raise Died
            calls.append(name)
            return real(*arguments, **options)

        return wrapper

    for owner, name in [
        (os, "fsync"),
        (os, "replace"),
        (os, "unlink"),
        (Path, "replace"),
        (Path, "unlink"),
        (Path, "open"),
    ]:
        patch.setattr(owner, name, counted(name, getattr(owner, name)))
    try:
        yield calls
    finally:
        patch.undo()


@pytest.mark.parametrize("stored", [0, 3, len(WORK)])
def test_dying_at_any_change_of_a_file_loses_and_doubles_nothing(tmp_path, stored):
    write(RunSink(tmp_path / "whole", TABLES), WORK)
    whole = contents(tmp_path / "whole")
    for call in itertools.count():
        directory = tmp_path / str(call)
        sink = RunSink(directory, TABLES)
        state = None
        abandoned = []
        try:
            with dying_at(call) as calls:
                part = sink.build_part("out", "run", None)
                abandoned.append(part)
                part.write_batch([Mark(None), *WORK[:stored]])
                if stored:
                    state = part.snapshot()
                part.write_batch([*WORK[stored:], Mark(len(WORK))])
        except Died:
            pass
        again = sink.build_part("out", "run", state)
        if state is None:
            again.write_batch([Mark(None), *WORK, Mark(len(WORK))])
        else:
            again.write_batch([*WORK[stored:], Mark(len(WORK))])
        again.snapshot()
        again.close()
        found = {k: v for k, v in contents(directory).items() if not k.startswith(".")}
        assert found == whole, calls
        for part in abandoned:
            part.close()
        shutil.rmtree(directory)
        if len(calls) < call:
            break
    assert call > 20


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_without_items_leaves_valid_empty_files(tmp_path, workers):
    flow = Dataflow("flow")
    stream = op.input("in", flow, TestingSource([]))
    tables = {"a.ndjson": TableSpec(ALERTS), "e.parquet": TableSpec(EDGES)}
    output("out", op.key_on("k", stream, str), RunSink(tmp_path, tables, finish=report))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    assert (tmp_path / "a.ndjson").read_bytes() == b""
    assert pq.read_table(tmp_path / "e.parquet") == EDGES.empty_table()
    assert (tmp_path / "report").read_text() == "a.ndjson,e.parquet"


def test_a_finished_run_stays_as_it_is_and_goes_on_with_more_rows(tmp_path):
    (tmp_path / "store").mkdir()
    init_db_dir(tmp_path / "store", 1)
    recovery = RecoveryConfig(str(tmp_path / "store"))
    calls = []
    sink = RunSink(tmp_path / "out", TABLES, finish=calls.append)
    run(WORK[:3], sink, recovery_config=recovery)
    first = contents(tmp_path / "out")
    run(WORK[:3], sink, recovery_config=recovery)
    assert contents(tmp_path / "out") == first
    assert calls == [tmp_path / "out"]
    run(WORK, sink, recovery_config=recovery)
    assert len(calls) == 2
    run(WORK, RunSink(tmp_path / "whole", TABLES))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


BREAKS = {
    "map": "raise RuntimeError('broken on purpose')",
    "interrupt": "os.kill(os.getpid(), signal.SIGINT)",
    "kill": "os.kill(os.getpid(), signal.SIGKILL)",
}
JOB = """
import os, signal, sys
from pathlib import Path
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource
from test_files import DAY, TABLES, output, RunSink, report, rows

place = Path(os.environ["PLACE"])

def step(i):
    if i == int(os.environ["BREAK_AT"]) and not (place / "broken").exists():
        (place / "broken").touch()
        exec(os.environ["BREAK"])
    return list(TABLES)[i % 4], rows(i, 1000 - i)

flow = Dataflow("flow")
stream = op.map("step", op.input("in", flow, TestingSource(range(40))), step)
sink = RunSink(place / "out", TABLES, finish=report)
output("out", op.key_on("key", stream, lambda _: "k"), sink)
"""


def start(place, *options, at=-1, code=""):
    (place / "job.py").write_text(JOB)
    return subprocess.run(
        [sys.executable, "-m", "bytewax.testing", "job:flow", "-s", "0", "-b", "0", *options],
        env={
            **os.environ,
            "PLACE": str(place),
            "BREAK_AT": str(at),
            "BREAK": code,
            "PYTHONPATH": os.pathsep.join([str(place), str(Path(__file__).parent)]),
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    place = tmp_path_factory.mktemp("whole")
    ended = start(place)
    assert ended.returncode == 0, ended.stderr
    return contents(place / "out")


@pytest.mark.parametrize("options", [["-w", "2"], ["-p", "2"]])
def test_two_workers_and_two_processes_leave_the_same_bytes(tmp_path, whole, options):
    ended = start(tmp_path, *options)
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_flow_finishes_nothing_and_resumes_to_the_same_bytes(tmp_path, whole, how):
    (tmp_path / "store").mkdir()
    init_db_dir(tmp_path / "store", 2)
    options = ["-r", str(tmp_path / "store"), *(["-w", "2"] if how == "map" else [])]
    ended = start(tmp_path, *options, at=25, code=BREAKS[how])
    assert ended.returncode != 0
    names = set(contents(tmp_path / "out"))
    assert names == {"a.ndjson", "c.ndjson"}, "a Parquet file or report of half a run"
    assert (tmp_path / "out" / "a.ndjson").read_bytes().endswith(b"}\n")
    ended = start(tmp_path, *options)
    assert ended.returncode == 0, ended.stderr
    assert contents(tmp_path / "out") == whole


def test_rows_wait_in_a_spool_that_can_be_read(tmp_path):
    part = ParquetSink(tmp_path / "x.parquet", SCHEMA).build_part("out", "run", None)
    part.write_batch([Mark(None), rows(1, 2), rows(3)])
    part.snapshot()
    with pa.ipc.open_stream(tmp_path / "x.parquet.spool") as spool:
        assert spool.read_all()["value"].to_pylist() == [1 / 3, 2 / 3, 1.0]
    assert not (tmp_path / "x.parquet").exists()
    part.close()


def test_lines_can_be_followed_while_they_come(tmp_path):
    path = tmp_path / "x.ndjson"
    part = NdjsonSink(path, SCHEMA).build_part("out", "run", None)
    part.write_batch([Mark(None)])
    for i in range(3):
        part.write_batch([rows(i, i + 1)])
        assert path.read_bytes().count(b"\n") == 2 * i + 2
        assert path.read_bytes().endswith(b"}\n")
    part.close()


def test_files_of_an_earlier_run_are_replaced(tmp_path):
    write(RunSink(tmp_path, TABLES), [("c.ndjson", rows(1)), ("d.parquet", rows(1))])
    with (tmp_path / "c.ndjson").open() as reader:
        part = RunSink(tmp_path, TABLES).build_part("out", "run", None)
        part.write_batch([Mark(None), ("c.ndjson", rows(2, 3)), ("d.parquet", rows(2))])
        assert len(reader.readlines()) == 1, "who reads the old file keeps it"
        assert pq.read_table(tmp_path / "d.parquet").num_rows == 1, "complete until replaced"
        part.write_batch([Mark(2)])
        part.close()
    assert len((tmp_path / "c.ndjson").read_text().splitlines()) == 2
    assert pq.read_table(tmp_path / "d.parquet")["value"].to_pylist() == [2 / 3]


def test_equal_rows_make_equal_parquet_however_they_are_batched(tmp_path, monkeypatch):
    monkeypatch.setattr("connectors.files.parquet.ROW_GROUP", 7)
    seconds = [i * 37 % 101 for i in range(60)]
    for name, size in [("a", 1), ("b", 7), ("c", 13), ("d", 60)]:
        batches = [rows(*seconds[i : i + size]) for i in range(0, 60, size)]
        write(ParquetSink(tmp_path / f"{name}.parquet", SCHEMA), batches)
    files = {(tmp_path / f"{name}.parquet").read_bytes() for name in "abcd"}
    assert len(files) == 1
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 9


def test_sorting_is_stable_and_puts_nulls_last(tmp_path):
    schema = pa.schema({"k": pa.float64(), "t": pa.timestamp("us", "UTC"), "i": pa.int64()})
    # Text order would put .5 s before the whole second.
    times = [DAY + timedelta(seconds=0.5), DAY, None, DAY, DAY]
    batch = pa.record_batch([[2.0, 10.0, None, 2.0, 10.0], times, range(5)], schema)
    for sort_by, expected in [("k", [0, 3, 1, 4, 2]), ("t", [1, 3, 4, 0, 2])]:
        write(NdjsonSink(tmp_path / "x.ndjson", schema, sort_by=sort_by), [batch])
        write(ParquetSink(tmp_path / "x.parquet", schema, sort_by=sort_by), [batch])
        lines = (tmp_path / "x.ndjson").read_text().splitlines()
        assert [json.loads(line)["i"] for line in lines] == expected
        assert pq.read_table(tmp_path / "x.parquet")["i"].to_pylist() == expected


def test_finish_that_raises_leaves_the_tables_and_is_called_again(tmp_path):
    (tmp_path / "store").mkdir()
    init_db_dir(tmp_path / "store", 1)
    recovery = RecoveryConfig(str(tmp_path / "store"))

    def fails(directory):
        raise RuntimeError("no report today")

    with pytest.raises(RuntimeError, match="no report today"):
        run(WORK, RunSink(tmp_path / "out", TABLES, finish=fails), recovery_config=recovery)
    before = contents(tmp_path / "out")
    assert set(before) == set(TABLES)
    run(WORK, RunSink(tmp_path / "out", TABLES, finish=report), recovery_config=recovery)
    assert (tmp_path / "out" / "report").exists()
    assert {k: v for k, v in contents(tmp_path / "out").items() if k != "report"} == before


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (rows(1).select(["time", "value"]), r"columns \['time', 'value'\] came instead of"),
        (
            pa.record_batch([pa.array([DAY], SCHEMA[0].type), [1], [["a"]]], SCHEMA.names),
            "column 'value' came as int64, not double",
        ),
        (
            pa.record_batch([pa.array([None], SCHEMA[0].type), [1.0], [["a"]]], SCHEMA),
            "column 'time' has a null",
        ),
        ([1], "a list came instead of a RecordBatch"),
    ],
)
@pytest.mark.parametrize("sink", [NdjsonSink, ParquetSink])
def test_a_batch_of_another_schema_names_file_and_column(tmp_path, sink, batch, message):
    path = tmp_path / f"x{sink.suffix}"
    part = sink(path, SCHEMA).build_part("out", "run", None)
    with pytest.raises(ValueError, match=message) as caught:
        part.write_batch([Mark(None), batch])
    assert str(caught.value).startswith(str(path))
    part.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: NdjsonSink(d / "x.json", SCHEMA), r"must end in \.ndjson"),
        (lambda d: ParquetSink(d / "x", SCHEMA), r"must end in \.parquet"),
        (lambda d: RunSink(d, {"x.csv": TableSpec(SCHEMA)}), "'x.csv': a file name that ends in"),
        (lambda d: RunSink(d, {"../x.ndjson": TableSpec(SCHEMA)}), "'../x.ndjson': a file name"),
        (
            lambda d: RunSink(d, {"x.parquet": TableSpec(SCHEMA, newest=True)}),
            "'x.parquet': only .ndjson can hold the newest rows",
        ),
        (lambda d: TableSpec(SCHEMA, "time", newest=True), "is not sorted by 'time'"),
        (lambda d: TableSpec(SCHEMA, "nope"), "cannot sort by 'nope': the columns are"),
        (lambda d: TableSpec(SCHEMA, "names"), "cannot sort by 'names': list"),
        (lambda d: write(NdjsonSink(d / "x.ndjson", NAIVE), []), "x.ndjson: column 't' is timesta"),
        (lambda d: write(NdjsonSink(d / "x.ndjson", MAP), []), "x.ndjson: column 'm' is map"),
        (lambda d: write(ParquetSink(d / "x.parquet", CODED), []), "x.parquet: column 'c' is dict"),
        (lambda d: write(RunSink(d, TABLES), [("zzz", rows(1))]), "no table 'zzz': choose from"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


NAIVE = pa.schema({"t": pa.timestamp("us")})
MAP = pa.schema({"m": pa.map_(pa.string(), pa.string())})
CODED = pa.schema({"c": pa.dictionary(pa.int32(), pa.string())})


def test_a_plain_output_is_refused(tmp_path):
    flow = Dataflow("flow")
    stream = op.input("in", flow, TestingSource([rows(1)]))
    op.output(
        "out", op.key_on("k", stream, lambda _: "k"), NdjsonSink(tmp_path / "x.ndjson", SCHEMA)
    )
    with pytest.raises(BytewaxRuntimeError) as raised:
        run_main(flow)
    assert "connect the stream with connectors.marks.output" in str(raised.value.__cause__)


def left_at(sink, batches):
    part = sink.build_part("out", "run", None)
    part.write_batch([Mark(None), *batches])
    state = part.snapshot()
    part.close()
    return state


@pytest.mark.parametrize("name", ["x.ndjson", "x.parquet.spool"])
def test_a_file_that_changed_before_a_restart_is_named(tmp_path, name):
    path = tmp_path / name
    sink = (NdjsonSink if name == "x.ndjson" else ParquetSink)(
        tmp_path / name.removesuffix(".spool"), SCHEMA
    )
    state = left_at(sink, [rows(1, 2), rows(3)])
    whole = path.read_bytes()
    for damaged, message in [
        (whole[:-3], "before the restart"),
        (b"", "before the restart"),
        (b"x" * len(whole), "the file was changed|before the restart"),
        (None, "is gone, but held 3 rows before the restart"),
    ]:
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            sink.build_part("out", "run", state)
        assert str(path) in str(caught.value)
        path.write_bytes(whole)
    sink.build_part("out", "run", state).close()


def test_a_finished_file_that_changed_before_a_restart_is_named(tmp_path):
    path = tmp_path / "x.parquet"
    sink = ParquetSink(path, SCHEMA)
    state = write(sink, [rows(1, 2)])
    pq.write_table(pa.Table.from_batches([rows(1)]), path)
    with pytest.raises(ValueError, match=r"x\.parquet: holds 1 rows, but 2 were written"):
        sink.build_part("out", "run", state)
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"x\.parquet: "):
        sink.build_part("out", "run", state)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone, but held 2 rows"):
        sink.build_part("out", "run", state)


def test_other_tables_than_before_a_restart_are_refused(tmp_path):
    state = left_at(RunSink(tmp_path, TABLES), WORK)
    with pytest.raises(ValueError, match=r"has the tables .* since before the restart"):
        RunSink(tmp_path, {"e.ndjson": TableSpec(SCHEMA)}).build_part("out", "run", state)


def test_a_table_of_the_newest_rows_has_no_others(tmp_path):
    path = tmp_path / "n.ndjson"
    sink = RunSink(tmp_path, {path.name: TableSpec(SCHEMA, newest=True)})
    part = sink.build_part("out", "run", None)
    assert path.read_bytes() == b""
    part.write_batch([Mark(None), (path.name, rows(1, 2)), (path.name, rows(3))])
    state = part.snapshot()
    newest = path.read_bytes()
    assert newest.count(b"\n") == 1
    part.write_batch([(path.name, rows(4, 5))])
    part.close()
    resumed = sink.build_part("out", "run", state)
    resumed.write_batch([(path.name, rows(3))])
    assert path.read_bytes() == newest
    resumed.close()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is gone, but held 1 rows"):
        sink.build_part("out", "run", state)


def test_a_place_that_cannot_hold_files_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        NdjsonSink(tmp_path / "file" / "x.ndjson", SCHEMA).build_part("out", "run", None)
    (tmp_path / "x.parquet.spool").mkdir()
    with pytest.raises(OSError, match=r"x\.parquet\.spool"):
        ParquetSink(tmp_path / "x.parquet", SCHEMA).build_part("out", "run", None)


FULL = """
import resource, signal, sys
from test_files import Mark, NdjsonSink, ParquetSink, SCHEMA, rows
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = (NdjsonSink if sys.argv[1].endswith("ndjson") else ParquetSink)(sys.argv[1], SCHEMA)
part = sink.build_part("out", "run", None)
part.write_batch([Mark(None), rows(1)])
state = part.snapshot()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    part.write_batch([rows(*range(2, 500))])
    part.snapshot()
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
part.close()
part = sink.build_part("out", "run", state)
part.write_batch([rows(2), Mark(2)])
part.close()
"""


@pytest.mark.parametrize("name", ["x.ndjson", "x.parquet"])
def test_a_disk_that_fills_up_is_named_and_nothing_is_lost(tmp_path, name):
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / name)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert f"File too large: '{tmp_path / name}" in ended.stdout
    if name == "x.ndjson":
        assert len((tmp_path / name).read_text().splitlines()) == 2
    else:
        assert pq.read_table(tmp_path / name)["value"].to_pylist() == [1 / 3, 2 / 3]
