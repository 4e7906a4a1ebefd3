"""How events and alarms are counted, on prices small enough to count by hand."""

import numpy as np

from benchmarks.market_detection import Event, Outcome, events_of, judge

# A peak on day 2, 8 % down on day 5, up again, then a long rest and a crash within one day.
PRICES = np.array([98, 99, 100, 97, 94, 92, 91, 99, *[100] * 20, 85, 86, 100, 100], dtype=float)


def alarm(*days: int) -> np.ndarray:
    fired = np.zeros(len(PRICES), np.bool_)
    fired[list(days)] = True
    return fired


def counted(*days: int, span: tuple[int, int] = (0, len(PRICES))) -> Outcome:
    return judge(alarm(*days), events_of(PRICES), span, 32.0)


def test_events_begin_after_the_peak_and_are_confirmed_at_eight_per_cent() -> None:
    # The peak before the crash is the first of equal closes among the ten days before.
    assert events_of(PRICES) == [Event(3, 5, 6), Event(19, 28, 29)]
    assert events_of(np.linspace(100, 93, 20)) == []


def test_falls_not_more_than_ten_days_apart_are_one_event() -> None:
    near, far = (np.array([100.0, 91.0, *[100.0] * gap, 91.0]) for gap in (10, 11))
    assert [len(events_of(x)) for x in (near, far)] == [1, 2]


def test_an_alarm_counts_from_the_peak_to_the_end() -> None:
    outcome = counted(2, 3, 6, 7)
    assert (outcome.alarms, outcome.right) == (4, 2)
    assert outcome.precision == 0.5


def test_early_is_before_the_confirmation() -> None:
    early, on_the_day, after = counted(4), counted(5), counted(6)
    assert (early.found, early.early, early.delays, early.leads) == (1, 1, (1,), (1,))
    assert (on_the_day.found, on_the_day.early, on_the_day.leads) == (1, 0, (0,))
    assert (after.found, after.early, after.right) == (0, 0, 1)
    assert early.f1 == 2 / 3
    assert on_the_day.f1 == 0.0


def test_halves_add_up() -> None:
    whole = counted(4, 10, 20)
    halves = counted(4, 10, 20, span=(0, 15)) + counted(4, 10, 20, span=(15, len(PRICES)))
    assert halves == whole
    assert (whole.events, whole.found, whole.alarms, whole.right) == (2, 2, 3, 2)
