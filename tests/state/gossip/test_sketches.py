from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.gossip.messages import Span
from state.gossip.seen import key_of
from state.gossip.sketches import Cells
from state.gossip.tables import FULL, Table

hashes = st.sets(st.integers(0, (1 << 63) - 1), max_size=12)


def sketch(elements: set[int], cells: int = 60) -> Cells:
    return Cells.of(np.array(sorted(elements), np.uint64), cells)


@given(hashes, hashes, hashes)
def test_the_difference_is_found_or_refused_never_wrong(
    both: set[int], mine: set[int], theirs: set[int]
) -> None:
    a, b = both | mine, both | theirs
    found = sketch(a).difference(Cells.from_bytes(sketch(b).to_bytes()))
    assert found is None or found == (sorted(a - b), sorted(b - a))


@pytest.mark.parametrize(("cells", "differences"), [(30, 10), (60, 25), (120, 60), (480, 280)])
def test_how_much_a_sketch_can_tell(cells: int, differences: int) -> None:
    rng = np.random.default_rng(1)
    good = 0
    for _ in range(50):
        both = rng.integers(0, 1 << 63, 500, dtype=np.uint64)
        rest = rng.integers(0, 1 << 63, differences, dtype=np.uint64)
        half = differences // 2
        one = Cells.of(np.concatenate([both, rest[:half]]), cells)
        other = Cells.of(np.concatenate([both, rest[half:]]), cells)
        good += one.difference(other) == (sorted(rest[:half]), sorted(rest[half:]))
    assert good >= 40


def test_too_large_a_difference_fails() -> None:
    assert sketch(set(range(100)), 30).difference(sketch(set(), 30)) is None


def test_forged_cells_come_to_an_end() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        forged = Cells.from_bytes(rng.integers(0, 256, 600, dtype=np.uint8).tobytes())
        assert sketch({1, 2, 3}, 30).difference(forged) is None


def filled(names: list[str]) -> Table:
    table = Table()
    for name in names:
        table.name(name, key_of(name))
        table.put(name, key_of(name + "!"))
    return table


def test_spans_find_what_differs() -> None:
    names = [f"r{i}" for i in range(500)]
    one, other = filled(names), filled(names[:-1])
    other.put("r3", 77)
    differing: set[str] = set()
    todo: list[Span] = [one.span(*FULL)]
    looked = 0
    while todo:
        span = todo.pop()
        looked += 1
        if other.span(span.low, span.high) == span:
            continue
        inside = one.inside(span.low, span.high)
        if len(inside) <= 1:
            differing |= set(inside)
        else:
            todo += one.split(span.low, span.high)
    assert differing == {"r3", "r499"}
    assert looked < 120


def test_a_table_keeps_its_sum_and_order_through_changes() -> None:
    table = filled(["a", "b", "c"])
    table.span(*FULL)
    table.put("b", 5)
    table.drop("a")
    table.drop("nobody")
    rebuilt = Table()
    for name in ("c", "b"):
        rebuilt.name(name, key_of(name))
        rebuilt.put(name, table.hashes[name])
    assert table.total == rebuilt.total
    assert table.span(*FULL) == rebuilt.span(*FULL)
    assert table.inside(*FULL) == rebuilt.inside(*FULL)
    assert table.names_of([5]) == ["b"]
