"""What every detector promises: split, resume, grow, missing values, malformed bytes."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.detectors import (
    Detector,
    Ensemble,
    FallWithin,
    RobustEwma,
    Spot,
    SpotViews,
    crash_ensemble,
)
from state.detectors.detector import score_of
from state.mergeable import seal, unseal

CASES = {
    "spot": lambda: Spot(0.01, calibrate=20, level=0.8, peaks=10, series=3),
    "dspot": lambda: Spot(0.01, calibrate=20, level=0.8, depth=5, tail="lower", series=3),
    "ewma": lambda: RobustEwma(3.0, warmup=10, series=3),
    "views": lambda: SpotViews(0.3, risk=0.01, calibrate=20, level=0.8, series=3),
    "fall": lambda: FallWithin(0.02, 4, series=3),
    "ensemble": lambda: Ensemble(
        [FallWithin(0.02, 4, series=3), RobustEwma(1.0, warmup=5, series=3)], refractory=3
    ),
    "nested": lambda: Ensemble([Ensemble([FallWithin(0.02, 4, series=3)], name="inner")]),
}
every = pytest.mark.parametrize("create", CASES.values(), ids=CASES.keys())


def walk(seed: int, steps: int = 120, missing: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, size=(steps, 3)) * 0.02
    x[rng.uniform(size=x.shape) < missing] = np.nan
    return x


@every
def test_is_a_detector(create) -> None:
    assert isinstance(create(), Detector)
    assert create().series == 3


@every
@given(st.integers(0, 50), st.lists(st.integers(0, 120), max_size=5))
@settings(max_examples=8)
def test_any_split_with_snapshots_is_bit_identical(create, seed: int, cuts: list[int]) -> None:
    x = walk(seed)
    whole = create()
    wanted = whole.update(x)
    part, scores = create(), []
    for piece in np.split(x, sorted(cuts)):
        part = type(part).from_bytes(part.to_bytes())
        scores.append(part.update(piece))
    assert np.concatenate(scores).tobytes() == wanted.tobytes()
    assert part.to_bytes() == whole.to_bytes()


@every
def test_scores_are_fractions_and_something_fires(create) -> None:
    scores = create().update(walk(3, 400))
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores >= 0.5).any()
    assert (scores < 0.5).any()


@every
def test_missing_values_score_zero_and_leave_the_state_alone(create) -> None:
    x = walk(1, missing=0.0)
    gaps = np.insert(x, [0, 7, 40, 40, 119], np.nan, axis=0)
    dense, gappy = create(), create()
    scores = gappy.update(gaps)
    empty = np.isnan(gaps).all(axis=1)
    assert (scores[empty] == 0).all()
    assert scores[~empty].tobytes() == dense.update(x).tobytes()
    assert gappy.to_bytes() == dense.to_bytes()


@every
def test_series_are_judged_alone_and_may_come_later(create) -> None:
    x = walk(2)
    late = create()
    first = late.update(x[:50])
    late.grow(5)
    assert late.series == 5
    rest = late.update(np.concatenate([x[50:], x[50:, :2]], axis=1))
    whole = create().update(x)
    np.testing.assert_array_equal(np.concatenate([first, rest[:, :3]]), whole)
    np.testing.assert_array_equal(rest[:, 3:], create().update(x[50:])[:, :2])


@every
def test_wrong_input_is_refused(create) -> None:
    detector = create()
    with pytest.raises(ValueError, match="3 series"):
        detector.update(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="infinite"):
        detector.update(np.array([[0.0, np.inf, 0.0]]))
    with pytest.raises(ValueError, match="shrink"):
        detector.grow(2)


@every
@given(st.data())
@settings(max_examples=8)
def test_damaged_bytes_raise_value_error(create, data: st.DataObject) -> None:
    detector = create()
    detector.update(walk(0, 30))
    good = detector.to_bytes()
    cut = data.draw(st.integers(0, len(good) - 1))
    at = data.draw(st.integers(0, len(good) - 1))
    flipped = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    for bad in (good[:cut], flipped, good + b"\0", data.draw(st.binary(max_size=40))):
        with pytest.raises(ValueError):
            type(detector).from_bytes(bad)


def resealed(kind: str, data: bytes, change: Callable[[list[Any]], object]) -> bytes:
    """Change what is inside an envelope and close it again with a right checksum."""
    content = msgspec.msgpack.decode(unseal(kind, data, versions={1})[1])
    change(content)
    return seal(kind, 1, msgspec.msgpack.encode(content))


@pytest.mark.parametrize(
    ("create", "change"),
    [
        # What would be made room for is far more than any machine has.
        (CASES["spot"], lambda saved: saved.__setitem__(1, 2**40)),
        (CASES["spot"], lambda saved: saved[0].update(calibrate=2**40)),
        (CASES["dspot"], lambda saved: saved[0].update(depth=2**64 - 1)),
        (CASES["ewma"], lambda saved: saved[0].update(warmup=2**40)),
        (CASES["ewma"], lambda saved: saved.__setitem__(1, -1)),
        (CASES["fall"], lambda saved: saved.__setitem__(1, 2**40)),
        (CASES["fall"], lambda saved: saved[0].update(limit="half")),
        (CASES["ewma"], lambda saved: saved[2].update(seen=np.full(3, -99).tobytes())),
        (CASES["spot"], lambda saved: saved[2].pop("seen")),
    ],
)
def test_sealed_bytes_that_do_not_fit_together_are_refused(create, change) -> None:
    detector = create()
    with pytest.raises(ValueError):
        type(detector).from_bytes(resealed(detector.kind, detector.to_bytes(), change))


@pytest.mark.parametrize(
    "change",
    [
        lambda own: own.__setitem__(1, 2**40),
        lambda own: own[0].update(limit="half"),
    ],
)
def test_sealed_views_that_do_not_fit_together_are_refused(change) -> None:
    def inside(saved: list[Any]) -> None:
        saved[0] = resealed("spot-views", saved[0], change)

    with pytest.raises(ValueError):
        SpotViews.from_bytes(resealed("spot-views", CASES["views"]().to_bytes(), inside))


def test_ensembles_within_ensembles_without_end_are_refused() -> None:
    data = CASES["ensemble"]().to_bytes()
    silent = bytes(24)
    for _ in range(1500):
        saved = ("deep", 1, 0, silent, [("Ensemble", data)])
        data = seal("ensemble", 1, msgspec.msgpack.encode(saved))
    with pytest.raises(ValueError, match="too deep"):
        Ensemble.from_bytes(data)


@pytest.mark.parametrize("create", [CASES["spot"], CASES["ewma"], CASES["fall"]])
def test_bytes_of_another_kind_are_refused(create) -> None:
    with pytest.raises(ValueError, match="expected the bytes of a ensemble"):
        Ensemble.from_bytes(create().to_bytes())


@every
def test_no_rows_change_nothing(create) -> None:
    detector = create()
    before = detector.to_bytes()
    assert detector.update(np.zeros((0, 3))).shape == (0, 3)
    assert detector.to_bytes() == before


def test_an_update_of_no_series() -> None:
    detector = crash_ensemble()
    assert detector.update(np.zeros((4, 0))).shape == (4, 0)


def test_the_limit_itself_fires_and_just_below_does_not() -> None:
    u = np.array([0.0, np.nextafter(1.0, 0.0), 1.0, 3.0, np.inf])
    assert (score_of(u) >= 0.5).tolist() == [False, False, True, True, True]
    assert score_of(u)[[0, 3, 4]].tolist() == [0.0, 0.75, 1.0]
