import math
import statistics
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.mergeable import seal, unseal
from state.sketches import Moments

finite = st.floats(allow_nan=False, allow_infinity=False)


def of(values: object) -> Moments:
    moments = Moments()
    moments.add(values)
    return moments


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=1, max_size=30))
def test_sums_are_those_of_fractions(values: list[float]) -> None:
    moments = of(np.array(values))
    exact = [Fraction(x) for x in values]
    assert moments.exact_total == sum(exact)
    assert moments.exact_total_of_squares == sum(x * x for x in exact)
    try:
        total = math.fsum(values)
    except OverflowError:
        return
    assert moments.total == total
    assert (moments.minimum, moments.maximum) == (min(values), max(values))


@settings(max_examples=100, deadline=None)
@given(st.lists(finite.filter(lambda x: abs(x) < 1e150), min_size=2, max_size=30))
def test_variance_and_mean_are_rounded_once(values: list[float]) -> None:
    moments = of(np.array(values))
    assert moments.mean == statistics.mean(values)
    assert moments.variance() == statistics.variance(values)
    assert moments.variance(0) == statistics.pvariance(values)


def test_variance_survives_a_large_mean() -> None:
    # The textbook formula in floats gives 0 or worse here.
    assert of(np.array([1e15, 1e15 + 1, 1e15 + 2])).variance() == 1.0


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int8, np.uint32])
def test_integers_are_exact_at_both_ends(kind: type[np.integer]) -> None:
    ends = np.iinfo(kind)
    rng = np.random.default_rng(1)
    drawn = rng.integers(ends.min, ends.max, 500, dtype=kind, endpoint=True)
    values = np.concatenate([drawn, np.array([ends.min, ends.max, 0, 1], dtype=kind)])
    moments = of(pa.array(values))
    assert moments.exact_total == sum(values.tolist())
    assert moments.exact_total_of_squares == sum(x * x for x in values.tolist())
    assert (moments.minimum, moments.maximum) == (float(ends.min), float(ends.max))


def test_bytes_do_not_depend_on_order_or_split() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=5000) * 10.0 ** rng.integers(-300, 150, 5000)
    whole = of(values).to_bytes()
    for trial in range(5):
        total = Moments()
        order = np.random.default_rng(trial).permutation(values)
        for part in np.array_split(order, trial * 7 + 1):
            total.merge(of(part))
        assert total.to_bytes() == whole


def test_a_float_column_and_its_integers_agree() -> None:
    values = np.arange(-50, 1000)
    assert of(values).to_bytes() == of(values.astype(float)).to_bytes()


def test_nulls_nans_and_infinities() -> None:
    moments = of(pa.array([1.0, None, math.nan, math.inf, 3.0]))
    assert (moments.count, moments.nans, moments.infinities) == (3, 1, 1)
    assert (moments.total, moments.mean) == (math.inf, math.inf)
    assert (moments.minimum, moments.maximum) == (1.0, math.inf)
    assert math.isnan(moments.variance())
    assert moments.exact_total == 4
    moments.add(np.array([-math.inf]))
    assert math.isnan(moments.total)
    assert Moments.from_bytes(moments.to_bytes()).to_bytes() == moments.to_bytes()
    below = of(np.array([-math.inf, -math.inf]))
    assert below.maximum == -math.inf
    assert Moments.from_bytes(below.to_bytes()).maximum == -math.inf


def test_empty() -> None:
    for moments in (Moments(), of(pa.nulls(3)), of(np.array([math.nan]))):
        assert (moments.count, moments.total) == (0, 0.0)
        for value in (moments.mean, moments.variance(), moments.variance(0), moments.minimum):
            assert math.isnan(value)
    assert math.isnan(of(np.array([1.0])).variance())


def test_overflow_is_infinite_and_the_state_goes_on() -> None:
    moments = of(np.array([1.7e308, 1.7e308]))
    assert moments.total == math.inf
    assert moments.mean == 1.7e308
    moments.add(np.array([-1.7e308]))
    assert moments.total == 1.7e308


def test_times_dictionaries_and_booleans() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = pa.array([start, None], pa.timestamp("us", tz="UTC"))
    assert of(times).total == start.timestamp() * 1e6
    assert of(pa.array([1.5, 2.5, 1.5]).dictionary_encode()).total == 5.5
    assert of(pa.chunked_array([[True], [], [True, False, None]])).total == 2
    with pytest.raises(TypeError, match="string"):
        Moments().add(pa.array(["a"]))


def test_update_reads_its_column_and_other_columns_do_not_merge() -> None:
    moments = Moments("x")
    moments.update(pa.record_batch({"y": [1], "x": [2]}))
    assert moments.total == 2
    with pytest.raises(ValueError, match="'x'"):
        moments.merge(Moments("y"))


def test_any_flipped_byte_of_the_payload_is_refused_or_harmless() -> None:
    for values in ([], [1.0, 1e300, -2.5], [math.inf, 0.0]):
        _, payload = unseal("moments", of(np.array(values)).to_bytes(), versions={1})
        for at in range(len(payload)):
            for flip in (1, 0x80, 0xFF):
                bad = payload[:at] + bytes([payload[at] ^ flip]) + payload[at + 1 :]
                try:
                    moments = Moments.from_bytes(seal("moments", 1, bad))
                except ValueError:
                    continue
                assert moments.to_bytes() == seal("moments", 1, bad)
                assert not moments.variance(0) < 0


def test_a_sum_of_squares_that_is_too_small_is_refused() -> None:
    moments = of(np.array([1.0, 2.0]))
    moments._squares //= 2  # 2.5, where two numbers with the sum 3 have squares of 4.5 or more
    with pytest.raises(ValueError, match="too small"):
        Moments.from_bytes(moments.to_bytes())
