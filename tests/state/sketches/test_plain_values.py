import numpy as np
import pyarrow as pa
import pytest

from state.sketches.plain_values import plain_values, read_values, values_bytes


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([1, None], pa.int8()), pa.int64()),
        (pa.array([1, None], pa.uint32()), pa.int64()),
        (pa.array([1.5, None], pa.float32()), pa.float64()),
        (pa.array(["x", None]), pa.large_string()),
        (pa.array(["x", None]).dictionary_encode(), pa.large_string()),
        (pa.array([b"x", None], pa.binary(1)), pa.large_binary()),
        (pa.array([5, None], pa.timestamp("ms", "Europe/Prague")), None),
    ],
)
def test_values_keep_their_meaning(column: pa.Array, kind: pa.DataType | None) -> None:
    plain = plain_values(column)
    assert plain.type == (kind or column.type)
    assert plain.to_pylist() == column.to_pylist()


def test_floats_of_equal_value_are_one() -> None:
    plain = plain_values(pa.array([0.0, -0.0, float("nan"), -float("nan")]))
    assert len(plain.unique()) == 2
    assert not np.signbit(plain.to_numpy()[:2]).any()


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["b", "a"], pa.large_string()),
        pa.array(["a", "a"], pa.large_string()),
        pa.array([2, 1]),
        pa.array([float("nan"), 1.0]),
        pa.array([1.0, float("nan"), float("nan")]),
        pa.array([True, False]),
        pa.array([2, 1], pa.timestamp("us")),
    ],
)
def test_values_out_of_order_are_refused(values: pa.Array) -> None:
    with pytest.raises(ValueError, match="not sorted"):
        read_values(values_bytes(values))


def test_values_of_no_type_that_is_counted_are_refused() -> None:
    date = values_bytes(pa.array([1], pa.date32()))
    too_late = date[:-8] + (2**40).to_bytes(8, "little")
    negative_zero = values_bytes(pa.array([0.0]))[:-1] + b"\x80"
    text = values_bytes(pa.array([b"\xff"], pa.large_binary()))
    not_utf8 = text.replace(b"large_binary", b"large_string")
    unknown = date.replace(b"date32[day]", b"date32[dax]")
    for data in (too_late, negative_zero, not_utf8, unknown, b"", date + b"\0"):
        with pytest.raises(ValueError):
            read_values(data)
    assert read_values(date).to_pylist() == pa.array([1], pa.date32()).to_pylist()
