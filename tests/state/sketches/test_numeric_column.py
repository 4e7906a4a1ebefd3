import warnings
from datetime import date, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from state.sketches.numeric_column import BLOCK, float_blocks, number_arrays


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([1, None, 3], pa.int8()), [1, 3]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([1.5, None], pa.float16()), [1.5]),
        (pa.array([None, 0.1], pa.float32()), [float(np.float32(0.1))]),
        (pa.array([True, None, False]), [1, 0]),
        (pa.array([date(1970, 1, 11)], pa.date32()), [10]),
        (pa.array([date(1970, 1, 2)], pa.date64()), [86_400_000]),
        (pa.array([time(0, 0, 1)], pa.time32("ms")), [1000]),
        (pa.array([time(0, 0, 1)], pa.time64("us")), [1_000_000]),
        (pa.array([timedelta(seconds=2), None], pa.duration("ms")), [2000]),
        (pa.array([5, 5, 7]).dictionary_encode(), [5, 5, 7]),
        (pa.array([1, None, 3, 4]).slice(1, 2), [3]),
        (pa.nulls(4), []),
        (np.array([3, 4], dtype=">i4"), [3, 4]),
        (np.array(["1970-01-01T00:00:01", "NaT"], dtype="datetime64[s]"), [1]),
        (np.arange(6)[::2], [0, 2, 4]),
    ],
    ids=str,
)
def test_values(values: pa.Array, expected: list[float]) -> None:
    (found,) = number_arrays(values)
    assert found.tolist() == expected
    assert found.dtype in (np.float64, np.int64, np.uint64)
    assert found.flags.c_contiguous
    assert not found.flags.writeable


def test_the_caller_keeps_a_writeable_array() -> None:
    mine = np.arange(3.0)
    list(number_arrays(mine))
    mine[0] = 5


def test_floats_have_one_zero_and_no_nan() -> None:
    signalling = np.array([0x7FF0000000000001], dtype=np.uint64).view(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((found, nans),) = float_blocks(np.concatenate([[-0.0, np.nan, 2.0], signalling]))
    assert (found.tolist(), nans) == ([0.0, 2.0], 2)
    assert not np.signbit(found).any()


def test_long_columns_come_in_blocks() -> None:
    values = np.arange(2.5 * BLOCK)
    values[5] = np.nan
    blocks = list(float_blocks(pa.chunked_array([values[:3], values[3:]])))
    assert [len(block) for block, _ in blocks] == [3, BLOCK - 1, BLOCK, BLOCK // 2 - 3]
    assert [nans for _, nans in blocks] == [0, 1, 0, 0]
    joined = np.concatenate([block for block, _ in blocks])
    assert (joined == values[~np.isnan(values)]).all()


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["a"]),
        pa.array([b"a"]),
        pa.array([Decimal("1.5")]),
        pa.array([[1]]),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    ],
    ids=str,
)
def test_what_is_no_number(values: pa.Array) -> None:
    with pytest.raises(TypeError, match="not a column of numbers"):
        list(number_arrays(values))


def test_a_matrix_is_no_column() -> None:
    with pytest.raises(ValueError, match="one dimension"):
        list(number_arrays(np.zeros((2, 2))))
