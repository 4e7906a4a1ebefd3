"""Against a plain embedding in extended precision, which shares no code with the moments."""

import struct
import tracemalloc

import numpy as np
import pytest

from state.mergeable import seal, unseal
from state.moments import LaggedMoments


def embedded(x, lags):
    """Rows (x_t, ..., x_{t-lags}) without a NaN, as long doubles: count, mean, scatter."""
    x = np.asarray(x, dtype=np.longdouble)
    at = np.arange(lags, len(x))
    z = np.concatenate([x[at - lag] for lag in range(lags + 1)], axis=1)
    z = z[~np.isnan(z.astype(float)).any(axis=1)]
    mean = z.mean(axis=0)
    return len(z), mean, (z - mean).T @ (z - mean)


def assert_close(scatter, expected):
    n, mean, matrix = expected
    assert scatter.n == n
    spread = np.sqrt(np.diagonal(matrix))
    assert np.abs((scatter.matrix - matrix) / np.outer(spread, spread)).max() <= 1e-9
    assert np.abs((scatter.mean - mean) / (spread / np.sqrt(n) + np.abs(mean) * 1e-6)).max() <= 1e-9


def prices(kind, rows=300):
    rng = np.random.default_rng(7)
    noise = rng.standard_normal((rows, 3))
    return {
        "plain": noise,
        "offset": noise + 1e9,
        "scales": noise * np.array([1e-9, 1.0, 1e9]) + np.array([1e-8, 0.0, -1e10]),
        "trend": np.cumsum(noise + 1.0, axis=0) + 1e6,
        "first row far away": np.concatenate([noise[:1], noise[1:] + 1e3]),
        "two levels": noise + np.where(np.arange(rows) < rows // 2, 0, 1e7)[:, None],
        "fat tails": rng.standard_t(1.5, (rows, 3)),
    }[kind]


KINDS = ["plain", "offset", "scales", "trend", "first row far away", "two levels", "fat tails"]


@pytest.mark.parametrize("kind", KINDS)
def test_scatter_of_prices_of_any_scale(kind):
    x = prices(kind)
    moments = LaggedMoments.from_rows(x, 3)
    for lags in range(4):
        assert_close(moments.scatter(lags), embedded(x, lags))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_any_split_equals_one_pass(kind, gaps):
    rng = np.random.default_rng(11)
    x = prices(kind)
    x[rng.random(len(x)) < gaps] = np.nan
    expected = [embedded(x, lags) for lags in range(4)]
    for parts in (2, 10, 150):
        total = LaggedMoments(3, 3)
        for part in np.split(x, np.sort(rng.integers(0, len(x) + 1, parts))):
            segment = LaggedMoments(3, 3)
            for row in part if rng.random() < 0.5 else [part]:
                segment.append(row)
            total.merge(segment)
        assert (total.rows, total.gaps) == (len(x), np.isnan(x[:, 0]).sum())
        for lags in range(4):
            assert_close(total.scatter(lags), expected[lags])


def test_rows_one_by_one_equal_one_block():
    x = prices("trend", 50)
    moments = LaggedMoments(3, 4)
    for row in x:
        moments.append(row)
    assert_close(moments.scatter(), embedded(x, 4))


def test_one_nan_makes_the_whole_row_missing():
    x = prices("plain", 40)
    x[20, 1] = np.nan
    assert_close(LaggedMoments.from_rows(x, 2).scatter(), embedded(x, 2))


def test_a_declared_gap_equals_a_missing_row():
    x = prices("plain", 40)
    declared = LaggedMoments.from_rows(x[:20], 2)
    declared.gap()
    declared.append(x[20:])
    missing = LaggedMoments.from_rows(np.insert(x, 20, np.nan, axis=0), 2)
    assert declared.to_bytes() == missing.to_bytes()
    assert (declared.rows, declared.gaps, declared.scatter().n) == (41, 1, 36)


def test_select_equals_the_moments_of_those_series():
    x = prices("offset", 60)
    x[[10, 30, 31]] = np.nan
    chosen = LaggedMoments.from_rows(x, 2).select([2, 0])
    for lags in range(3):
        assert_close(chosen.scatter(lags), embedded(x[:, [2, 0]], lags))
    chosen.append(prices("offset", 5)[:, [2, 0]])
    assert chosen.rows == 65


def test_a_constant_series_has_exactly_no_scatter():
    x = np.column_stack([np.full(100, 0.1), prices("plain", 100)[:, 0]])
    moments = LaggedMoments.from_rows(x[:37], 2)
    moments.merge(LaggedMoments.from_rows(x[37:], 2))
    matrix = moments.scatter().matrix
    assert not matrix[::2].any()
    assert not matrix[:, ::2].any()


def test_what_the_sums_cannot_resolve_is_zero_not_noise():
    x = prices("offset", 100)
    x[0] = 0.0
    matrix = LaggedMoments.from_rows(x, 1).scatter().matrix
    assert not matrix[:3].any()
    assert (np.diagonal(matrix)[3:] > 1e17).all()


def test_rows_no_longer_than_the_lags_give_nothing():
    scatter = LaggedMoments.from_rows(prices("plain", 3), 3).scatter()
    assert scatter.n == 0
    assert np.isnan(scatter.mean).all()
    assert not scatter.matrix.any()


def test_merging_with_itself_repeats_the_rows():
    x = prices("plain", 30)
    moments = LaggedMoments.from_rows(x, 2)
    moments.merge(moments)
    assert_close(moments.scatter(), embedded(np.concatenate([x, x]), 2))


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e200])
def test_infinite_values_are_refused_and_change_nothing(bad):
    moments = LaggedMoments.from_rows(prices("plain", 10), 1)
    before = moments.to_bytes()
    x = prices("plain", 5)
    x[1] = np.nan
    x[3, 1] = bad
    for rows in (x, x[3], np.where(np.isnan(x), 0.0, x)):
        with pytest.raises(ValueError, match="infinite value"):
            moments.append(rows)
    assert moments.to_bytes() == before


def test_arguments_that_do_not_fit():
    moments = LaggedMoments(2, 1)
    for call in (
        lambda: LaggedMoments(0, 1),
        lambda: LaggedMoments(1, -1),
        lambda: LaggedMoments.from_rows([1.0], 1),
        lambda: moments.append([1.0, 2.0, 3.0]),
        lambda: moments.append(np.zeros((1, 1, 2))),
        lambda: moments.merge(LaggedMoments(2, 2)),
        lambda: moments.merge(LaggedMoments(3, 1)),
        lambda: moments.scatter(2),
        lambda: moments.scatter(-1),
        lambda: moments.select([]),
    ):
        with pytest.raises(ValueError):
            call()


@pytest.mark.parametrize(
    ("series", "lags"), [(2**32 - 1, 0), (1, 2**32 - 1), (2**32 - 1, 2**32 - 1), (30_000, 5)]
)
def test_a_header_that_claims_too_much_allocates_nothing(series, lags):
    head = struct.pack("<IIQQBB", series, lags, 0, 0, 0, 0)
    data = seal("lagged-moments", 1, head + bytes(4096))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="header does not fit"):
            LaggedMoments.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_closed_runs_without_rows_are_refused():
    x = prices("plain", 20)
    x[[8, 14]] = np.nan
    data = LaggedMoments.from_rows(x, 0).to_bytes()
    _, payload = unseal("lagged-moments", data, versions={1})
    n = x.shape[1]
    at = 29 + 8 * n + 2 * (8 + 8 * n + 8 * n * n)
    assert struct.unpack_from("<Q", payload, at) == (5,)
    bad = payload[:8] + struct.pack("<Q", 15) + payload[16:at] + bytes(8) + payload[at + 8 :]
    with pytest.raises(ValueError, match="closed runs"):
        LaggedMoments.from_bytes(seal("lagged-moments", 1, bad))


def test_sealed_bytes_that_do_not_fit_together_are_refused():
    x = prices("plain", 20)
    x[8:10] = np.nan
    _, payload = unseal("lagged-moments", LaggedMoments.from_rows(x, 2).to_bytes(), versions={1})
    for bad in (
        b"",
        payload[:-8],
        payload + bytes(8),
        b"\xff\xff\xff\x7f" + payload[4:],  # series
        payload[:4] + b"\xff\xff\xff\x7f" + payload[8:],  # lags
        payload[:8] + b"\x63" + payload[9:],  # rows
        payload[:24] + b"\x00" + payload[25:],  # closed runs without a gap
        payload[:25] + b"\x09\0\0\0" + payload[29:],  # more closed lags than lags
        payload[:29] + np.full(3, np.nan).tobytes() + payload[53:],  # shift
    ):
        with pytest.raises(ValueError):
            LaggedMoments.from_bytes(seal("lagged-moments", 1, bad))
    with pytest.raises(ValueError, match="version 2"):
        LaggedMoments.from_bytes(seal("lagged-moments", 2, payload))


def test_bytes_of_many_lags_with_gaps() -> None:
    x = np.random.default_rng(0).standard_normal((1200, 1))
    x[[0, 600]] = np.nan
    moments = LaggedMoments.from_rows(x, 300)
    again = LaggedMoments.from_bytes(moments.to_bytes())
    np.testing.assert_array_equal(again.scatter().matrix, moments.scatter().matrix)
