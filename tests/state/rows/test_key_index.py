"""Keys are numbered as a dict would number them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.rows import KeyIndex

KINDS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.string(): st.text(max_size=5),
    pa.binary(): st.binary(max_size=5),
}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_are_those_of_a_dict(kind: pa.DataType) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(KINDS[kind], max_size=20), max_size=5))
    def check(batches: list[list[object]]) -> None:
        index, model = KeyIndex(kind), dict[object, int]()
        for batch in batches:
            rows = index.rows(pa.array(batch, kind))
            assert rows.tolist() == [model.setdefault(key, len(model)) for key in batch]
        assert len(index) == len(model)
        assert index.keys().to_pylist() == list(model)
        assert index.keys().type == kind

    check()


def test_many_keys_and_slices() -> None:
    index = KeyIndex(pa.string())
    names = pa.array([f"key-{n % 70_000}" for n in range(200_000)])
    rows = index.rows(names.slice(5, 150_000))
    assert np.array_equal(index.keys(rows).to_numpy(False), names.slice(5, 150_000).to_numpy(False))
    assert len(index) == 70_000


def test_equal_hashes_are_not_equal_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.rows.key_index.hash64", lambda c: np.zeros(len(c), np.uint64))
    for keys in (pa.array(["a", "b", "ab", "a"]), pa.array([1, 2, 3, 1])):
        assert KeyIndex(keys.type).rows(keys).tolist() == [0, 1, 2, 0]


def test_what_is_no_key() -> None:
    with pytest.raises(TypeError, match="keys of type double"):
        KeyIndex(pa.float64())
    with pytest.raises(ValueError, match="a key is null"):
        KeyIndex(pa.string()).rows(pa.array(["a", None]))
    with pytest.raises(TypeError, match="keys of type int64 among those of string"):
        KeyIndex(pa.string()).rows(pa.array([1]))
