import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.sketches.stream_spans import joined


@given(st.sets(st.integers(0, 60)), st.randoms(use_true_random=False))
def test_spans_are_the_runs_of_a_set(streams: set[int], random) -> None:
    singles = [(n, n) for n in streams]
    random.shuffle(singles)
    spans = joined(singles)
    assert {n for first, last in spans for n in range(first, last + 1)} == streams
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(spans))
    assert joined(reversed(spans)) == spans


@pytest.mark.parametrize("spans", [[(0, 5), (3, 3)], [(0, 5), (5, 9)], [(2, 1)]])
def test_overlaps_are_refused(spans: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="stream"):
        joined(spans)
