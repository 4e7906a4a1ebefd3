import pyarrow as pa
import pytest

from state.sketches.plain_rows import check_same_columns, plain_rows, read_rows, rows_bytes

ROWS = pa.record_batch({"a": [1, 2], "b": pa.array(["x", "x"]).dictionary_encode()})


def test_dictionaries_metadata_and_nullability_are_dropped() -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False, metadata={"k": "v"})])
    strict = pa.record_batch({"a": [1, 2]}, schema=schema.with_metadata({"k": "v"}))
    plain = plain_rows(strict, None)
    assert plain.schema.equals(pa.schema([("a", pa.int64())]), check_metadata=True)
    assert plain_rows(ROWS, ["b"]).to_pydict() == {"b": ["x", "x"]}
    assert plain_rows(ROWS, ["b"]).schema.field("b").type == pa.string()


def test_views_do_not_keep_their_batch() -> None:
    text = pa.array([f"row {n}, which is longer than a view" for n in range(10_000)])
    plain = plain_rows(pa.record_batch({"t": text.cast(pa.string_view())}), None)
    assert plain.schema.field("t").type == pa.large_string()
    assert len(rows_bytes(plain.take(pa.array([7])))) < 1000


def test_bytes_round_trip_and_only_plain_rows_are_read() -> None:
    plain = plain_rows(ROWS, None)
    data = rows_bytes(plain)
    assert read_rows(data, ["a", "b"]).equals(plain)
    assert rows_bytes(read_rows(data, None)) == data
    with pytest.raises(ValueError, match="columns"):
        read_rows(data, ["b", "a"])
    for other in (ROWS, plain.replace_schema_metadata({"k": "v"})):
        with pytest.raises(ValueError, match="not plain"):
            read_rows(rows_bytes(other), None)
    with pytest.raises(ValueError):
        read_rows(data[:-9], None)


def test_rows_of_other_columns_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        check_same_columns(plain_rows(ROWS, ["a"]), plain_rows(ROWS, ["b"]))
