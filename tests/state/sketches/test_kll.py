import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from datasketches import kll_doubles_sketch

from state.mergeable import seal, unseal
from state.sketches import Kll

F64 = npt.NDArray[np.float64]
Q = np.array([0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0])


def of(values: F64, k: int = 200, chunk: int = 1 << 30) -> Kll:
    sketch = Kll(k=k)
    for start in range(0, len(values), chunk):
        sketch.add(values[start : start + chunk])
    return sketch


def shaped(shape: str, rows: int, seed: int) -> F64:
    rng = np.random.default_rng(seed)
    if shape == "sorted":
        return np.sort(rng.normal(size=rows))
    if shape == "reversed":
        return np.sort(rng.normal(size=rows))[::-1].copy()
    if shape == "repeated":
        return rng.integers(0, 7, rows).astype(np.float64)
    if shape == "near-equal":
        return 1.0 + rng.integers(0, 1000, rows) * np.finfo(np.float64).eps
    if shape == "zipf":
        return rng.zipf(1.3, rows).astype(np.float64)
    if shape == "tiny":
        return rng.normal(size=1 + seed % 50)
    return rng.normal(size=rows)


def truth(values: F64, q: F64) -> F64:
    """The smallest value whose rank is q or more."""
    ordered = np.sort(values)
    return ordered[np.clip(np.ceil(q * len(values)).astype(int) - 1, 0, None)]


@pytest.mark.parametrize(
    "shape", ["normal", "sorted", "reversed", "repeated", "near-equal", "zipf", "tiny"]
)
def test_quantiles_are_within_bounds_in_95_of_100_trials(shape: str) -> None:
    trials = 200
    held = np.zeros(len(Q))
    ranked = 0
    for seed in range(trials):
        values = shaped(shape, 20_000, seed)
        sketch = of(values, k=64, chunk=(517, 20_000)[seed % 2])
        exact = truth(values, Q)
        held += (sketch.lower_bound(Q) <= exact) & (exact <= sketch.upper_bound(Q))
        at = exact[5]
        ranked += abs(sketch.rank(at) - np.mean(values <= at)) <= sketch.rank_error()
    assert (held >= 0.95 * trials).all()
    assert ranked >= 0.95 * trials


def test_merged_parts_are_within_bounds() -> None:
    held = np.zeros(len(Q))
    trials = 200
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        parts = [rng.normal(n % 3, 1 + n, 50 * 4 ** (n % 4)) for n in range(12)]
        total = of(parts[0], k=64)
        for part in parts[1:]:
            total.merge(of(part, k=64))
        exact = truth(np.concatenate(parts), Q)
        held += (total.lower_bound(Q) <= exact) & (exact <= total.upper_bound(Q))
    assert (held >= 0.95 * trials).all()


def test_the_error_is_no_larger_than_that_of_datasketches() -> None:
    ours, theirs = [], []
    for seed in range(40):
        values = np.random.default_rng(seed).permutation(50_000).astype(np.float64)
        sketch, reference = of(values, chunk=1000), kll_doubles_sketch(200)
        reference.update(values)
        q = Q[1:-1]
        ours.append(np.abs(sketch.estimate(q) / 50_000 - q))
        theirs.append(np.abs(np.array(reference.get_quantiles(q)) / 50_000 - q))
    assert np.sqrt(np.mean(np.square(ours))) <= np.sqrt(np.mean(np.square(theirs)))
    assert sketch.rank_error(0.99) <= reference.normalized_rank_error(False)
    assert len(sketch.to_bytes()) <= 2 * len(reference.serialize())


def test_a_small_column_is_exact() -> None:
    values = np.random.default_rng(5).permutation(200).astype(np.float64)
    sketch = of(values, chunk=30)
    q = np.linspace(0, 1, 21)
    assert sketch.rank_error() == 0
    assert (sketch.estimate(q) == np.quantile(values, q, method="inverted_cdf")).all()
    assert (sketch.rank([-1, 0, 99, 199, 900]) == [0, 0.005, 0.5, 1, 1]).all()


@pytest.mark.parametrize("k", [8, 200, 1000])
@pytest.mark.parametrize("chunk", [1, 999, 65_536, 200_000])
def test_every_row_has_its_weight(k: int, chunk: int) -> None:
    values = np.arange(3_001.0 if chunk == 1 else 200_003.0)
    sketch = of(values, k=k, chunk=chunk)
    assert sketch.count == len(values)
    assert Kll.from_bytes(sketch.to_bytes()).count == len(values)
    assert (sketch.minimum, sketch.maximum) == (0.0, len(values) - 1)
    assert len(sketch.to_bytes()) < 8 * (3 * k + 8 * 20) + 400


def test_equal_input_gives_equal_bytes() -> None:
    values = np.random.default_rng(6).normal(size=150_000)
    half = of(values[:100_000], chunk=9_999)
    resumed = Kll.from_bytes(half.to_bytes())
    for sketch in (half, resumed):
        sketch.add(values[100_000:])
    assert half.to_bytes() == resumed.to_bytes()


@pytest.mark.parametrize("rows", [300, 20_000], ids=["compacted", "thinned"])
def test_errors_of_like_parts_are_independent(rows: int) -> None:
    # Coins that depended on row counts alone would be the same in parts that are nearly the same,
    # and the errors of many would add up rather than cancel.
    parts = [of(np.arange(float(rows)) + n / 1000, k=16) for n in range(200)]
    errors = np.array([part.rank(rows / 3 + 0.5)[()] - (rows // 3 + 1) / rows for part in parts])
    assert len(np.unique(errors)) > 1
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(parts))


def test_scalars_arrays_and_empty() -> None:
    empty = Kll()
    assert math.isnan(empty.estimate(0.5))
    assert math.isnan(empty.minimum)
    assert np.isnan(empty.rank([1.0, 2.0])).all()
    sketch = of(np.array([2.0, 1.0]))
    assert sketch.estimate(0.5) == 1.0
    assert isinstance(sketch.estimate(0.5), float)
    assert sketch.estimate(np.array([[0.0, 1.0]])).tolist() == [[1.0, 2.0]]
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="ranks"):
            sketch.estimate(wrong)
        with pytest.raises(ValueError, match="confidence"):
            sketch.lower_bound(0.5, wrong)


def test_nulls_nans_infinities_and_integers() -> None:
    sketch = Kll("x")
    sketch.update(pa.record_batch({"x": pa.array([1.0, None, math.nan, -math.inf, math.inf])}))
    assert (sketch.count, sketch.nans) == (3, 1)
    assert sketch.estimate(np.array([0.0, 0.5, 1.0])).tolist() == [-math.inf, 1.0, math.inf]
    assert Kll.from_bytes(sketch.to_bytes()).to_bytes() == sketch.to_bytes()
    with pytest.raises(TypeError):
        sketch.add(pa.array(["a"]))
    dictionary = Kll()
    dictionary.add(pa.chunked_array([pa.array([3, 1, 3])]).dictionary_encode())
    assert dictionary.estimate(0.5) == 3.0


def test_parameters() -> None:
    for other in (Kll("y"), Kll("x", k=100)):
        with pytest.raises(ValueError, match="does not merge"):
            Kll("x").merge(other)
    for k in (7, 65_536):
        with pytest.raises(ValueError, match="k must be"):
            Kll(k=k)


def test_any_flipped_byte_of_the_payload_is_refused_or_harmless() -> None:
    for rows in (0, 5, 2000):
        values = np.random.default_rng(7).normal(size=rows)
        _, payload = unseal("kll", of(values, k=16).to_bytes(), versions={1})
        for at in range(len(payload)):
            for flip in (1, 0x80, 0xFF):
                bad = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
                try:
                    sketch = Kll.from_bytes(seal("kll", 1, bad))
                except ValueError:
                    continue
                assert sketch.to_bytes() == seal("kll", 1, bad)
                sketch.merge(Kll.from_bytes(sketch.to_bytes()))
                sketch.upper_bound(Q)


def test_a_rank_error_beyond_all_rows_is_refused() -> None:
    sketch = of(np.arange(3.0))
    sketch._variance = 10
    with pytest.raises(ValueError, match="rank error"):
        Kll.from_bytes(sketch.to_bytes())


@pytest.mark.soak
@pytest.mark.parametrize("each", [1, 7])
@pytest.mark.parametrize("rows", [10**n for n in range(8)])
def test_bounds_hold_from_one_to_ten_million(rows: int, each: int) -> None:
    trials = 200
    held = np.zeros(len(Q))
    numbers = np.arange(rows) // each
    exact = np.clip(np.ceil(Q * rows).astype(int) - 1, 0, None) // each
    for seed in range(trials):
        sketch = of((numbers + seed).astype(np.float64), chunk=max(1, rows // (1 + seed % 13)))
        low, high = sketch.lower_bound(Q), sketch.upper_bound(Q)
        held += (low <= exact + seed) & (exact + seed <= high)
    assert (held >= 0.95 * trials).all()


@pytest.mark.soak
@pytest.mark.parametrize("shape", ["normal", "sorted", "repeated", "zipf"])
def test_ten_million_rows(shape: str) -> None:
    held = np.zeros(len(Q))
    ranked = 0
    values = shaped(shape, 10**7, 1)
    exact = truth(values, Q)
    middle = np.mean(values <= exact[5])
    for trial in range(200):  # values are moved, and so is all that chance depends on
        sketch = of(values + trial, chunk=10**6 + trial)
        true = exact + trial
        held += (sketch.lower_bound(Q) <= true) & (true <= sketch.upper_bound(Q))
        ranked += abs(sketch.rank(true[5]) - middle) <= sketch.rank_error()
    assert (held >= 190).all()
    assert ranked >= 190
