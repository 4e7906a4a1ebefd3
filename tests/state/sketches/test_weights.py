import numpy as np
import pyarrow as pa
import pytest

from state.sketches.weights import entry_weights, exact_sum, tally, whole_weights


@pytest.mark.parametrize("values", [[], [1, 2, 3], [2**62] * 5, [2**63 - 1, 0, 2**63 - 1]])
def test_sums_do_not_wrap(values: list[int]) -> None:
    array = np.array(values, np.int64)
    assert exact_sum(array) == sum(values)
    assert exact_sum(array, 2**63 - 1) == sum(values)


def test_narrow_counters_do_not_wrap() -> None:
    assert exact_sum(np.full(1000, 255, np.uint8)) == 255_000


def test_weights_of_any_integer_type_become_int64() -> None:
    for weights in (
        np.array([1, 2], np.uint8),
        np.array([1, 0, 2, 0])[::2],
        pa.array([1, 2], pa.uint64()),
        pa.chunked_array([[1], [2]]),
    ):
        whole = whole_weights(weights, 2)
        assert (whole.tolist(), whole.dtype, whole.flags.c_contiguous) == ([1, 2], np.int64, True)
    with pytest.raises(ValueError, match="shape"):
        whole_weights(np.array([[1, 2]]), 2)


def test_entries_weigh_what_their_rows_do() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([2, None, 0, 2], pa.int8()), ["a", "b", "c"])
    assert entry_weights(column, None).tolist() == [1, 0, 2]
    assert entry_weights(column, np.array([5, 9, 1, 2**40])).tolist() == [1, 0, 5 + 2**40]
    broken = pa.DictionaryArray.from_arrays(pa.array([3], pa.int8()), ["a"], safe=False)
    with pytest.raises(ValueError, match="beyond the dictionary"):
        entry_weights(broken, None)


def test_tally_adds_to_what_is_there() -> None:
    counters = np.array([10, 20])
    tally(np.array([1, 1, 0], np.uint32), None, counters)
    tally(np.array([1, 1], np.uint32), np.array([100, 200]), counters)
    assert counters.tolist() == [11, 322]
