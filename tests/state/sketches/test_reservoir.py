import itertools
import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.special import chdtrc

from state.mergeable import seal, unseal
from state.sketches import Reservoir

F64 = npt.NDArray[np.float64]


def rows(start: int, stop: int) -> pa.RecordBatch:
    x = np.arange(start, stop)
    return pa.record_batch(
        {"x": x, "w": 1.0 + x % 3, "name": pa.array([f"row {n}" for n in x], pa.string())}
    )


def names(reservoir: Reservoir) -> list[int]:
    return reservoir.sample().column("x").to_pylist()


def merged(sizes: list[int], size: int, seed: int, weight: str | None = None) -> Reservoir:
    """Sample rows 0, 1, ... in parts of unequal sizes, and merge as a tree of three."""
    edges = np.cumsum([0, *sizes]).tolist()
    parts = []
    for stream, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = Reservoir(["x", "w"], size=size, stream=stream, weight=weight, seed=seed)
        for at in range(start, stop, 40):
            part.update(rows(at, min(at + 40, stop)))
        parts.append(part)
    while len(parts) > 1:
        for k in range(0, len(parts), 3):
            for other in parts[k + 1 : k + 3]:
                parts[k].merge(Reservoir.from_bytes(other.to_bytes()))
        parts = parts[::3]
    return parts[0]


def test_each_row_of_unequal_parts_is_as_likely() -> None:
    sizes, size, trials = [1, 100, 3, 40, 6], 10, 1000
    counts = np.zeros(sum(sizes), dtype=np.int64)
    for seed in range(trials):
        counts[names(merged(sizes, size, seed))] += 1
    expected = np.full(len(counts), trials * size / len(counts))
    # Sampling without replacement makes the counts less variable, by (N - n) / (N - 1).
    scale = (len(counts) - size) / (len(counts) - 1)
    statistic = ((counts - expected) ** 2 / expected).sum() / scale
    assert 0.001 < chdtrc(len(counts) - 1, statistic) < 0.999


def weighted_inclusion(weights: F64, size: int) -> F64:
    """Inclusion probabilities of successive sampling in proportion to weights, exactly."""
    total, inclusion = weights.sum(), np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), size):
        probability, left = 1.0, total
        for n in order:
            probability *= weights[n] / left
            left -= weights[n]
        inclusion[list(order)] += probability
    return inclusion


def test_weighted_inclusion_is_that_of_successive_sampling() -> None:
    weights = np.array([1.0, 5.0, 0.5, 2.0, 8.0, 0.0, 1.0, 3.0])
    size, trials = 3, 4000
    counts = np.zeros(len(weights), dtype=np.int64)
    batch = pa.record_batch({"x": np.arange(len(weights)), "w": weights})
    for seed in range(trials):
        parts = [Reservoir(size=size, stream=n, weight="w", seed=seed) for n in range(3)]
        for part, (start, stop) in zip(parts, [(0, 1), (1, 3), (3, 8)], strict=True):
            part.update(batch.slice(start, stop - start))
        parts[1].merge(parts[2])
        parts[0].merge(parts[1])
        counts[names(parts[0])] += 1
    expected = trials * weighted_inclusion(weights, size)
    assert counts[5] == expected[5] == 0
    positive = weights > 0
    chi = (counts - expected)[positive] ** 2 / expected[positive]
    assert chdtrc(positive.sum() - 1, chi.sum()) > 0.001


@pytest.mark.parametrize("n", [5_000, pytest.param(500_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("shape", ["normal", "exponential", "lognormal", "two values", "sorted"])
def test_the_interval_of_the_mean_holds_in_95_of_100_trials(
    shape: str, weight: str | None, n: int
) -> None:
    trials = 200
    held = 0
    for seed in range(trials):
        rng = np.random.default_rng([seed, 1])
        draw = {
            "normal": lambda rng: rng.normal(5, 2, n),
            "exponential": lambda rng: rng.exponential(3, n),
            "lognormal": lambda rng: rng.lognormal(0, 0.8, n),
            "two values": lambda rng: (rng.random(n) < 0.2).astype(float),
            "sorted": lambda rng: np.sort(rng.exponential(3, n)),
        }[shape]
        x = draw(rng)
        batch = pa.record_batch({"x": x, "w": rng.uniform(0.5, 4, n)})
        parts = [Reservoir(["x"], stream=k, weight=weight, seed=seed) for k in range(2)]
        parts[0].update(batch.slice(0, 1000))
        parts[1].update(batch.slice(1000))
        parts[0].merge(parts[1])
        held += parts[0].lower_bound("x") <= x.mean() <= parts[0].upper_bound("x")
    assert held >= 0.95 * trials


def test_a_sample_that_holds_all_rows_is_exact() -> None:
    for weight in (None, "w"):
        reservoir = Reservoir(stream=0, size=50, weight=weight)
        reservoir.update(rows(0, 50))
        assert (reservoir.inclusion() == 1).all()
        assert reservoir.estimate("x") == pytest.approx(24.5, rel=1e-15)
        assert reservoir.lower_bound("x") == reservoir.upper_bound("x") == reservoir.estimate("x")


def test_a_part_equals_the_whole_whatever_the_batches() -> None:
    """The same rows and bytes, one batch or many, with a restart between."""
    for weight in (None, "w"):
        whole = Reservoir(stream=7, size=20, weight=weight)
        whole.update(rows(0, 80_000))
        pieces = Reservoir(stream=7, size=20, weight=weight)
        for start, stop in itertools.pairwise([0, 1, 6, 7, 7, 40_000, 40_003, 80_000]):
            pieces.update(rows(start, stop))
            pieces = Reservoir.from_bytes(pieces.to_bytes())
        assert pieces.to_bytes() == whole.to_bytes()


def test_the_rows_are_those_with_the_smallest_priorities() -> None:
    bits = np.random.Philox(key=np.array([3, 9], dtype=np.uint64)).random_raw(100_000)
    reservoir = Reservoir(stream=9, size=30, seed=3)
    reservoir.update(rows(0, 100_000))
    assert names(reservoir) == np.argsort(bits)[:30].tolist()
    given = Reservoir(stream=0, size=30)
    given.add_prioritised(rows(0, 100_000), bits)
    assert given.sample().equals(reservoir.sample())


def test_priorities_that_are_not_uniform_are_taken_as_they_are() -> None:
    bits = np.random.default_rng(4).integers(2**63, 2**64 - 1, 10_000, dtype=np.uint64)
    given = Reservoir(stream=0, size=30)
    given.add_prioritised(rows(0, 10_000), bits)
    assert names(given) == np.argsort(bits)[:30].tolist()


def test_a_stream_is_merged_once_only() -> None:
    a, b, c = (Reservoir(stream=n) for n in (1, 2, 3))
    for n, part in enumerate((a, b, c)):
        part.update(rows(n, n + 1))
    b.merge(c)
    a.merge(b)
    before = a.to_bytes()
    for again in (b, c, Reservoir.from_bytes(before)):
        with pytest.raises(ValueError, match="both parts hold rows of random stream"):
            a.merge(again)
    assert a.to_bytes() == before
    a.update(rows(9, 10))
    assert (a.count, sorted(names(a))) == (4, [0, 1, 2, 9])
    fresh = Reservoir(stream=3)
    fresh.merge(c)
    with pytest.raises(ValueError, match="stream 3 was merged in"):
        fresh.update(rows(0, 1))


def test_streams_without_gaps_take_no_room() -> None:
    total = Reservoir(["x"], stream=0, size=4)
    sizes = set()
    for n in range(200):
        part = Reservoir(["x"], stream=n, size=4)
        part.update(rows(n, n + 1))
        total.merge(part)
        sizes.add(len(total.to_bytes()) if n > 8 else 0)
    assert total.count == 200
    assert len(sizes) == 2


def test_columns_of_any_type_with_nulls() -> None:
    batch = pa.record_batch(
        {
            "text": pa.array(["a", None, "ccc"]),
            "word": pa.array(["x", "y", "x"]).dictionary_encode(),
            "list": pa.array([[1], None, []], pa.list_(pa.int64())),
            "time": pa.array([1, 2, None], pa.timestamp("us", tz="UTC")),
            "pair": pa.array([{"a": 1}, None, {"a": None}]),
        },
        metadata={"made": "by hand"},
    )
    reservoir = Reservoir(stream=0, size=2)
    reservoir.update(batch)
    reservoir.update(batch.slice(1))
    again = Reservoir.from_bytes(reservoir.to_bytes())
    assert again.sample().equals(reservoir.sample())
    assert again.sample().schema.field("word").type == pa.string()
    assert again.to_bytes() == reservoir.to_bytes()
    assert all(row in batch.to_pylist() for row in again.sample().to_pylist())


def test_means_of_columns_with_gaps() -> None:
    reservoir = Reservoir(stream=0)
    assert math.isnan(reservoir.estimate("x"))
    assert reservoir.sample().num_rows == 0
    reservoir.update(pa.record_batch({"x": [1.0, None, math.nan, 4.0], "s": ["a"] * 4}))
    assert reservoir.estimate("x") == 2.5
    with pytest.raises(TypeError):
        reservoir.estimate("s")
    with pytest.raises(KeyError):
        reservoir.estimate("y")
    with pytest.raises(ValueError, match="confidence"):
        reservoir.lower_bound("x", 1.0)
    one = Reservoir(stream=0, size=1)
    one.update(rows(0, 9))
    assert one.upper_bound("x") == math.inf


def test_the_weights_are_kept_beside_the_columns() -> None:
    reservoir = Reservoir(["name"], stream=0, weight="w", size=3)
    reservoir.update(rows(0, 100))
    assert reservoir.sample().schema.names == ["name", "w"]
    assert (reservoir.inclusion() < 1).all()
    assert Reservoir.from_bytes(reservoir.to_bytes()).to_bytes() == reservoir.to_bytes()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, None])
def test_bad_weights_change_nothing(bad: float | None) -> None:
    reservoir = Reservoir(stream=0, weight="w")
    before = reservoir.to_bytes()
    with pytest.raises(ValueError, match="weight"):
        reservoir.update(pa.record_batch({"w": pa.array([1.0, bad])}))
    assert reservoir.to_bytes() == before


def test_rows_and_priorities_that_do_not_fit() -> None:
    reservoir = Reservoir(["x"], stream=0)
    with pytest.raises(KeyError, match="no column x"):
        reservoir.update(pa.record_batch({"y": [1]}))
    reservoir.update(rows(0, 1))
    with pytest.raises(ValueError, match="do not fit"):
        reservoir.update(pa.record_batch({"x": ["a"]}))
    with pytest.raises(ValueError, match="extension"):
        Reservoir(stream=0).update(pa.record_batch({"id": pa.array([b"0" * 16], pa.uuid())}))
    for priorities in (np.zeros(2, dtype=np.uint64), np.zeros(1)):
        with pytest.raises(ValueError, match="priorities"):
            reservoir.add_prioritised(rows(0, 1), priorities)
    with pytest.raises(ValueError, match="negative"):
        Reservoir(stream=0, weight="w").add_prioritised(rows(0, 1), np.array([-1.0]))


def test_parameters() -> None:
    base = Reservoir(["x"], stream=0)
    for other in (
        Reservoir(["name"], stream=1),
        Reservoir(["x"], stream=1, size=3),
        Reservoir(["x"], stream=1, weight="w"),
        Reservoir(["x"], stream=1, seed=5),
    ):
        with pytest.raises(ValueError, match="do not merge"):
            base.merge(other)
    for arguments in ({"size": 0}, {"stream": -1}, {"seed": 1 << 64}, {"stream": 1 << 64}):
        with pytest.raises(ValueError):
            Reservoir(**{"stream": 0, **arguments})


@pytest.mark.parametrize("weight", [None, "w"])
def test_any_flipped_byte_of_the_payload_is_refused_or_harmless(weight: str | None) -> None:
    reservoir = Reservoir(["x"], stream=5, size=3, weight=weight)
    reservoir.update(rows(0, 9))
    other = Reservoir(["x"], stream=9, size=3, weight=weight)
    other.update(rows(9, 10))
    reservoir.merge(other)
    _, payload = unseal("reservoir", reservoir.to_bytes(), versions={1})
    for at in range(len(payload)):
        for flip in (1, 0x80, 0xFF):
            bad = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
            try:
                again = Reservoir.from_bytes(seal("reservoir", 1, bad))
            except ValueError:
                continue
            assert Reservoir.from_bytes(again.to_bytes()).to_bytes() == again.to_bytes()
            again.sample().to_pylist()
