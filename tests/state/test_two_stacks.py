"""`TwoStacks`: the right merge in the right order, few merges, the same after a resume."""

import struct
from typing import ClassVar, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.mergeable import Algebra, seal, unseal
from state.two_stacks import TwoStacks


class Word:
    """Text that grows at its end; counts merges."""

    algebra: ClassVar[Algebra] = Algebra.ORDERED_MONOID
    merges = 0

    def __init__(self, text: str = "") -> None:
        self.text = text

    def merge(self, other: Self) -> None:
        type(self).merges += 1
        self.text += other.text

    def to_bytes(self) -> bytes:
        return seal("word", 1, self.text.encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(unseal("word", data, versions={1})[1].decode())


class Real(Word):
    """A sum of floats, whose last bit tells the order of additions."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def merge(self, other: Self) -> None:
        self.value += other.value

    def to_bytes(self) -> bytes:
        return seal("real", 1, struct.pack("<d", self.value))


@given(
    st.sets(st.integers(0, 40)),
    st.integers(1, 12),
    st.lists(st.integers(1, 15), max_size=12),
    st.data(),
)
def test_every_query_is_the_merge_of_its_panes_in_order(
    present: set[int], width: int, steps: list[int], data: st.DataObject
) -> None:
    panes = {pane: Word(f"{pane},") for pane in present}
    stacks, low = TwoStacks(Word), 0
    for step in [0, *steps]:
        low += step
        expected = "".join(panes[p].text for p in range(low, low + width) if p in panes)
        assert stacks.query(low, low + width, panes).text == expected
        pane = data.draw(st.integers(low, low + 2 * width))
        panes.setdefault(pane, Word()).merge(Word("late,"))
        stacks.touched(pane)


def test_results_share_nothing_with_the_panes() -> None:
    panes = {0: Word("a"), 1: Word("b")}
    stacks = TwoStacks(Word)
    stacks.query(0, 2, panes).text += "!"
    assert stacks.query(0, 2, panes).text == "ab"
    assert panes[0].text == "a"


@pytest.mark.parametrize("width", [10, 1000])
def test_merges_per_window_do_not_grow_with_its_panes(width: int) -> None:
    panes = {pane: Word("x") for pane in range(5 * width)}
    stacks, Word.merges = TwoStacks(Word), 0
    for low in range(4 * width):
        stacks.query(low, low + width, panes)
    assert Word.merges <= 5 * 4 * width + 2 * width


def test_resuming_from_the_split_gives_the_same_bits() -> None:
    panes = {pane: Real(0.1 * 3**pane) for pane in range(40)}
    whole = TwoStacks(Real)
    for low in range(30):
        expected = whole.query(low, low + 10, panes).value
        resumed = TwoStacks(Real, whole.split)
        live = {pane: state for pane, state in panes.items() if pane >= low}
        assert resumed.query(low, low + 10, live).value == expected
