"""The robust EWMA: what it must ignore and what it must follow."""

import numpy as np
import pytest

from state.detectors import RobustEwma


def alarms(x: np.ndarray, **kwargs) -> list[int]:
    scores = RobustEwma(**{"limit": 5.0, "series": 1, **kwargs}).update(x[:, None])
    return np.flatnonzero(scores[:, 0] >= 0.5).tolist()


def test_false_alarms_are_those_of_a_normal_tail() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 30))
    scores = RobustEwma(3.0, decay=0.02, scale_decay=0.01, warmup=200, series=30).update(x)
    rate = (scores[200:] >= 0.5).mean()
    # P(|z| > 3) = 0.0027; smoothing adds the uncertainty of level and scale.
    assert 0.002 < rate < 0.005


def test_one_outlier_is_seen_and_soon_forgotten() -> None:
    x = np.random.default_rng(1).normal(size=600)
    x[300], x[310] = 1e6, 8.0
    assert alarms(x) == [300, 310]


def test_a_new_level_and_a_new_scale_are_learnt() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(size=300), rng.normal(12.0, 3.0, size=900)])
    fired = alarms(x)
    assert fired[0] == 300
    assert all(at < 600 for at in fired)


@pytest.mark.parametrize(("tail", "wanted"), [("lower", [200]), ("upper", [250])])
def test_one_tail(tail: str, wanted: list[int]) -> None:
    x = np.random.default_rng(3).normal(size=300)
    x[200], x[250] = -12.0, 12.0
    assert alarms(x, tail=tail) == wanted


def test_the_first_change_of_a_constant_series_scores_one() -> None:
    x = np.append(np.full(100, 7.0), 7.5)
    scores = RobustEwma(4.0, series=1).update(x[:, None])[:, 0]
    assert scores[100] == pytest.approx(1.0)
    assert (scores[:100] == 0).all()


def test_scale_of_the_data_does_not_matter() -> None:
    x = np.random.default_rng(4).standard_t(3, size=(400, 1))
    small, large = (RobustEwma(series=1).update(x * unit) for unit in (2.0**-20, 2.0**20))
    np.testing.assert_allclose(small, large, rtol=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0.0}, {"decay": 0.0}, {"scale_decay": 2.0}, {"tail": "x"}, {"warmup": 1}]
)
def test_wrong_parameters_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"limit|decays|tail|warmup"):
        RobustEwma(**wrong)
