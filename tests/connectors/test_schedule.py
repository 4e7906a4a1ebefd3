"""Cron ticks come at the right times, once, whatever the clock on the wall does."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, run_main
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.schedule import CronSource, ticks

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Clock:
    def __init__(self, text):
        self.now = utc(text)

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        # Berlin: 02:00 -> 03:00 on 2025-03-30 (01:00 UTC); 03:00 -> 02:00 on 2025-10-26.
        (
            "30 2 * * *",
            BERLIN,
            "2025-03-28 12:00",
            ["03-29 01:30", "03-30 01:00", "03-31 00:30"],
        ),
        (
            "30 2 * * *",
            BERLIN,
            "2025-10-24 12:00",
            ["10-25 00:30", "10-26 00:30", "10-27 01:30"],
        ),
        (
            "*/30 * * * *",
            BERLIN,
            "2025-10-25 23:59",
            ["10-26 00:00", "10-26 00:30", "10-26 01:00", "10-26 01:30", "10-26 02:00"],
        ),
        (
            "0 * * * *",
            BERLIN,
            "2025-03-29 23:30",
            ["03-30 00:00", "03-30 01:00", "03-30 02:00"],
        ),
        ("0 3 * * *", BERLIN, "2025-03-29 12:00", ["03-30 01:00", "03-31 01:00"]),
        # New York: 02:00 -> 03:00 on 2025-03-09 (07:00 UTC); 02:00 -> 01:00 on 2025-11-02.
        (
            "30 2 * * *",
            NEW_YORK,
            "2025-03-07 12:00",
            ["03-08 07:30", "03-09 07:00", "03-10 06:30"],
        ),
        (
            "30 1 * * *",
            NEW_YORK,
            "2025-10-31 12:00",
            ["11-01 05:30", "11-02 05:30", "11-03 06:30"],
        ),
        ("0 9 * * MON", NEW_YORK, "2025-11-01 00:00", ["11-03 14:00", "11-10 14:00"]),
    ],
)
def test_times_on_days_when_the_clock_changes(expression, zone, start, expected):
    times = ticks(expression, timezone=zone, start=utc(start))
    assert [f"{t:%m-%d %H:%M}" for t in islice(times, len(expected))] == expected


def test_a_start_in_the_second_pass_of_an_hour_does_not_go_back():
    second_0210 = utc("2025-10-26 01:10")
    assert next(ticks("30 2 * * *", timezone=BERLIN, start=second_0210)) == utc("2025-10-27 01:30")
    assert next(CronSim("30 2 * * *", second_0210.astimezone(ZoneInfo(BERLIN)))) < second_0210


EXPRESSIONS = st.sampled_from(
    ["30 2 * * *", "0,30 2 * * *", "*/20 * * * *", "5 */2 * * *", "15 1-3 * * SUN", "0 0 L * *"]
)
ZONES = st.sampled_from(["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe"])
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, ZONES, MOMENTS)
def test_times_ascend_and_beginning_again_at_any_of_them_continues(expression, zone, start):
    whole = list(islice(ticks(expression, timezone=zone, start=start), 12))
    assert all(a < b for a, b in zip([start, *whole], whole, strict=False))
    for i, time in enumerate(whole):
        rest = ticks(expression, timezone=zone, start=time)
        assert list(islice(rest, len(whole) - i - 1)) == whole[i + 1 :]


@settings(max_examples=40, deadline=None)
@given(EXPRESSIONS, MOMENTS)
def test_in_utc_the_times_are_those_of_cronsim(expression, start):
    assert list(islice(ticks(expression, start=start), 5)) == list(
        islice(CronSim(expression, start), 5)
    )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("61 * * * *", "'61 \\* \\* \\* \\*': bad minute '61'"),
        ("* 24 * * *", "bad hour '24'"),
        ("* * 0 * *", "bad day-of-month '0'"),
        ("* * * JANUARY *", "bad month 'JANUARY'"),
        ("* * * * 9", "bad day-of-week '9'"),
        ("x * * * * *", "bad second 'x'"),
        ("0 0 30 2 *", "bad day-of-month '30'"),
        ("* * *", "3 fields instead of 5"),
        ("", "0 fields instead of 5"),
    ],
)
def test_a_bad_expression_names_the_field(expression, message):
    with pytest.raises(ValueError, match=message):
        ticks(expression, start=utc("2025-01-01"))
    with pytest.raises(ValueError, match=message):
        CronSource(expression)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timezone": "Europe/Bern"}, "unknown time zone 'Europe/Bern'"),
        ({"timezone": "../etc"}, "unknown time zone"),
        ({"timezone": "Europe"}, "unknown time zone"),
        ({"start": datetime(2025, 1, 1)}, "no time zone"),
        ({"until": datetime(2025, 1, 1)}, "no time zone"),
        ({"count": 0}, "at least 1"),
        ({"missed": "some"}, "'one', 'all' or 'none'"),
    ],
)
def test_other_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CronSource("* * * * *", **arguments)


def part(source, state=None):
    return source.build_part("in", "ticks", state)


def test_waits_for_each_tick_and_ends_after_the_last():
    clock = Clock("2025-01-01 00:00:30")
    p = part(CronSource("*/5 * * * *", until=utc("2025-01-01 00:10"), clock=clock))
    assert (p.next_awake(), p.next_batch()) == (utc("2025-01-01 00:05"), [])
    clock.now = utc("2025-01-01 00:05:00")
    assert p.next_batch() == [utc("2025-01-01 00:05")]
    assert (p.next_awake(), p.next_batch()) == (utc("2025-01-01 00:10"), [])
    clock.now = utc("2025-01-01 00:20")
    assert p.next_batch() == [utc("2025-01-01 00:10")]
    for _ in range(2):
        with pytest.raises(StopIteration):
            p.next_batch()


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("one", ["03:00"]), ("all", ["01:00", "02:00", "03:00"]), ("none", [])],
)
def test_ticks_missed_while_down(missed, expected):
    clock = Clock("2025-01-01 00:30")
    source = CronSource("0 * * * *", missed=missed, clock=clock)
    down = part(source).snapshot()
    clock.now = utc("2025-01-01 03:20")
    p = part(source, down)
    assert [f"{t:%H:%M}" for t in p.next_batch()] == expected
    assert p.next_awake() == utc("2025-01-01 04:00")
    clock.now = utc("2025-01-01 04:00")
    again = part(source, p.snapshot())
    assert again.next_batch() == ([] if missed == "none" else [utc("2025-01-01 04:00")])
    assert p.next_batch() == [utc("2025-01-01 04:00")]


def test_a_busy_flow_gets_the_newest_tick_only():
    clock = Clock("2025-01-01 00:30")
    p = part(CronSource("0 * * * *", missed="none", clock=clock))
    clock.now = utc("2025-01-01 03:20")
    assert p.next_batch() == [utc("2025-01-01 03:00")]
    assert p.next_batch() == []


def test_the_newest_of_years_of_seconds_is_found_at_once():
    clock = Clock("2025-01-01 00:00:05")
    source = CronSource("*/7 * * * * *", clock=clock, start=utc("1990-01-01"))
    assert part(source).next_batch() == [utc("2025-01-01 00:00:00")]
    rare = CronSource("0 0 29 2 *", clock=clock, start=utc("1990-01-01"))
    assert part(rare).next_batch() == [utc("2024-02-29")]


def test_all_missed_ticks_come_in_bounded_batches_up_to_the_count():
    clock = Clock("2025-01-03 00:00")
    source = CronSource("* * * * *", missed="all", clock=clock, start=utc("2025-01-01"), count=2500)
    p, sizes = part(source), []
    while True:
        try:
            sizes.append(len(p.next_batch()))
        except StopIteration:
            break
        p = part(source, p.snapshot())
    assert sizes == [1000, 1000, 500]


def test_a_flow_resumes_without_doubling_a_tick(tmp_path):
    init_db_dir(tmp_path, 1)
    seen = []

    def run(until):
        flow = Dataflow("cron")
        source = CronSource(
            "0 3 * * *", missed="all", start=utc("2025-01-01"), until=utc(until), timezone=BERLIN
        )
        op.output("out", op.input("in", flow, source), TestingSink(seen))
        recovery = RecoveryConfig(str(tmp_path))
        run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)

    run("2025-01-03")
    run("2025-01-03")
    run("2025-01-05")
    assert seen == [utc(f"2025-01-0{day} 02:00") for day in (1, 2, 3, 4)]
