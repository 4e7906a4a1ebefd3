import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.mergeable import seal, unseal
from state.sketches import Histogram

F64 = npt.NDArray[np.float64]
Q = np.linspace(0, 1, 201)


def of(values: object, relative_error: float = 0.01) -> Histogram:
    histogram = Histogram(relative_error=relative_error)
    histogram.add(values)
    return histogram


def truth(values: F64, q: F64) -> F64:
    ordered = np.sort(values)
    return ordered[np.clip(np.ceil(q * len(values)).astype(int) - 1, 0, None)]


@pytest.mark.parametrize("relative_error", [0.001, 0.01, 0.1])
@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(3, 2, 20_000),
        np.random.default_rng(1).normal(size=20_000),
        np.random.default_rng(2).zipf(1.3, 20_000).astype(np.float64),
        np.repeat([-3.0, 0.0, 1e-300, 7e250], 500),
        -np.sort(np.random.default_rng(3).pareto(1, 20_000)),
        1.0 + np.arange(1000) * np.finfo(np.float64).eps,
    ],
    ids=["lognormal", "normal", "zipf", "far apart", "negative", "near-equal"],
)
def test_estimates_are_within_the_relative_error(values: F64, relative_error: float) -> None:
    histogram = of(values, relative_error)
    exact = truth(values, Q)
    assert (np.abs(histogram.estimate(Q) - exact) <= relative_error * np.abs(exact)).all()
    assert (histogram.lower_bound(Q) <= exact).all()
    assert (exact <= histogram.upper_bound(Q)).all()
    assert (histogram.minimum, histogram.maximum) == (values.min(), values.max())


@pytest.mark.soak
@pytest.mark.parametrize("size", [10**5, 10**6, 10**7])
@pytest.mark.parametrize("shape", ["lognormal", "sorted", "repeated", "near-equal", "zipf"])
def test_the_relative_error_holds_up_to_ten_million_rows(shape: str, size: int) -> None:
    rng = np.random.default_rng([7, size])
    values = {
        "lognormal": lambda: rng.lognormal(3, 2, size),
        "sorted": lambda: np.arange(float(size)),
        "repeated": lambda: np.tile(np.arange(size / 4), 4),
        "near-equal": lambda: 1.0 + np.arange(size) * np.finfo(np.float64).eps,
        "zipf": lambda: rng.zipf(1.3, size).astype(np.float64),
    }[shape]()
    histogram, exact = of(values, 0.01), truth(values, Q)
    assert (np.abs(histogram.estimate(Q) - exact) <= 0.01 * np.abs(exact)).all()
    assert (histogram.lower_bound(Q) <= exact).all()
    assert (exact <= histogram.upper_bound(Q)).all()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=20),
    st.sampled_from([1e-5, 0.01, 0.1, 0.25]),
)
def test_any_floats(values: list[float], relative_error: float) -> None:
    histogram = of(np.array(values), relative_error)
    exact = truth(np.array(values), Q)
    estimate = histogram.estimate(Q)
    finite = np.isfinite(exact)
    assert (estimate[~finite] == exact[~finite]).all()
    allowed = relative_error * np.abs(exact[finite]) * (1 + 1e-9) + np.finfo(np.float64).tiny
    assert (np.abs(estimate[finite] - exact[finite]) <= allowed).all()
    assert (histogram.lower_bound(Q) <= exact).all()
    assert (exact <= histogram.upper_bound(Q)).all()


def test_equi_depth_counts_what_is_between_its_edges() -> None:
    values = np.concatenate(
        [np.random.default_rng(4).normal(size=9_000), np.zeros(600), [-np.inf, 1e300, 5e-324]]
    )
    bins = of(values).equi_depth(20)
    low, high, count = (np.asarray(bins.column(n)) for n in ("low", "high", "count"))
    assert bins.schema.names == ["low", "high", "count"]
    inside = [
        np.count_nonzero((values >= a) & (values <= b)) for a, b in zip(low, high, strict=True)
    ]
    assert count.tolist() == inside
    assert count.sum() == len(values)
    assert (high[:-1] < low[1:]).all()
    assert (low[0], high[-1]) == (-np.inf, 1e300)


def test_bins_of_a_smooth_column_are_nearly_equal() -> None:
    values = np.random.default_rng(5).lognormal(size=100_000)
    count = np.asarray(of(values, 0.001).equi_depth(50).column("count"))
    assert len(count) == 50
    assert np.abs(count - 2000).max() < 2000 * 0.2


def test_bins_of_few_values() -> None:
    assert of(np.array([2.0] * 9)).equi_depth(4).to_pylist() == [
        {"low": 2.0, "high": 2.0, "count": 9}
    ]
    assert Histogram().equi_depth(3).num_rows == 0
    assert of(np.array([1.0, 5.0])).equi_depth(1).to_pylist() == [
        {"low": 1.0, "high": 5.0, "count": 2}
    ]
    with pytest.raises(ValueError, match="positive"):
        Histogram().equi_depth(0)


def test_bytes_do_not_depend_on_order_or_split() -> None:
    values = np.random.default_rng(6).standard_cauchy(20_000)
    whole = of(values).to_bytes()
    total = Histogram()
    for part in np.array_split(values[::-1], 37):
        total.merge(of(part))
    assert total.to_bytes() == whole


def test_buckets_are_bounded() -> None:
    bits = np.random.default_rng(7).integers(0, 2**64, 300_000, dtype=np.uint64)
    histogram = of(bits.view(np.float64), 0.1)
    assert histogram.buckets <= 2 * (1023 / 0.1 + 2) + 1
    assert of(np.random.default_rng(8).lognormal(0, 0.5, 10**5)).buckets < 350


def test_nulls_nans_empty_and_integers() -> None:
    histogram = Histogram("x")
    assert math.isnan(histogram.estimate(0.5))
    histogram.update(pa.record_batch({"x": pa.array([1, None, 2**53, -5])}))
    histogram.update(pa.record_batch({"x": [math.nan, 0.0]}))
    assert (histogram.count, histogram.nans) == (4, 1)
    assert histogram.estimate(1.0) == 2**53
    assert histogram.estimate(np.array([0.0, 0.5])).tolist() == [-5.0, 0.0]
    with pytest.raises(TypeError):
        histogram.add(pa.array(["a"]))
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="ranks"):
            histogram.estimate(wrong)


def test_parameters() -> None:
    for other in (Histogram("y"), Histogram("x", relative_error=0.02)):
        with pytest.raises(ValueError, match="does not merge"):
            Histogram("x").merge(other)
    for wrong in (0.0, 1e-6, 0.26, math.nan):
        with pytest.raises(ValueError, match="relative error"):
            Histogram(relative_error=wrong)


def test_any_flipped_byte_of_the_payload_is_refused_or_harmless() -> None:
    for values in ([], [1.0, 2.0, -3.0, 0.0], [math.inf, 1e-310]):
        _, payload = unseal("histogram", of(np.array(values)).to_bytes(), versions={1})
        for at in range(len(payload)):
            for flip in (1, 0x80, 0xFF):
                bad = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
                try:
                    histogram = Histogram.from_bytes(seal("histogram", 1, bad))
                except ValueError:
                    continue
                assert histogram.to_bytes() == seal("histogram", 1, bad)
                histogram.estimate(Q)
                histogram.equi_depth(3)
