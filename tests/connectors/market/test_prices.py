"""Files of prices: every row is either a tick or a dead letter with its exact line."""

import csv
import gzip
import io
import json
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.market import PriceFileSource, daily_prices
from state.schemas import TICKS


def read(source):
    part, batches = source.build_part("in", "prices", None), []
    while True:
        try:
            batches += part.next_batch()
        except StopIteration:
            return pa.Table.from_batches(batches, TICKS)


def rows(source):
    return [
        (r["time"].isoformat().removesuffix("+00:00"), r["series"], r["price"], r["size"])
        for r in read(source).to_pylist()
    ]


@pytest.fixture
def write(tmp_path):
    def write(text, name="prices.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "out" / "dead.ndjson"

    def letters():
        return [json.loads(line) for line in path.read_text().splitlines()]

    letters.path = path
    return letters


def test_long_form_in_any_order(write):
    path = write(
        "Symbol,Price,Time,note,Volume\n"
        "B,2.5,2020-01-02,x,\n"
        "A,1,2020-01-01T23:00:00-01:00,y,7\n"
        "A,3,1577836800000,z,0\n"
    )
    assert rows(PriceFileSource(path)) == [
        ("2020-01-01T00:00:00", "A", 3.0, 0.0),
        ("2020-01-02T00:00:00", "A", 1.0, 7.0),
        ("2020-01-02T00:00:00", "B", 2.5, None),
    ]


def test_wide_form_where_an_empty_cell_is_no_price(write, letters):
    path = write('date;"A; Co";B\n2020-01-01;1;\n2020-01-02; ;2\n2020-01-03;x;3\n')
    source = PriceFileSource(path, dead_letters=letters.path)
    assert rows(source) == [
        ("2020-01-01T00:00:00", "A; Co", 1.0, None),
        ("2020-01-02T00:00:00", "B", 2.0, None),
        ("2020-01-03T00:00:00", "B", 3.0, None),
    ]
    assert letters() == [
        {
            "file": str(path),
            "line": 4,
            "reason": "series 'A; Co': price 'x' is not a number",
            "text": "2020-01-03;x;3",
        }
    ]


def test_a_file_of_one_series_is_named_after_the_file(write):
    text = "Date,Open,High,Low,Close,Adj Close,Volume\n2020-01-01,1,2,3,4,5,6\n"
    assert rows(PriceFileSource(write(text, "ACME.csv"))) == [
        ("2020-01-01T00:00:00", "ACME", 4.0, 6.0)
    ]
    zipped = PriceFileSource(write(gzip.compress(text.encode()), "BRK.B.csv.gz"))
    assert rows(zipped)[0][1] == "BRK.B"
    wide = PriceFileSource(write(text, "ACME.csv"), form="wide")
    assert [r[1] for r in rows(wide)] == sorted(
        ["Open", "High", "Low", "Close", "Adj Close", "Volume"]
    )


BAD = [
    ("A,2020-01-01", "2 fields, the header has 4"),
    ("A,2020-01-01,1,2,3", "5 fields, the header has 4"),
    ("A,2020-02-30,1,2", "time '2020-02-30' is not a time"),
    ("A,1/4/1999,1,2", "time '1/4/1999' is not a time"),
    ("A,,1,2", "no time"),
    (",2020-01-01,1,2", "no series"),
    ("A,2020-01-01,,2", "no price"),
    ("A,2020-01-01,one,2", "price 'one' is not a number"),
    ("A,2020-01-01,0,2", "price '0' is not finite and positive"),
    ("A,2020-01-01,-1,2", "price '-1' is not finite and positive"),
    ("A,2020-01-01,nan,2", "price 'nan' is not finite and positive"),
    ("A,2020-01-01,inf,2", "price 'inf' is not finite and positive"),
    ("A,2020-01-01,1e999,2", "price '1e999' is not finite and positive"),
    ("A,2020-01-01,1,-2", "the size is not a number of 0 or more"),
    ("A,2020-01-01,1,many", "the size is not a number of 0 or more"),
    ('"A"x,2020-01-01,1,2', "malformed: ',' expected after '\"'"),
    ('A,2020-01-01,1,"2', "malformed: unexpected end of data"),
]


def test_every_kind_of_bad_row_is_told_with_its_line(write, letters):
    lines = ["series,time,price,size", "GOOD,2020-01-01,1,2"]
    for bad, _ in BAD:
        lines += [bad, "", f"GOOD,2020-01-01T00:00:{len(lines):02},1,2"]
    source = PriceFileSource(write("\r\n".join(lines)), dead_letters=letters.path)
    assert source.total_rows == len(BAD) + 1
    assert source.rejected == len(BAD)
    read(source)
    assert [(r["line"], r["reason"], r["text"]) for r in letters()] == [
        (lines.index(bad) + 1, reason, bad) for bad, reason in BAD
    ]


def test_quoted_line_breaks_are_counted_and_a_stray_quote_swallows_nothing(write, letters):
    path = write(
        "time,series,price,note\n"
        '2020-01-01,A,1,"two\nlines"\n'
        '2020-01-02,A,0,"three\n\nlines"\n'
        '2020-01-03,A,3,"stray\n'
        "2020-01-04,A,4,x\n"
        '2020-01-05,A,5,"stray\n'
        "2020-01-06,A,6,x\n"
    )
    source = PriceFileSource(path, dead_letters=letters.path)
    assert [r[2] for r in rows(source)] == [1.0, 4.0, 6.0]
    assert [(r["line"], r["text"]) for r in letters()] == [
        (4, '2020-01-02,A,0,"three\n\nlines"'),
        (7, '2020-01-03,A,3,"stray'),
        (9, '2020-01-05,A,5,"stray'),
    ]


def test_a_quote_that_is_never_closed_in_a_long_file(write, letters):
    text = 'time,series,price\n0,"A,1\n' + "".join(f"{i},A,1\n" for i in range(1, 20_001))
    source = PriceFileSource(write(text), dead_letters=letters.path)
    assert (source.total_rows, source.rejected) == (20_000, 1)


def test_duplicate_timestamps_keep_the_first_in_the_files(write, letters, tmp_path):
    write("time,series,price\n5,A,1\n4,A,2\n5,A,3\n", "one.csv")
    write("time,series,price\n4,A,4\n4,B,5\n", "two.csv")
    source = PriceFileSource(tmp_path / "*.csv", dead_letters=letters.path)
    assert [r[1:3] for r in rows(source)] == [("A", 2.0), ("B", 5.0), ("A", 1.0)]
    assert [(r["file"][-7:], r["line"], r["reason"]) for r in letters()] == [
        ("one.csv", 4, "duplicate timestamp of series 'A'"),
        ("two.csv", 2, "duplicate timestamp of series 'A'"),
    ]
    kept = PriceFileSource([tmp_path / "one.csv", tmp_path / "two.csv"], ties="keep")
    assert [r[2] for r in rows(kept)] == [2.0, 4.0, 5.0, 1.0, 3.0]
    assert kept.rejected == 0


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", r"a\.csv: the file is empty"),
        ("a.csv", b"\n \n", r"a\.csv: the file is empty"),
        ("a.csv", b"2020-01-01,5\n", r"a\.csv: no header line .* reads '2020-01-01,5'"),
        ("a.csv", b"time\n1\n", r"a\.csv: no price column"),
        ("a.csv", b"time,symbol,bid\n1,A,2\n", r"a\.csv: a series column 'symbol' but no price"),
        ("a.csv", b"time,A,A\n1,2,3\n", r"a\.csv: column 'A' is there twice"),
        ("a.csv", b'time,"A\n1,2\n', r"a\.csv: the header line is malformed"),
        ("a.csv", b"time,A\n1,2\n2,\xff\n", r"a\.csv: line 3 is not UTF-8"),
        ("a.csv", "time,A\n1,2\n".encode("utf-16"), r"a\.csv: line 1 is not UTF-8"),
        (
            "a.csv.gz",
            gzip.compress(b"time,A\n" * 50, mtime=0)[:-9],
            r"a\.csv\.gz: the gzip data is damaged",
        ),
        ("a.parquet", b"time,A\n1,2\n", r"a\.parquet: not a readable Parquet file"),
        ("a.csv", b"PAR1 and then nothing", r"a\.csv: not a readable Parquet file"),
    ],
)
def test_a_file_that_is_none_is_named(write, name, data, message):
    with pytest.raises(ValueError, match=message):
        PriceFileSource(write(data, name))


def test_paths_that_are_no_files_are_named(tmp_path):
    for path, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "none.csv", "none.csv: no such file"),
        (tmp_path / "*.csv", r"\*\.csv: no file matches"),
        ([], "no price file"),
    ):
        with pytest.raises(ValueError, match=message):
            PriceFileSource(path)


@pytest.mark.parametrize("arguments", [{"form": "tall"}, {"ties": "last"}, {"speed": -1}])
def test_bad_arguments_are_named(write, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        PriceFileSource(write("time,A\n1,2\n"), **arguments)


def test_a_header_alone_ends_at_once(write, letters):
    source = PriceFileSource(write("\ufefftime,A\n"), dead_letters=letters.path)
    assert (source.total_rows, source.rejected, rows(source), letters()) == (0, 0, [], [])


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_the_shipped_prices_survive_every_format(tmp_path, kind, wide):
    prices = daily_prices()
    frame = pl.from_arrow(prices)
    if wide:
        frame = frame.pivot("series", index="time", values="price")
        prices = prices.set_column(3, "size", pa.nulls(len(prices), pa.float64())).cast(TICKS)
    path = tmp_path / f"prices.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv(float_precision=9).encode()
        path.write_bytes(gzip.compress(text) if kind == "csv.gz" else text)
    source = PriceFileSource(path)
    assert source.rejected == 0
    assert read(source) == prices


@pytest.mark.parametrize(
    "times",
    [
        pa.array([0, 10**6], pa.timestamp("us")),
        pa.array([0, 10**9], pa.timestamp("ns", tz="America/New_York")),
        pa.array([0, 1], pa.timestamp("s", tz="UTC")),
        pa.array([0, 1], pa.int64()),
        pa.array([0.0, 1.0], pa.float32()),
        pa.array(["1970-01-01", "1970-01-01T00:00:01Z"]),
    ],
)
def test_parquet_times_of_every_type(tmp_path, times):
    table = pa.table({"time": times, "A": pa.array(["1.5", "2.5"]).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    assert rows(PriceFileSource(tmp_path / "a.parquet")) == [
        ("1970-01-01T00:00:00", "A", 1.5, None),
        ("1970-01-01T00:00:01", "A", 2.5, None),
    ]


def test_parquet_rows_that_are_bad_and_columns_that_cannot_be(tmp_path, letters):
    path = tmp_path / "a.parquet"
    days = [datetime(2020, 1, 1), None, datetime(2020, 1, 3), datetime(2020, 1, 4)]
    table = {"time": days, "series": ["A", "A", None, "A"], "price": [1.0, 2.0, 3.0, float("nan")]}
    pq.write_table(pa.table(table), path)
    source = PriceFileSource(path, dead_letters=letters.path)
    assert len(rows(source)) == 1
    assert [(r["row"], r["reason"]) for r in letters()] == [
        (2, "no time"),
        (3, "no series"),
        (4, "price 'nan' is not finite and positive"),
    ]
    pq.write_table(pa.table({"time": [1], "A": [[1.0, 2.0]]}), path)
    with pytest.raises(ValueError, match=r"a\.parquet: column 'A' has the type list"):
        PriceFileSource(path)


def test_a_restart_goes_on_and_writes_the_dead_letters_once(write, letters):
    text = "time,A\n" + "".join(f"{i},{i - 3}\n" for i in range(20))
    source = PriceFileSource(write(text), dead_letters=letters.path, batch_rows=5)
    part = source.build_part("in", "prices", None)
    begun = part.next_batch()
    before = letters.path.read_bytes()
    # Rows that came after the snapshot are read; rows that changed before it are refused.
    grown = PriceFileSource(
        write(text + "20,17\n"), dead_letters=letters.path, batch_rows=5
    ).build_part("in", "prices", part.snapshot())
    rest = [batch for _ in range(3) for batch in grown.next_batch()]
    prices = [p for batch in begun + rest for p in batch["price"].to_pylist()]
    assert prices == [float(i) for i in range(1, 18)][: len(prices)]
    assert sum(b.num_rows for b in begun + rest) == 17
    assert letters.path.read_bytes() == before
    changed = PriceFileSource(write(text.replace("4,1\n", "4,2\n")))
    with pytest.raises(ValueError, match=r"prices\.csv: the first 5 rows are not the ones"):
        changed.build_part("in", "prices", part.snapshot())


# Python's writer does not quote a lone carriage return, which ends a line here.
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)
GOOD = st.tuples(st.integers(0, 50), st.sampled_from("AB"), st.integers(1, 9), CELL)
FEW = st.lists(CELL.filter(lambda c: c.strip()), min_size=1, max_size=3)


@settings(max_examples=80)
@given(st.lists(GOOD | FEW, max_size=25), st.sampled_from(["\n", "\r\n"]))
def test_any_file_is_split_into_ticks_and_dead_letters(tmp_path_factory, records, end):
    """Python's csv writer makes the file; every record is a tick or a letter with its line."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=end)
    writer.writerow(["time", "series", "price", "note"])
    expected, bad, seen = [], [], set()
    for record in records:
        text = out.getvalue()
        line = len(list(io.StringIO(text, newline=""))) + 1
        if isinstance(record, list):
            # Short records on one line; over several lines their first line alone is judged.
            record = [cell.translate({10: "_", 13: "_"}) for cell in record]
            bad.append(line)
        elif record[:2] in seen:
            bad.append(line)
        else:
            seen.add(record[:2])
            expected.append((record[0], record[1], float(record[2])))
        writer.writerow(record)
    folder = tmp_path_factory.mktemp("any")
    path = folder / "prices.csv"
    path.write_bytes(out.getvalue().encode())
    source = PriceFileSource(path, dead_letters=folder / "dead.ndjson", batch_rows=4)
    got = [
        (round(r["time"].timestamp()), r["series"], r["price"]) for r in read(source).to_pylist()
    ]
    assert got == sorted(expected)
    letters = [
        json.loads(row) for row in (folder / "dead.ndjson").read_text("utf-8").split("\n")[:-1]
    ]
    assert [letter["line"] for letter in letters] == bad
    assert source.rejected == len(bad)


LINE = st.one_of(
    st.builds(
        "{},{},{},{}".format, st.integers(0, 9), st.sampled_from("AB"), st.integers(0, 9), CELL
    ),
    st.text(",;0A \t\u2028\x0cé", max_size=8),
)


@settings(max_examples=80)
@given(st.lists(LINE.filter(lambda line: '"' not in line), max_size=20), st.sampled_from("\n\r"))
def test_a_file_without_quotes_is_read_as_if_it_had_some(tmp_path_factory, lines, end):
    folder = tmp_path_factory.mktemp("same")
    path, letters = folder / "prices.csv", folder / "dead.ndjson"
    results = []
    for header in ("time,series,price,note", '"time",series,price,note'):
        path.write_bytes(end.join([header, *lines]).encode())
        table = read(PriceFileSource(path, dead_letters=letters))
        results.append((table.to_pylist(), letters.read_text("utf-8")))
    assert results[0] == results[1]


def test_a_flow_reads_a_file(write):
    out = []
    flow = Dataflow("prices")
    source = PriceFileSource(write("time,A,B\n1,2,3\n2,4,5\n"))
    op.output("out", op.input("in", flow, source), TestingSink(out))
    run_main(flow)
    assert pa.Table.from_batches(out)["price"].to_pylist() == [2.0, 3.0, 4.0, 5.0]


def test_a_paced_file(write):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    source = PriceFileSource(write("time,A\n0,1\n3600,2\n"), speed=3600.0, clock=lambda: now)
    part = source.build_part("in", "prices", None)
    assert part.next_batch()[0].num_rows == 1
    assert part.next_awake() == now + timedelta(seconds=1)
