"""Columnar maps and sets do what `LWWMap` and `ORSet` do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from state.crdt import LWWMap, ORSet, Stamp
from state.crdt.values import decode, encode
from state.rows import LwwRows, OrRows, lww_schema, or_schema
from state.rows.or_rows import Dots

TEXT = pa.string()
KEYS = ["w", "", "ключ", "z" * 5000, "z" * 4999 + "y"]


@pytest.fixture(params=["hashes differ", "hashes are equal"])
def hashed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "hashes are equal":
        monkeypatch.setattr("state.rows.key_index.hash64", lambda c: np.zeros(len(c), np.uint64))


def lww(rows: list[tuple[str, Any, Stamp]]) -> pa.RecordBatch:
    """Return writes as a batch; a value of None is a deletion."""
    return pa.RecordBatch.from_pylist(
        [
            {"key": key, "value": None if value is None else encode(value), **stamp._asdict()}
            for key, value, stamp in rows
        ],
        schema=lww_schema(TEXT),
    )


def shown(rows: LwwRows) -> dict[str, Any]:
    return {
        row["key"]: decode(row["value"])
        for row in rows.rows().to_pylist()
        if row["value"] is not None
    }


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("seed", range(60))
def test_a_map_of_rows_is_an_lww_map(seed: int) -> None:
    chance = random.Random(seed)
    rows, other, model = LwwRows(TEXT), LwwRows(TEXT), LWWMap()
    for _ in range(chance.randrange(1, 8)):
        writes = []
        for _ in range(chance.randrange(30)):
            # Few stamps: many are equal, with equal and with other values.
            stamp = Stamp(chance.randrange(3), chance.randrange(2), chance.choice("ab"))
            key, value = chance.choice(KEYS), chance.choice([None, 1, 2, "three"])
            writes.append((key, value, stamp))
            if value is None:
                model.remove(key, stamp)
            else:
                model.put(key, value, stamp)
        chance.choice([rows, other]).fold(lww(writes))
    rows.merge(other)
    assert shown(rows) == model.value
    assert {
        r["key"]: Stamp(r["wall_ms"], r["counter"], r["replica"]) for r in rows.rows().to_pylist()
    } == {key: model.stamp(key) for key in rows.rows().column("key").to_pylist()}
    again = LwwRows.from_bytes(rows.to_bytes())
    assert again.to_bytes() == rows.to_bytes()
    assert again.fold(rows.rows()).num_rows == 0


def test_what_has_changed_is_returned() -> None:
    rows = LwwRows(TEXT)
    first = rows.fold(
        lww([("a", 1, Stamp(1, 0, "x")), ("a", 2, Stamp(2, 0, "x")), ("b", 1, Stamp(1, 0, "x"))])
    )
    assert [(r["key"], decode(r["value"])) for r in first.to_pylist()] == [("a", 2), ("b", 1)]
    assert rows.fold(first).num_rows == 0
    late = rows.fold(lww([("a", 3, Stamp(1, 5, "x")), ("b", None, Stamp(1, 0, "y"))]))
    assert late.column("key").to_pylist() == ["b"]
    assert shown(rows) == {"a": 2}
    assert len(rows) == 2


def test_rows_that_were_given_out_stay_as_they_are() -> None:
    rows = LwwRows(TEXT)
    rows.fold(lww([("a", 1, Stamp(1, 1, "x"))]))
    shown = rows.rows()
    before = shown.to_pylist()
    rows.fold(lww([("a", 2, Stamp(2, 2, "y")), ("b", 2, Stamp(2, 2, "y"))]))
    assert shown.to_pylist() == before


def test_overwritten_values_are_forgotten() -> None:
    rows = LwwRows(TEXT)
    for n in range(3000):
        rows.fold(lww([("a", "x" * 1000, Stamp(n, 0, "x")), ("b", n, Stamp(n, 0, "x"))]))
    assert shown(rows) == {"a": "x" * 1000, "b": 2999}
    assert sum(len(values) for values in rows._values) < 2000


def named(codes: list[int], names: list[str | None]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("wall_ms", pa.array([-1]), "'wall_ms' is negative"),
        ("wall_ms", pa.array([None], pa.int64()), "'wall_ms' must be int64 without nulls"),
        ("counter", pa.array([1.0]), "'counter' must be int64"),
        ("replica", pa.array([None], pa.string()), "a replica is null"),
        ("replica", named([0], ["x", None]), "a replica is null"),
        ("replica", named([1], ["x", None]), "a replica is null"),
        ("replica", pa.array([1]), "replicas are strings"),
        ("key", pa.array([None], pa.string()), "'key' must be string without nulls"),
        ("key", pa.array([1]), "'key' must be string"),
        ("value", pa.array([1.5]), "lww-rows"),
    ],
)
def test_impossible_rows_change_nothing(column: str, value: pa.Array, problem: str) -> None:
    rows = LwwRows(TEXT)
    good = lww([("a", 1, Stamp(1, 0, "x"))])
    names = good.schema.names
    columns = [value if name == column else good.column(name) for name in names]
    with pytest.raises(ValueError, match=problem):
        rows.fold(pa.RecordBatch.from_arrays(columns, names=names))
    with pytest.raises(ValueError, match="lww-rows"):
        rows.fold(good.drop_columns([column]))
    assert len(rows) == 0
    with pytest.raises(ValueError, match="keys of int64"):
        rows.merge(LwwRows(pa.int64()))


class Set:
    """An `ORSet` and an `OrRows` that are edited alike."""

    def __init__(self, name: str) -> None:
        self.name, self.counter = name, 0
        self.model, self.rows = ORSet(), OrRows(TEXT)

    def dots(self, element: str) -> list[dict[str, Any]]:
        return [
            {**row, "dots": Dots.GONE}
            for row in self.rows.rows().to_pylist()
            if row["element"] == element and row["dots"] == Dots.THERE
        ]

    def _write(self, rows: list[dict[str, Any]]) -> pa.RecordBatch:
        delta = pa.RecordBatch.from_pylist(rows, schema=or_schema(TEXT))
        self.rows.fold(delta)
        return delta

    def add(self, element: str) -> tuple[ORSet, pa.RecordBatch]:
        self.counter += 1
        dot = {"element": element, "replica": self.name, "counter": self.counter}
        delta = self._write([*self.dots(element), {**dot, "dots": Dots.THERE}])
        return self.model.add(element, self.name), delta

    def remove(self, element: str) -> tuple[ORSet, pa.RecordBatch]:
        return self.model.remove(element), self._write(self.dots(element))


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("seed", range(80))
def test_a_set_of_rows_is_an_or_set(seed: int) -> None:
    chance = random.Random(seed)
    sets = [Set(name) for name in "abc"]
    deltas = []
    for _ in range(chance.randrange(60)):
        at = chance.choice(sets)
        if chance.random() < 0.6:
            edit = at.add if chance.random() < 0.6 else at.remove
            deltas.append(edit(chance.choice(KEYS)))
        elif chance.random() < 0.8 and deltas:
            model, rows = chance.choice(deltas)
            at.model.merge(model)
            at.rows.fold(rows)
        else:
            other = chance.choice(sets)
            at.model.merge(other.model)
            if chance.random() < 0.5:
                at.rows.merge(OrRows.from_bytes(other.rows.to_bytes()))
            else:
                at.rows.merge(other.rows)
        assert set(at.rows.elements().to_pylist()) == at.model.value, f"seed {seed}"
    for at in sets:
        for other in sets:
            at.rows.merge(other.rows)
            at.model.merge(other.model)
    for at in sets:
        for other in sets:
            at.rows.merge(other.rows)
            at.model.merge(other.model)
    assert set(sets[0].rows.elements().to_pylist()) == sets[0].model.value
    assert len({at.rows.to_bytes() for at in sets}) == 1
    assert sets[0].rows.fold(sets[1].rows.rows()).num_rows == 0


def test_changes_are_a_delta() -> None:
    a, b = Set("a"), OrRows(TEXT)
    for element in ("x", "y", "x"):
        a.add(element)
    b.fold(a.rows.rows())
    _, gone = a.remove("x")
    changes = b.fold(gone)
    assert changes.to_pylist() == [
        {"element": "x", "replica": "a", "counter": 3, "dots": Dots.GONE}
    ]
    c = OrRows(TEXT)
    c.fold(a.rows.rows())
    c.fold(changes)
    assert c.to_bytes() == a.rows.to_bytes()


def test_cycles_of_additions_and_removals_leave_nothing() -> None:
    at = Set("a")
    for n in range(3000):
        at.add(f"e{n % 100}")
        at.remove(f"e{n % 100}")
    assert len(at.rows) == 0
    assert at.rows.vector() == {"a": 3000}
    assert len(at.rows.to_bytes()) < 1500
    assert len(at.rows._dots) < 1200


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"element": None, "dots": 0}, "a dot is there without its element"),
        ({"counter": 0}, "a counter is not in 1 to"),
        ({"counter": 1 << 50}, "a counter is not in 1 to"),
        ({"dots": 3}, "'dots' is not one of 0, 1, 2"),
    ],
)
def test_impossible_dots_change_nothing(row: dict[str, Any], problem: str) -> None:
    rows = OrRows(TEXT)
    good = {"element": "x", "replica": "a", "counter": 1, "dots": 0}
    with pytest.raises(ValueError, match=problem):
        rows.fold(pa.RecordBatch.from_pylist([good | row], schema=or_schema(TEXT)))
    assert rows.elements().to_pylist() == []
    with pytest.raises(ValueError, match="elements of int64"):
        rows.merge(OrRows(pa.int64()))
    with pytest.raises(ValueError, match="or-rows"):
        rows.fold(pa.record_batch({"element": ["x"]}))


def test_bytes_of_others_are_refused() -> None:
    full = LwwRows(TEXT)
    full.fold(lww([("a", 1, Stamp(1, 0, "x"))]))
    data = full.to_bytes()
    for kind in (LwwRows, OrRows):
        for bad in (b"", data[:-5], data[:40] + b"\xff" + data[41:]):
            with pytest.raises(ValueError):
                kind.from_bytes(bad)
    with pytest.raises(ValueError, match="or-rows"):
        OrRows.from_bytes(data)
