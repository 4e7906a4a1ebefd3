"""Quorums, against all subsets."""

from __future__ import annotations

from itertools import combinations

import pytest

from state.thresholds import max_faults, quorum_size


@pytest.mark.parametrize("n", range(1, 9))
def test_two_quorums_share_an_honest_member_and_no_smaller_ones_do(n: int) -> None:
    for f in range(max_faults(n) + 1):
        q = quorum_size(n, f)
        assert q <= n - f  # f silent members cannot prevent a quorum

        def least_shared(size: int) -> int:
            sets = [set(chosen) for chosen in combinations(range(n), size)]
            return min(len(a & b) for a in sets for b in sets)

        assert least_shared(q) > f
        assert q == 1 or least_shared(q - 1) <= f


def test_of_3f_plus_1_a_quorum_is_2f_plus_1() -> None:
    assert all(quorum_size(3 * f + 1, f) == 2 * f + 1 for f in range(100))


@pytest.mark.parametrize(("n", "f"), [(3, 1), (6, 2), (0, 0), (-1, 0), (4, -1)])
def test_groups_that_are_too_small(n: int, f: int) -> None:
    with pytest.raises(ValueError):
        quorum_size(n, f)
