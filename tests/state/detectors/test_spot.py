"""SPOT and DSPOT: thresholds that mean what they say."""

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from state.detectors import Spot


def test_tail_probabilities_are_those_of_the_distribution() -> None:
    x = np.random.default_rng(0).standard_t(4, size=(20_000, 3))
    spot = Spot(1e-6, calibrate=20_000, level=0.95, peaks=2000, series=3)
    spot.update(x)
    for p in (1e-2, 1e-3, 1e-4):
        z = student.isf(p, 4)
        upper = spot.tail_probability(np.full(3, z))[0]
        lower = spot.tail_probability(np.full(3, -z))[1]
        assert np.exp(np.log([*upper, *lower]).mean()) == pytest.approx(p, rel=0.35)


@pytest.mark.parametrize(
    ("tail", "draw"), [("lower", "normal"), ("lower", "standard_t"), ("upper", "exponential")]
)
def test_false_alarm_rate_is_the_risk(tail: str, draw: str) -> None:
    rng = np.random.default_rng(5)
    size = (4000, 25)
    x = rng.standard_t(4, size) if draw == "standard_t" else getattr(rng, draw)(size=size)
    risk, calibrate = 2e-3, 2000
    spot = Spot(risk, calibrate=calibrate, level=0.95, tail=tail, series=25)
    alarms = int((spot.update(x) >= 0.5).sum())
    expected = risk * (4000 - calibrate) * 25
    # Binomial spread plus that of a threshold estimated from 100 excesses in each series.
    spread = np.sqrt(expected + 25 * (risk * 2000) ** 2 / 8)
    assert abs(alarms - expected) < 4 * spread


def test_a_tail_with_a_hard_end_gives_no_more_alarms_than_the_risk() -> None:
    x = np.random.default_rng(6).uniform(size=(3000, 10))
    scores = Spot(2e-3, calibrate=1000, tail="upper", series=10).update(x)
    assert (scores >= 0.5).sum() <= 2e-3 * 2000 * 10


def test_both_tails_fire_and_one_tail_does_not_see_the_other() -> None:
    x = np.random.default_rng(2).normal(size=(1500, 1))
    x[1200], x[1300] = -8.0, 8.0
    fired = {
        tail: np.flatnonzero(
            Spot(1e-5, calibrate=1000, tail=tail, series=1).update(x)[:, 0] >= 0.5
        ).tolist()
        for tail in ("lower", "upper", "both")
    }
    assert fired == {"lower": [1200], "upper": [1300], "both": [1200, 1300]}


def test_a_drift_blinds_spot_and_not_dspot() -> None:
    x = (np.random.default_rng(3).normal(size=2000) + np.linspace(0, 200, 2000))[:, None]
    x[1800] += 12.0
    spot, dspot = (Spot(1e-4, calibrate=500, depth=depth, series=1) for depth in (0, 20))
    # To SPOT every value of a rising series is an excess, and none of them stands out.
    assert spot.update(x)[1800, 0] < 0.2
    fired = np.flatnonzero(dspot.update(x)[:, 0] >= 0.5)
    assert 1800 in fired
    assert len(fired) < 5


def test_a_level_that_moved_for_good_does_not_enter_the_model_while_it_fires() -> None:
    x = np.concatenate([np.random.default_rng(4).normal(size=1000), np.full(50, 30.0)])[:, None]
    scores = Spot(1e-4, calibrate=500, series=1).update(x)
    assert (scores[1000:] >= 0.5).all()


def test_nothing_is_scored_before_the_calibration_ends() -> None:
    x = np.random.default_rng(0).normal(size=(80, 1))
    x[[10, 40, 69]] = 50.0
    scores = Spot(0.01, calibrate=50, depth=20, level=0.9, series=1).update(x)
    assert (scores[:70] == 0).all()


def test_a_constant_series_scores_its_first_change() -> None:
    x = np.append(np.zeros(100), [1.0])[:, None]
    scores = Spot(0.01, calibrate=50, level=0.9, series=1).update(x)
    assert (scores[:100] == 0).all()
    assert scores[100] >= 0.5


def test_a_normal_tail_is_close_to_its_quantile() -> None:
    x = np.random.default_rng(7).normal(size=(5000, 1))
    spot = Spot(1e-3, calibrate=4900, level=0.95, tail="upper", peaks=400, series=1)
    spot.update(x)
    grid = np.linspace(2.0, 5.0, 3001)
    p = np.array([spot.tail_probability(np.array([z]))[0, 0] for z in grid])
    assert grid[p <= 1e-3][0] == pytest.approx(norm.isf(1e-3), abs=0.3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"risk": 0.5},
        {"risk": 0.0},
        {"level": 1.0},
        {"calibrate": 5},
        {"depth": -1},
        {"peaks": 3},
        {"tail": "left"},
        {"series": -1},
    ],
)
def test_wrong_parameters_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError):
        Spot(**{"risk": 1e-3, **wrong})
