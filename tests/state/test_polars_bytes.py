"""Polars tables come back as they were, and equal ones have equal bytes."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.polars_bytes import read_table, table_bytes

COLUMNS = {
    "i": (pl.Int64, st.integers(-(2**63), 2**63 - 1)),
    "f": (pl.Float64, st.floats(allow_nan=False)),
    "s": (pl.String, st.text(max_size=5)),
    "b": (pl.Binary, st.binary(max_size=5)),
    "t": (pl.Boolean, st.booleans()),
}
SCHEMA = {name: dtype for name, (dtype, _) in COLUMNS.items()}
rows_of = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}),
    max_size=8,
)


@given(rows_of)
def test_a_table_comes_back(rows: list[dict[str, object]]) -> None:
    table = pl.DataFrame(rows, schema=SCHEMA)
    types, data = table_bytes(table)
    found = read_table("demo", data, table.columns, types)
    assert found.equals(table)
    assert found.schema == table.schema


@given(rows_of, st.integers(0, 7))
def test_equal_tables_have_equal_bytes(rows: list[dict[str, object]], cut: int) -> None:
    """Also slices, what was concatenated, and what lies under nulls."""
    table = pl.DataFrame(rows, schema=SCHEMA)
    again = pl.concat([table.slice(0, cut), table.slice(cut)])
    assert table_bytes(again) == table_bytes(table)
    one = pl.Series("x", [1, 2]).set(pl.Series([False, True]), None).to_frame()
    other = pl.Series("x", [1, 3]).set(pl.Series([False, True]), None).to_frame()
    assert table_bytes(one) == table_bytes(other)


@pytest.mark.parametrize(
    ("names", "types", "message"),
    [
        (["b"], ["Int64"], r"the table has columns \['a', 'a\?'\], not \['b'\]"),
        (["a"], ["String"], "the types of the table are not those"),
    ],
)
def test_another_table_is_refused(names: list[str], types: list[str], message: str) -> None:
    _, data = table_bytes(pl.DataFrame({"a": [1, None]}))
    with pytest.raises(ValueError, match=f"^demo: .*{message}"):
        read_table("demo", data, names, types)


def test_bytes_that_are_no_table_are_refused() -> None:
    types, data = table_bytes(pl.DataFrame({"a": ["x", None, "yz"]}))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        damaged = bytearray(data[: rng.integers(len(data) + 1)])
        for at in rng.integers(len(damaged), size=3) if damaged else ():
            damaged[at] = rng.integers(256)
        try:
            read_table("demo", bytes(damaged), ["a"], types)
        except ValueError:
            continue
    with pytest.raises(ValueError, match=r"^demo: "):
        read_table("demo", data[:100], ["a"], types)
