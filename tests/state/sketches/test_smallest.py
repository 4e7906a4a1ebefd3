"""The smallest priorities against a sort of all of them."""

import math

import numpy as np
import pytest

from state.sketches.smallest import smallest

RNG = np.random.default_rng(5)
ALL = {np.float64: math.inf, np.uint64: 2**64 - 1}


def drawn(kind: type, count: int) -> np.ndarray:
    if kind is np.float64:
        return RNG.exponential(size=count)
    return RNG.integers(2**64, size=count, dtype=np.uint64)


@pytest.mark.parametrize("kind", [np.float64, np.uint64])
@pytest.mark.parametrize("size", [1, 7, 256, 5000])
@pytest.mark.parametrize("count", [0, 1, 7, 300, 40_000, 100_000])
def test_they_are_those_that_a_sort_finds(kind: type, size: int, count: int) -> None:
    keys = drawn(kind, count)
    places, found, threshold = smallest(lambda a, b: keys[a:b], count, size, ALL[kind])
    order = np.argsort(keys)
    assert places.tolist() == order[:size].tolist()
    assert found.tolist() == keys[order[:size]].tolist()
    assert found.dtype == kind
    assert threshold == (keys[order[size]] if count > size else ALL[kind])


@pytest.mark.parametrize("kind", [np.float64, np.uint64])
def test_only_those_below_the_threshold_count(kind: type) -> None:
    keys = drawn(kind, 70_000)
    below = np.sort(keys)[100].item()
    places, found, threshold = smallest(lambda a, b: keys[a:b], len(keys), 256, below)
    assert len(places) == 100
    assert found.max() < below == threshold


def test_uniform_priorities_that_are_all_large_are_found() -> None:
    keys = RNG.integers(2**63, 2**64, size=40_000, dtype=np.uint64)
    _, found, _ = smallest(lambda a, b: keys[a:b], len(keys), 10, 2**64 - 1)
    assert found.tolist() == np.sort(keys)[:10].tolist()
