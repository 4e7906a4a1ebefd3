"""CountMin against `datasketches` to the byte, and its bound against exact counts."""

import math

import numpy as np
import pyarrow as pa
import pytest
from datasketches import count_min_sketch

from state.mergeable import seal, unseal
from state.sketches import CountMin
from state.sketches.count_min_seeds import library_agrees, row_seeds

RNG = np.random.default_rng(7)
KINDS: dict[str, list[object]] = {
    "integers": (RNG.zipf(1.3, 3000) - 5).tolist(),
    "short strings": [f"user-{i}" for i in RNG.zipf(1.3, 3000) % 500],
    "long strings": [f"user-{i:0{i % 70}}" for i in RNG.zipf(1.3, 3000) % 500],
    "texts": [f"{i:0{i % 300}}" for i in RNG.zipf(1.3, 3000) % 5000],
    "one": ["x"],
    "none": [],
}


def theirs(
    values: list[object], weights: list[int] | None = None, rows: int = 5, buckets: int = 2048
) -> count_min_sketch:
    sketch = count_min_sketch(rows, buckets)
    for value, weight in zip(values, weights or [1] * len(values), strict=True):
        # As a float: with an int the library takes a string of digits for a number.
        sketch.update(value, float(weight))
    return sketch


@pytest.mark.parametrize("shape", [(5, 2048), (1, 3), (7, 1009), (2, 40_000)])
@pytest.mark.parametrize("kind", KINDS)
def test_we_and_datasketches_read_each_other(kind: str, shape: tuple[int, int]) -> None:
    values = KINDS[kind]
    sketch = CountMin(rows=shape[0], buckets=shape[1])
    sketch.add(pa.array(values))
    image = theirs(values, None, *shape).serialize()
    assert sketch.to_datasketches() == image
    again = CountMin.from_datasketches(image)
    assert again.to_bytes() == sketch.to_bytes()
    other = count_min_sketch.deserialize(sketch.to_datasketches())
    some = values[:50]
    assert sketch.estimate(pa.array(some)).tolist() == [other.get_estimate(v) for v in some]


def test_weights_are_those_of_datasketches() -> None:
    values = KINDS["integers"]
    weights = RNG.integers(0, 10**9, len(values)).tolist()
    used = [(v, w) for v, w in zip(values, weights, strict=True) if w]
    sketch = CountMin()
    sketch.add(pa.array(values), np.array(weights))
    assert sketch.total == sum(weights)
    other = theirs([v for v, _ in used], [w for _, w in used])
    assert sketch.to_datasketches() == other.serialize()


def test_every_form_of_a_column_and_its_weights_is_one() -> None:
    words = [None, "a", "bb", None, "a", "ccc" * 9, "dd", None, "e"]
    weights = np.array([5, 1, 2, 5, 0, 4, 70_000, 5, 1])
    column, of = pa.array(["x", *words, "y"]).slice(1, 8)[:-1], weights[:7]
    forms = [
        column,
        column.cast(pa.large_string()),
        column.cast(pa.string_view()),
        column.cast(pa.binary()),
        column.dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            [None, 0, 1, 5, 0, 2, 3], ["a", "bb", "ccc" * 9, "dd", "unused", None]
        ),
        pa.DictionaryArray.from_arrays(
            [None, 1, 2, None, 1, 3, 4], ["no", "a", "bb", "ccc" * 9, "dd", *map(str, range(9))]
        ),
        pa.chunked_array([column[:3], column[3:3], column[3:]]),
    ]
    for weighted in (of, pa.array(of), pa.chunked_array([of[:2], of[2:]]), None):
        states = set()
        for form in forms:
            sketch = CountMin()
            sketch.add(form, weighted)
            states.add(sketch.to_bytes())
            assert sketch.estimate(form).tolist() == sketch.estimate(column).tolist()
        assert len(states) == 1
    assert sketch.total == 5
    assert sketch.estimate(column).tolist() == [0, 2, 1, 0, 2, 1, 1]


def test_blocks_of_rows_add_up() -> None:
    values = np.arange(30_000) % 77
    whole, parts = CountMin(buckets=1000), CountMin(buckets=1000)
    whole.add(values)
    for start in range(0, 30_000, 7000):
        parts.add(values[start : start + 7000])
    assert whole.to_bytes() == parts.to_bytes()


def test_update_reads_its_column() -> None:
    sketch = CountMin("user")
    sketch.update(pa.record_batch({"user": [1, 1], "other": [3, 4]}))
    assert sketch.estimate(np.array([1, 3])).tolist() == [2, 0]
    with pytest.raises(TypeError, match="no hash"):
        sketch.add(pa.array([[1]]))
    assert sketch.total == 2


def test_weights_that_do_not_fit_are_refused() -> None:
    sketch, values = CountMin(), pa.array([1, 2])
    for weights, error in (
        ([1], ValueError),
        ([1, -1], ValueError),
        ([2**62, 2**62], ValueError),
        (pa.array([1, None]), ValueError),
        ([1.0, 2.0], TypeError),
        (pa.array([1.0, 2.0]), TypeError),
        (np.array([2**63, 0], np.uint64), ValueError),
    ):
        with pytest.raises(error):
            sketch.add(values, weights if isinstance(weights, pa.Array) else np.array(weights))
    assert sketch.to_bytes() == CountMin().to_bytes()
    sketch.add(values[:1], np.array([2**63 - 1]))
    assert CountMin.from_bytes(sketch.to_bytes()).estimate(values).tolist() == [2**63 - 1, 0]
    with pytest.raises(ValueError, match="2\\*\\*63"):
        sketch.merge(sketch)
    with pytest.raises(ValueError, match="floats"):
        sketch.to_datasketches()


def test_bytes_are_small() -> None:
    sketch = CountMin()
    assert len(sketch.to_bytes()) < 110
    sketch.add(pa.array(["x"]))
    assert len(sketch.to_bytes()) < 130
    sketch.add(np.arange(200_000))
    assert len(sketch.to_bytes()) < 5 * 2048 + 150
    sketch.add(np.array([0]), np.array([70_000]))
    assert 4 * 5 * 2048 < len(sketch.to_bytes()) < 4 * 5 * 2048 + 150


def test_other_parameters_do_not_merge() -> None:
    for other in (CountMin("x"), CountMin(rows=4), CountMin(buckets=2047), CountMin(seed=1)):
        with pytest.raises(ValueError, match="do not merge"):
            CountMin().merge(other)
    for bad in (
        {"rows": 0},
        {"rows": 256},
        {"buckets": 2},
        {"buckets": 2**24},
        {"seed": 2**64},
        {"column": "x" * 70_000},
    ):
        with pytest.raises(ValueError):
            CountMin(**bad)


def test_row_seeds_of_another_make_do_not_mix_with_ours() -> None:
    _, payload = unseal("count-min", CountMin().to_bytes(), versions={1})
    foreign = CountMin.from_bytes(seal("count-min", 1, payload[:23] + b"\1" + payload[24:]))
    with pytest.raises(ValueError, match="do not merge"):
        CountMin().merge(foreign)
    with pytest.raises(ValueError, match="other seeds"):
        foreign.to_datasketches()


@pytest.mark.parametrize("seed", [0, 1, 9001, 2**40 + 7, 2**64 - 1])
def test_row_seeds_are_those_of_the_library(seed: int) -> None:
    assert len(set(row_seeds(seed, 255))) == 255
    assert library_agrees(seed, 20)
    sketch = CountMin(rows=3, buckets=100, seed=seed)
    sketch.add(np.arange(50))
    other = count_min_sketch(3, 100, seed)
    for value in range(50):
        other.update(value)
    assert sketch.to_datasketches() == other.serialize()
    again = CountMin.from_datasketches(other.serialize(), seed=seed)
    assert again.to_bytes() == sketch.to_bytes()
    with pytest.raises(ValueError, match="another seed"):
        CountMin.from_datasketches(other.serialize(), seed=seed ^ 2)


def test_images_with_weights_that_are_not_whole_are_refused() -> None:
    for weight in (0.5, -1.0, 2.0**60):
        other = count_min_sketch(2, 5)
        other.update(1, weight)
        with pytest.raises(ValueError, match=r"whole|add up"):
            CountMin.from_datasketches(other.serialize())


@pytest.mark.parametrize("size", [0, 3, 400])
def test_forged_bytes_raise_value_error_or_are_a_sketch(size: int) -> None:
    sketch = CountMin(rows=2, buckets=50)
    sketch.add(np.arange(size))
    _, payload = unseal("count-min", sketch.to_bytes(), versions={1})
    image = sketch.to_datasketches()
    rng = np.random.default_rng(size)
    refused = 0
    for _ in range(1500):
        for kind, data in (("state", payload), ("image", image)):
            forged = bytearray(data)
            for at in rng.integers(min(len(data), 70), size=rng.integers(1, 3)):
                forged[at] = rng.integers(256)
            cut = bytes(forged[: rng.integers(len(data) - 3, len(data) + 1)])
            try:
                read = (
                    CountMin.from_bytes(seal("count-min", 1, cut))
                    if kind == "state"
                    else CountMin.from_datasketches(cut)
                )
            except ValueError:
                refused += 1
                continue
            assert read.estimate(np.array([1]))[0] <= read.total
            assert CountMin.from_bytes(read.to_bytes()).to_bytes() == read.to_bytes()
            if kind == "state":
                assert unseal("count-min", read.to_bytes(), versions={1})[1] == cut
    assert refused > 100


def draws(shape: str, rng: np.random.Generator, size: int = 4000) -> np.ndarray:
    start = int(rng.integers(2**40))
    if shape == "near-equal":
        return 1 + np.arange(start, start + size) * 2.0**-52
    if shape == "skewed":
        return start + rng.zipf(1.2, size) % 2**30
    values = np.arange(start, start + size)
    return values if shape == "sorted" else np.tile(values[: size // 4], 4)


@pytest.mark.parametrize("shape", ["sorted", "repeated", "near-equal", "skewed"])
def test_estimates_are_never_low_and_high_within_the_bound(shape: str) -> None:
    failed, asked = 0, 0
    for seed in range(200):
        values = draws(shape, np.random.default_rng([3, seed]))
        sketch = CountMin(rows=3, buckets=128, seed=seed)
        sketch.add(values)
        distinct, counts = np.unique(values, return_counts=True)
        assert (sketch.estimate(distinct) >= counts).all()
        assert (sketch.upper_bound(distinct) >= counts).all()
        failed += np.count_nonzero(sketch.lower_bound(distinct) > counts)
        asked += len(distinct)
    assert failed <= math.exp(-3) * asked


@pytest.mark.soak
@pytest.mark.parametrize("size", [10**5, 10**6, 10**7])
@pytest.mark.parametrize("shape", ["sorted", "repeated", "near-equal", "skewed"])
def test_bounds_hold_up_to_ten_million_rows(shape: str, size: int) -> None:
    """200 hashes of the same rows; a thousand values are asked for, the most frequent too."""
    rng = np.random.default_rng([4, size])
    values = draws(shape, rng, size)
    distinct, counts = np.unique(values, return_counts=True)
    asked = np.append(rng.integers(len(distinct), size=990), np.argsort(counts)[-10:])
    failed = 0
    for seed in range(200):
        sketch = CountMin(seed=seed)
        sketch.add(values)
        assert (sketch.estimate(distinct[asked]) >= counts[asked]).all()
        failed += np.count_nonzero(sketch.lower_bound(distinct[asked]) > counts[asked])
    assert failed <= 0.05 * 200 * len(asked)
