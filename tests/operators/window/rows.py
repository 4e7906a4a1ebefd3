"""Rows that windows are tested with."""

from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st

START = datetime(2024, 1, 1, tzinfo=UTC)
Row = tuple[int, str, int]
"""Seconds after START, user, x."""


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)


rows_of = st.lists(st.tuples(st.integers(-30, 60), st.sampled_from("ab")), max_size=25).map(
    lambda rows: [(t, user, x) for x, (t, user) in enumerate(rows)]
)
cuts_of = st.lists(st.integers(0, 25), max_size=4)
few = settings(max_examples=25)
