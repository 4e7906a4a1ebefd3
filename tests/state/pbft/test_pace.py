"""A running median of durations."""

import random
import statistics

import pytest

from state.pbft.pace import Pace


@pytest.mark.parametrize("seed", range(5))
def test_follows_the_median_and_not_the_mean(seed: int) -> None:
    rng = random.Random(seed)
    pace = Pace(0.001, 10.0)
    seen, medians = [], []
    for _ in range(2000):
        # A tenth is lost, and takes a hundred times as long.
        seconds = rng.uniform(0.02, 0.04) * (100 if rng.random() < 0.1 else 1)
        pace.add(seconds)
        seen.append(seconds)
        medians.append(pace.median)
    usual = statistics.median(seen)
    assert 0.7 * usual < statistics.mean(medians[100:]) < 1.4 * usual < statistics.mean(seen)


def test_stays_within_its_bounds() -> None:
    pace = Pace(0.01, 1.0)
    for _ in range(100):
        pace.add(0.0)
    assert pace.median == 0.01
    for _ in range(100):
        pace.add(60.0)
    assert pace.median == 1.0
