"""What is known of agents obeys the laws, and answers within its bounds."""

import itertools
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from flows.telemetry_exact import Truth
from flows.telemetry_state import ANSWERS, RANKS, Telemetry
from state.schemas import EVENTS
from state.testing import laws

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
numbers = itertools.count()


def events(rows: int, seed: int, spread: timedelta = 3 * HOUR) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, int(spread.total_seconds()), rows)
    return pa.RecordBatch.from_arrays(
        [
            pa.array([START + timedelta(seconds=int(s)) for s in seconds], EVENTS.field(0).type),
            pa.array([f"agent-{i}" for i in range(rows)], pa.string()),
            pa.array([f"user-{i}" for i in rng.zipf(1.3, rows) % 10_000], pa.string()),
            pa.array([f"/{i}" for i in rng.zipf(1.5, rows) % 2_000], pa.string()),
            pa.array(np.exp(rng.normal(4, 1, rows))),
        ],
        schema=EVENTS,
    )


def same(a: Telemetry, b: Telemetry) -> bool:
    """Whether all is equal but the numbers of the samples' random streams."""

    def rows(state: Telemetry) -> list[tuple]:
        return sorted(tuple(row.values()) for row in state.sample().to_pylist())

    return (
        a.windows == b.windows
        and all(
            a[w][part].to_bytes() == b[w][part].to_bytes()
            for w in a.windows
            for part in ("endpoints", "latency_exact", "users")
        )
        and rows(a) == rows(b)
        and a.answers().equals(b.answers())
    )


TestTelemetry = laws(
    empty=lambda: Telemetry(window=HOUR, host=next(numbers), hosts=1 << 40),
    update=Telemetry.update,
    chunks=st.builds(events, st.integers(0, 8), st.integers(0, 1 << 32)),
    same=same,
    max_examples=15,
)


@pytest.fixture(scope="module")
def parts() -> list[Telemetry]:
    made = [Telemetry(window=HOUR, host=i, hosts=4) for i in range(4)]
    for i, part in enumerate(made):
        part.update(events(10_000, seed=i))
    return made


def merged(parts: list[Telemetry]) -> Telemetry:
    whole = Telemetry(window=HOUR)
    for part in parts:
        whole.merge(part)
    return whole


def test_every_answer_is_within_its_bounds(parts: list[Telemetry]) -> None:
    batches = [events(10_000, seed=i) for i in range(4)]
    told = merged(parts).answers(confidence=0.999, top=5)
    assert told.schema.equals(ANSWERS)
    rows = Truth(batches, HOUR).beside(told).to_pylist()
    assert {row["window_start"] for row in rows} == {None, START, START + HOUR, START + 2 * HOUR}
    per_window = 6 + len(RANKS) + 1 + 5
    assert len(rows) == 4 * per_window
    for row in rows:
        if row["question"] == "latency rank error":
            assert row["exact"] is None
            assert 0 < row["estimate"] < 0.02
            continue
        assert row["lower"] <= row["estimate"] <= row["upper"], row
        slack = 1e-9 * abs(row["exact"])  # Polars rounds its sums
        assert row["lower"] - slack <= row["exact"] <= row["upper"] + slack, row
        if row["question"] in ("events", "latency minimum", "latency maximum"):
            assert row["estimate"] == row["exact"]


def test_the_order_of_merging_does_not_change_what_is_exact(parts: list[Telemetry]) -> None:
    one, other = merged(parts), merged(parts[::-1])
    assert one.total()["latency_exact"].to_bytes() == other.total()["latency_exact"].to_bytes()
    assert one.total()["users"].to_bytes() == other.total()["users"].to_bytes()


def test_the_sample_is_of_all_hosts(parts: list[Telemetry]) -> None:
    sample = merged(parts).sample()
    assert sample.schema.equals(EVENTS)
    assert sample.num_rows == 256
    assert len(set(sample["agent"].to_pylist())) > 200


def test_without_windows_all_is_one() -> None:
    state = Telemetry()
    assert state.fold(events(100, 1)) == [0]
    assert set(state.answers()["window_start"].to_pylist()) == {None}


def test_times_before_1970_have_windows_too() -> None:
    batch = events(50, 1)
    times = pa.array([datetime(1969, 12, 31, 23, 30, tzinfo=UTC)] * 50, EVENTS.field(0).type)
    state = Telemetry(window=HOUR, host=3, hosts=4)
    assert state.fold(batch.set_column(0, EVENTS.field(0), times)) == [-1]
    again = Telemetry.from_bytes(state.to_bytes())
    assert again.windows == [-1]
    starts = set(state.answers()["window_start"].to_pylist())
    assert starts == {None, datetime(1969, 12, 31, 23, tzinfo=UTC)}


def test_one_window_alone_goes_and_comes_back(parts: list[Telemetry]) -> None:
    again = Telemetry(window=HOUR)
    for window in parts[0].windows:
        again.merge(Telemetry.from_bytes(parts[0].only(window).to_bytes()))
    assert same(again, parts[0])


def test_nothing_known_answers_nothing() -> None:
    (row,) = Telemetry().answers().to_pylist()
    assert (row["question"], row["estimate"]) == ("events", 0)
    assert Telemetry().sample().num_rows == 0


def test_what_does_not_fit_is_refused(parts: list[Telemetry]) -> None:
    for other in (Telemetry(), Telemetry(window=2 * HOUR), Telemetry(window=HOUR, seed=1)):
        with pytest.raises(ValueError, match="does not merge"):
            parts[0].merge(other)
    twice = Telemetry.from_bytes(parts[0].to_bytes())
    with pytest.raises(ValueError):
        twice.merge(parts[0])
    with pytest.raises(ValueError, match="host 4 is not one of 4"):
        Telemetry(host=4, hosts=4)


def test_the_exact_quantile_is_the_least_value_that_reaches_its_rank() -> None:
    batch = events(1000, 5)
    told = Truth([batch], None).beside(_telemetry(batch).answers()).to_pylist()
    values = np.sort(batch["latency_ms"].to_numpy())
    for row in told:
        if row["question"] == "latency quantile":
            assert row["exact"] == values[math.ceil(float(row["key"]) * 1000) - 1]


def test_no_events_have_no_truth() -> None:
    answers = Telemetry().answers()
    assert Truth([], None).beside(answers).equals(answers)


def _telemetry(batch: pa.RecordBatch) -> Telemetry:
    state = Telemetry()
    state.update(batch)
    return state
