"""Keys are numbered as a dict would number them."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.hashing import hash64
from state.rows import KeyIndex

# The lengths around a word of 8 bytes, and text that is no ASCII.
TEXT = st.one_of(
    st.text(max_size=5),
    st.text("ab", max_size=18),
    st.sampled_from(["", "\0", "\0\0", "é", "e\u0301", "日本語のキー", "🦦" * 5, "x" * 5000]),
)
KINDS = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.string(): TEXT,
    pa.large_string(): TEXT,
    pa.binary(): st.one_of(st.binary(max_size=5), st.binary(min_size=7, max_size=17)),
}
# What hashes may be: themselves; all equal; few; equal in what is kept of them, or but for it.
HASHES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "its own": lambda hashes: hashes,
    "one": np.zeros_like,
    "all ones": lambda hashes: np.full_like(hashes, 2**64 - 1),
    "three": lambda hashes: hashes % np.uint64(3),
    "upper half": lambda hashes: hashes << np.uint64(32),
    "one place": lambda hashes: hashes << np.uint64(16),
}


@pytest.fixture(params=HASHES)
def hashed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    change = HASHES[request.param]
    monkeypatch.setattr("state.rows.key_index.hash64", lambda column: change(hash64(column)))


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_are_those_of_a_dict(kind: pa.DataType) -> None:
    @settings(max_examples=30, deadline=None)
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


@pytest.mark.usefixtures("hashed")
def test_more_keys_than_the_first_table_holds() -> None:
    for keys in (pa.array([f"{n}" for n in range(4000)]), pa.array(np.arange(4000))):
        index = KeyIndex(keys.type)
        assert np.array_equal(index.rows(keys), np.arange(4000))
        order = np.random.default_rng(5).permutation(4000)
        assert np.array_equal(index.rows(keys.take(pa.array(order))), order)


def test_hashes_that_agree_in_what_is_kept() -> None:
    """Among so many keys some do agree in 32 bits, and are told apart."""
    for keys in (pa.array([f"key-{n}" for n in range(400_000)]), pa.array(np.arange(400_000))):
        kept = hash64(keys).astype(np.uint32)
        _, first, times = np.unique(kept, return_index=True, return_counts=True)
        assert (times > 1).any()
        twice = np.flatnonzero(np.isin(kept, kept[first[times > 1]]))
        index = KeyIndex(keys.type)
        assert np.array_equal(index.rows(keys.take(pa.array(twice))), np.arange(len(twice)))
        index = KeyIndex(keys.type)
        assert np.array_equal(index.rows(keys), np.arange(len(keys)))
        assert np.array_equal(index.rows(keys), np.arange(len(keys)))


@pytest.mark.usefixtures("hashed")
def test_every_byte_of_a_key_counts() -> None:
    """Keys of each length that differ from each other in one byte, or are longer by one."""
    keys = []
    for length in range(41):
        plain = b"\0" * length
        keys += [plain[:n] + b"\x01" + plain[n + 1 :] for n in range(length)] + [plain]
    index = KeyIndex(pa.binary())
    assert index.rows(pa.array(keys)).tolist() == list(range(len(keys)))
    assert index.rows(pa.array(keys[::-1])).tolist() == list(range(len(keys)))[::-1]


@pytest.mark.usefixtures("hashed")
def test_very_long_keys() -> None:
    long = "ü" * 1_000_000
    keys = pa.array([long, long + "a", "", long[:-1], long[:-1] + "u", long, "a" + long[:-1]])
    index = KeyIndex(pa.string())
    assert index.rows(keys).tolist() == [0, 1, 2, 3, 4, 0, 5]
    assert index.rows(keys.slice(3)).tolist() == [3, 4, 0, 5]
    assert index.keys(np.array([5, 2])).to_pylist() == ["a" + long[:-1], ""]


def test_keys_that_were_given_out_stay_as_they_are() -> None:
    for keys in (pa.array([f"key-{n}" for n in range(5000)]), pa.array(np.arange(5000))):
        index, shown = KeyIndex(keys.type), []
        for start in range(0, 5000, 100):
            index.rows(keys.slice(start, 100))
            shown.append(index.keys())
        assert all(keys.slice(0, len(early)).equals(early) for early in shown)


def test_what_is_no_key() -> None:
    with pytest.raises(TypeError, match="keys of type double"):
        KeyIndex(pa.float64())
    with pytest.raises(ValueError, match="a key is null"):
        KeyIndex(pa.string()).rows(pa.array(["a", None]))
    with pytest.raises(TypeError, match="keys of type int64 among those of string"):
        KeyIndex(pa.string()).rows(pa.array([1]))
    with pytest.raises(TypeError, match="keys of type binary among those of string"):
        KeyIndex(pa.string()).rows(pa.array([b"\xff"]))
