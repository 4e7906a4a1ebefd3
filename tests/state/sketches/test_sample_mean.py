import math

import numpy as np
import pytest
from scipy import stats

from state.sketches.sample_mean import hajek_mean


def test_equal_probabilities_give_the_mean_and_its_student_interval() -> None:
    y = np.random.default_rng(1).normal(size=50)
    found = hajek_mean(y, np.full(50, 1e-12))
    assert found.mean == pytest.approx(y.mean())
    assert found.variance == pytest.approx(y.var(ddof=1) / 50)
    low, high = stats.t.interval(0.9875, 49, found.mean, stats.sem(y))
    assert found.margin(0.95) == pytest.approx((high - low) / 2)


def test_the_finite_population_is_corrected_for() -> None:
    y = np.arange(10.0)
    assert hajek_mean(y, np.full(10, 0.5)).variance == pytest.approx(y.var(ddof=1) / 10 / 2)
    assert hajek_mean(y, np.ones(10)).margin(0.99) == 0


def test_unequal_probabilities_weigh_the_values() -> None:
    found = hajek_mean(np.array([1.0, 5.0]), np.array([0.5, 0.25]))
    assert found.mean == pytest.approx((1 * 2 + 5 * 4) / 6)


def test_few_values() -> None:
    assert math.isnan(hajek_mean(np.array([math.nan]), np.array([0.5])).mean)
    assert hajek_mean(np.array([1.0, math.nan]), np.array([0.5, 0.5])).values == 1
    assert hajek_mean(np.array([1.0]), np.array([1.0])).margin(0.9) == 0
    assert hajek_mean(np.array([1.0]), np.array([0.5])).margin(0.9) == math.inf
    assert hajek_mean(np.array([3.0, 3.0]), np.array([0.5, 0.5])).margin(0.9) == 0


def test_infinite_values_have_no_interval() -> None:
    found = hajek_mean(np.array([1.0, math.inf]), np.array([0.5, 0.5]))
    assert found.mean == math.inf
    assert math.isnan(found.margin(0.9))
    assert math.isnan(hajek_mean(np.array([-math.inf, math.inf]), np.array([0.5, 0.5])).mean)
