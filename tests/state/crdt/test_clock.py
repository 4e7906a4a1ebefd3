"""Hybrid logical clocks: causality whatever the wall clocks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.crdt.clock import ClockDrift, HybridClock, Stamp, check_stamp

HOUR = 3_600_000


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9))))
def test_a_message_is_stamped_before_what_follows_it(sends):
    clocks = [HybridClock(name) for name in "abc"]
    skew = [-HOUR, 0, HOUR]
    for sender, receiver, step in sends:
        now = 10 * HOUR + step
        sent = clocks[sender].tick(now + skew[sender])
        clocks[receiver].observe(sent, now + skew[receiver])
        assert clocks[receiver].tick(now + skew[receiver]) > sent
        assert clocks[sender].tick(now + skew[sender]) > sent


def test_counters_restart_with_the_wall_clock():
    clock = HybridClock("a")
    assert [clock.tick(now)[:2] for now in (5, 5, 3, 6)] == [(5, 0), (5, 1), (5, 2), (6, 0)]


def test_drift_is_bounded_and_changes_nothing():
    clock = HybridClock("a", max_drift_ms=10)
    clock.observe(Stamp(110, 0, "b"), 100)
    with pytest.raises(ClockDrift, match="11 ms ahead"):
        clock.tick(100, after=Stamp(111, 0, "b"))
    assert clock.tick(100) == Stamp(110, 1, "a")
    with pytest.raises(ValueError):
        HybridClock("a", max_drift_ms=-1)


@pytest.mark.parametrize(
    "value", [None, (1, 2), (-1, 0, "a"), (0, True, "a"), (1 << 63, 0, "a"), (0, 0, "")]
)
def test_malformed_stamps_are_refused(value):
    with pytest.raises(ValueError):
        check_stamp(value)
