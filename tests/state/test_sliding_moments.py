import struct
import tracemalloc

import numpy as np
import pytest

from state.mergeable import seal
from state.moments import LaggedMoments
from state.sliding_moments import SlidingMoments


def assert_same(sliding, rows, lags):
    ours = sliding.scatter(lags)
    fresh = LaggedMoments.from_rows(rows, sliding.max_lag).scatter(lags)
    assert ours.n == fresh.n
    if not fresh.n:
        return
    spread = np.sqrt(np.diagonal(fresh.matrix))
    scale = np.where(spread > 0, spread, 1.0)
    assert np.abs((ours.matrix - fresh.matrix) / np.outer(scale, scale)).max() <= 1e-9
    assert np.abs((ours.mean - fresh.mean) / (scale + 1e-6 * np.abs(fresh.mean))).max() <= 1e-9


def feed(kind):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((400, 2))
    at = np.arange(400)[:, None]
    return {
        "noise": x,
        "offset": x + 1e9,
        "trend": np.cumsum(x + 1.0, axis=0) + 1e5,
        "jump": x + np.where(at < 200, 0.0, 1e6),
        "wild, then calm": x * np.where(at < 200, 1e6, 1.0),
        "halted": np.where((at > 150) & (at < 300), 0.1, x),
        "gaps": np.where(rng.random((400, 1)) < 0.15, np.nan, x),
        "outage": np.where((at > 150) & (at < 250), np.nan, x),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["noise", "offset", "trend", "jump", "wild, then calm", "halted", "gaps", "outage"],
)
@pytest.mark.parametrize(("lags", "window"), [(2, 50), (0, 1), (3, 4)])
def test_equals_the_moments_of_the_window(kind, lags, window):
    x = feed(kind)
    sliding = SlidingMoments(2, lags, window)
    for t, row in enumerate(x):
        sliding.push(row)
        if t % 3 == 0:
            held = x[max(0, t + 1 - window) : t + 1]
            assert sliding.rows == sliding.moments.rows == len(held)
            assert_same(sliding, held, t % (lags + 1))


def test_drift_stays_below_the_bound_between_rebuilds():
    x = feed("trend")
    x = np.concatenate([x, x + 10.0, x * 3.0])
    sliding = SlidingMoments(2, 2, 390)
    for row in x[:779]:
        sliding.push(row)
    # 389 rows were added and subtracted since the sums were last rebuilt.
    assert_same(sliding, x[389:779], 2)


def test_restart_continues_where_it_stopped():
    x = feed("gaps")
    sliding = SlidingMoments(2, 2, 30)
    for t, row in enumerate(x[:120]):
        sliding.push(row)
        if t % 17 == 0:
            again = SlidingMoments.from_bytes(sliding.to_bytes())
            assert again.to_bytes() == sliding.to_bytes()
            sliding = again
        assert_same(sliding, x[max(0, t - 29) : t + 1], 2)


def test_moments_are_a_copy_that_merges():
    x = feed("gaps")
    sliding = SlidingMoments(2, 1, 20)
    for row in x[:40]:
        sliding.push(row)
    moments = sliding.moments
    moments.append(x[40:60])
    assert_same(sliding, x[20:40], 1)
    fresh = LaggedMoments.from_rows(x[20:60], 1).scatter()
    assert np.allclose(moments.scatter().matrix, fresh.matrix, rtol=1e-9, atol=1e-9)


def test_bad_rows_are_refused_and_change_nothing():
    sliding = SlidingMoments(2, 1, 5)
    sliding.push([1.0, 2.0])
    before = sliding.to_bytes()
    for row in ([np.inf, 0.0], [np.nan, -np.inf], [1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError):
            sliding.push(row)
    assert sliding.to_bytes() == before
    with pytest.raises(ValueError, match="window"):
        SlidingMoments(1, 3, 3)


@pytest.mark.parametrize(
    ("series", "lags", "window"),
    [(2**32 - 1, 0, 1), (1, 2**32 - 1, 2**40), (0, 0, 1), (30_000, 5, 10), (1, 0, 0)],
)
def test_a_header_that_claims_too_much_allocates_nothing(series, lags, window):
    head = struct.pack("<IIQQ", series, lags, window, 0)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            SlidingMoments.from_bytes(seal("sliding-moments", 1, head))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_long_window_costs_what_it_holds():
    tracemalloc.start()
    try:
        sliding = SlidingMoments(2, 1, 2**40)
        for t in range(200):
            sliding.push([t, t * t])
        again = SlidingMoments.from_bytes(sliding.to_bytes())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    again.push([7.0, 8.0])
    assert (again.rows, again.window) == (201, 2**40)


def test_damaged_bytes_are_refused():
    sliding = SlidingMoments(2, 1, 5)
    sliding.push([1.0, 2.0])
    data = sliding.to_bytes()
    payload = data[-44:-4]  # 24 of header, two floats
    for bad in (
        data[:-1],
        data[:40] + b"\1" + data[41:],
        seal("sliding-moments", 1, payload[:10]),
        seal("sliding-moments", 1, payload[:-8]),
        seal("sliding-moments", 2, payload),
    ):
        with pytest.raises(ValueError):
            SlidingMoments.from_bytes(bad)
