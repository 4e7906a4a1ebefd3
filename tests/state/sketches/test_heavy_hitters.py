"""HeavyHitters against exact counts: all values, all types, all bounds."""

import datetime
import decimal
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from state.mergeable import seal, unseal
from state.sketches import HeavyHitters

UTC = datetime.UTC
SAMPLES: list[pa.Array] = [
    pa.array([True, False, None, True]),
    pa.array([-(2**63), 2**63 - 1, 5, 5]),
    pa.array([2**64 - 1, 1, 1], pa.uint64()),
    pa.array([7, -3, None], pa.int8()),
    pa.array([1.5, float("nan"), -0.0, 0.0, None, -float("nan"), float("-inf")]),
    pa.array([1.5, 2.5], pa.float32()),
    pa.array(["b", "", None, "a", "é", "b"]),
    pa.array(["b", "x" * 99], pa.string_view()),
    pa.array([b"b", b"", b"\xff"]),
    pa.array([b"ab", b"ab"], pa.binary(2)),
    pa.array(["b", "a", "b"]).dictionary_encode(),
    pa.array([datetime.date(2020, 1, 1), datetime.date(1960, 1, 1)]),
    pa.array([86_400_000], pa.date64()),
    pa.array([1, 5], pa.time32("s")),
    pa.array([1000, 5000], pa.time64("ns")),
    pa.array([datetime.timedelta(1), datetime.timedelta(-1)]),
    pa.array([datetime.datetime(2020, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
    pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("ns")),
    pa.array([1], pa.timestamp("s", "+02:00")),
    pa.nulls(3),
]


def exact(values: pa.Array) -> dict[object, int]:
    counts: dict[object, int] = {}
    for value in values.drop_null().to_pylist():
        key = "nan" if value != value else value
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("values", SAMPLES, ids=lambda v: str(v.type))
def test_every_type_is_counted_and_travels(values: pa.Array) -> None:
    sketch = HeavyHitters()
    sketch.add(values.slice(0, 1))
    sketch.add(values.slice(1))
    again = HeavyHitters.from_bytes(sketch.to_bytes())
    assert again.to_bytes() == sketch.to_bytes()
    truth = exact(values)
    top = again.top(100).to_pydict()
    found = dict(zip(["nan" if v != v else v for v in top["value"]], top["estimate"], strict=True))
    assert found == truth
    assert top["estimate"] == sorted(top["estimate"], reverse=True)
    keys = ["nan" if v is not None and v != v else v for v in values.to_pylist()]
    assert again.estimate(values).tolist() == [truth.get(key, 0) for key in keys]
    again.merge(sketch)
    assert again.total == 2 * sketch.total


def test_every_form_of_a_column_and_its_weights_is_one() -> None:
    words = pa.array([None, "a", "bb", None, "a", "dd", "e"]).slice(0, 6)
    weights = np.array([5, 1, 2, 5, 0, 4])
    forms = [
        words,
        words.cast(pa.large_string()),
        words.cast(pa.string_view()),
        words.dictionary_encode(),
        pa.DictionaryArray.from_arrays([None, 0, 1, 2, 0, 3], ["a", "bb", None, "dd", "unused"]),
        pa.DictionaryArray.from_arrays(
            [None, 0, 1, 2, 4, 3], ["a", "bb", None, "dd", "a", "z", ""]
        ),
        pa.chunked_array([words[:3], words[3:3], words[3:]]),
    ]
    for weighted in (weights, pa.array(weights), None):
        states = set()
        for form in forms:
            sketch = HeavyHitters()
            sketch.add(form, weighted)
            states.add(sketch.to_bytes())
        assert len(states) == 1


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("first", [0, -(2**63), 2**63 - 1 - 49_000, 2**64 - 1 - 49_000])
def test_integers_are_counted_however_far_apart(first: int, step: int) -> None:
    kind = pa.uint64() if first + 49_000 >= 2**63 else pa.int64()
    places = np.random.default_rng(8).integers(0, 50, 1000).tolist()
    column = pa.array([first + step * place for place in places], kind)
    weights = np.arange(1000) % 3
    for given in (np.ones(1000, np.int64), weights):
        exact: Counter[int] = Counter()
        for value, weight in zip(column.to_pylist(), given.tolist(), strict=True):
            exact[value] += weight
        sketch = HeavyHitters(capacity=60)
        sketch.add(column, weights if given is weights else None)
        found = sketch.top(60).to_pylist()
        assert {row["value"]: row["estimate"] for row in found} == +exact


def test_equal_counts_are_in_the_order_of_values() -> None:
    sketch = HeavyHitters()
    sketch.add(pa.array(["c", "a", "b", "c", "d", "a"]))
    assert sketch.top(3).to_pydict() == {
        "value": ["a", "c", "b"],
        "estimate": [2, 2, 1],
        "lower_bound": [2, 2, 1],
        "upper_bound": [2, 2, 1],
    }
    assert sketch.top(0).num_rows == HeavyHitters().top().num_rows == 0


def test_types_do_not_mix() -> None:
    sketch = HeavyHitters(capacity=1)
    sketch.add(pa.array([1, 2]))  # nothing is kept, but its type
    assert sketch.top().num_rows == 0
    for values in (["x"], [1.5], [True]):
        other = HeavyHitters(capacity=1)
        other.add(pa.array(values))
        with pytest.raises(ValueError, match="among"):
            sketch.add(pa.array(values))
        with pytest.raises(ValueError, match="among"):
            sketch.merge(other)
        with pytest.raises(ValueError, match="among"):
            sketch.estimate(pa.array(values))
    assert (sketch.total, sketch.error) == (2, 1)
    for unknown in (pa.array([[1]]), pa.array([decimal.Decimal(1)])):
        with pytest.raises(TypeError, match="not counted"):
            sketch.add(unknown)


def test_columns_in_which_nothing_counts_change_nothing() -> None:
    sketch = HeavyHitters()
    sketch.add(pa.array([], pa.string()))
    sketch.add(pa.array([None], pa.float64()))
    sketch.add(pa.array(["x"]), np.array([0]))
    assert sketch.to_bytes() == HeavyHitters().to_bytes()
    sketch.update(pa.record_batch({"value": [1]}))
    assert sketch.total == 1


def test_other_parameters_do_not_merge() -> None:
    for other in (HeavyHitters("x"), HeavyHitters(capacity=2)):
        with pytest.raises(ValueError, match="do not merge"):
            HeavyHitters().merge(other)
    for bad in ({"capacity": 0}, {"capacity": 2**32}, {"column": "x" * 70_000}):
        with pytest.raises(ValueError):
            HeavyHitters(**bad)
    sketch = HeavyHitters()
    sketch.add(pa.array([1]), np.array([2**63 - 1]))
    with pytest.raises(ValueError, match="2\\*\\*63"):
        sketch.add(pa.array([1]))
    with pytest.raises(ValueError, match="2\\*\\*63"):
        sketch.merge(sketch)


def draws(shape: str, rng: np.random.Generator, size: int = 700) -> np.ndarray:
    if shape == "near-equal":
        return 1 + rng.integers(size // 3, size=size) * 2.0**-52
    if shape == "skewed":
        return rng.zipf(1.3, size)
    return np.arange(size) // 2 if shape == "sorted" else np.arange(size) % (size // 7)


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("shape", ["sorted", "repeated", "near-equal", "skewed"])
def test_bounds_are_certain(shape: str, parts: int) -> None:
    for seed in range(200):
        rng = np.random.default_rng([5, seed])
        values = draws(shape, rng)
        weights = rng.integers(0, 1 << int(rng.integers(1, 40)), len(values))
        sketch = HeavyHitters(capacity=20)
        for chosen in np.array_split(rng.permutation(len(values)), parts):
            part = HeavyHitters(capacity=20)
            part.add(values[chosen], weights[chosen])
            sketch.merge(part)
        distinct, places = np.unique(values, return_inverse=True)
        truth = np.zeros(len(distinct), np.int64)
        np.add.at(truth, places, weights)
        assert sketch.total == truth.sum()
        assert sketch.error * 21 <= sketch.total
        assert (sketch.lower_bound(distinct) <= truth).all()
        assert (truth <= sketch.upper_bound(distinct)).all()
        kept = set(sketch.top(20)["value"].to_pylist())
        assert {v for v, n in zip(distinct, truth, strict=True) if n * 21 > sketch.total} <= kept


@pytest.mark.soak
@pytest.mark.parametrize("size", [10**5, 10**6, 10**7])
@pytest.mark.parametrize("shape", ["sorted", "repeated", "near-equal", "skewed"])
def test_bounds_are_certain_up_to_ten_million_rows(shape: str, size: int) -> None:
    rng = np.random.default_rng([6, size])
    values = draws(shape, rng, size)
    distinct, counts = np.unique(values, return_counts=True)
    for order in (values, values[::-1], rng.permutation(values)):
        sketch = HeavyHitters(capacity=100)
        for part in np.array_split(order, 7):
            sketch.add(part)
        assert sketch.total == size
        assert sketch.error * 101 <= size
        assert (sketch.lower_bound(distinct) <= counts).all()
        assert (counts <= sketch.upper_bound(distinct)).all()
        assert set(distinct[counts * 101 > size]) <= set(sketch.top(100)["value"].to_pylist())


@pytest.mark.parametrize("values", SAMPLES, ids=lambda v: str(v.type))
def test_forged_bytes_raise_value_error_or_are_a_sketch(values: pa.Array) -> None:
    sketch = HeavyHitters()
    sketch.add(values)
    _, payload = unseal("heavy-hitters", sketch.to_bytes(), versions={1})
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        forged = bytearray(payload)
        for at in rng.integers(len(payload), size=rng.integers(1, 3)):
            forged[at] = rng.integers(256)
        cut = bytes(forged[: rng.integers(len(payload) - 3, len(payload) + 1)])
        try:
            read = HeavyHitters.from_bytes(seal("heavy-hitters", 1, cut))
        except ValueError:
            refused += 1
            continue
        assert unseal("heavy-hitters", read.to_bytes(), versions={1})[1] == cut
        assert read.total >= read.top(1)["estimate"].to_numpy().sum()
    assert refused > 50
