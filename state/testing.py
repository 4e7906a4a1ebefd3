"""The laws of :mod:`state.mergeable` as one property-based suite for any state.

A state joins with one line in a test module (Hypothesis and pytest must be installed)::

    TestTotals = laws(empty=Totals, update=Totals.add, chunks=st.lists(st.integers()))

Each *chunk* is whatever ``update`` folds in: a batch, an array, a list of operations. The suite
draws lists of chunks, builds states from them, and checks the laws that the state's ``algebra``
claims, that merging never changes its argument, and that damaged bytes raise ``ValueError``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.mergeable import Mergeable

S = TypeVar("S", bound=Mergeable)
C = TypeVar("C")


def same_bytes(a: Mergeable, b: Mergeable) -> bool:
    """Compare two states by their canonical bytes: the default and strictest equality."""
    return a.to_bytes() == b.to_bytes()


def laws(
    *,
    empty: Callable[[], S],
    update: Callable[[S, C], None],
    chunks: st.SearchStrategy[C],
    same: Callable[[S, S], bool] = same_bytes,
    max_examples: int = 60,
) -> type:
    """Return a pytest class that holds a state to the laws it claims.

    Args:
        empty: makes the identity element.
        update: folds one chunk into a state, in place.
        chunks: draws one chunk; empty chunks should be among them.
        same: equality of two states. States of floating-point sums pass a comparison with the
            tolerance they document; all others should keep the default.
        max_examples: Hypothesis examples per law.
    """
    kind = type(empty())
    algebra = kind.algebra
    lists = st.lists(chunks, max_size=4)
    law = settings(
        max_examples=max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )

    def build(parts: Sequence[C]) -> S:
        state = empty()
        for part in parts:
            update(state, part)
        return state

    def plus(a: S, b: S) -> S:
        # A copy through bytes: merging must work on what came over a wire.
        total = kind.from_bytes(a.to_bytes())
        total.merge(b)
        return total

    class Laws:
        @law
        @given(lists)
        def test_identity(self, xs: list[C]) -> None:
            a = build(xs)
            assert same(plus(empty(), a), a)
            assert same(plus(a, empty()), a)

        @law
        @given(lists, lists, lists)
        def test_associativity(self, xs: list[C], ys: list[C], zs: list[C]) -> None:
            a, b, c = build(xs), build(ys), build(zs)
            assert same(plus(plus(a, b), c), plus(a, plus(b, c)))

        @pytest.mark.skipif(not algebra.commutative, reason="an ordered monoid")
        @law
        @given(lists, lists)
        def test_commutativity(self, xs: list[C], ys: list[C]) -> None:
            a, b = build(xs), build(ys)
            assert same(plus(a, b), plus(b, a))

        @pytest.mark.skipif(not algebra.idempotent, reason="not a semilattice")
        @law
        @given(lists)
        def test_idempotence(self, xs: list[C]) -> None:
            a = build(xs)
            assert same(plus(a, a), a)

        @law
        @given(st.lists(chunks, max_size=8), st.data())
        def test_any_split_equals_one_pass(self, xs: list[C], data: st.DataObject) -> None:
            cuts = data.draw(st.lists(st.integers(0, len(xs)), max_size=4).map(sorted))
            edges = [0, *cuts, len(xs)]
            parts = [build(xs[i:j]) for i, j in itertools.pairwise(edges)]
            if algebra.commutative:
                parts = data.draw(st.permutations(parts))
            total = empty()
            for part in parts:
                total.merge(part)
            assert same(total, build(xs))

        @law
        @given(lists, lists)
        def test_merge_leaves_its_argument_alone(self, xs: list[C], ys: list[C]) -> None:
            a, b = build(xs), build(ys)
            before = b.to_bytes()
            a.merge(b)
            for y in ys:
                update(a, copy.deepcopy(y))
            assert b.to_bytes() == before

        @law
        @given(lists)
        def test_bytes_round_trip(self, xs: list[C]) -> None:
            a = build(xs)
            data = a.to_bytes()
            again = kind.from_bytes(data)
            assert same(again, a)
            assert again.to_bytes() == data

        @law
        @given(lists, st.data())
        def test_damaged_bytes_raise_value_error(self, xs: list[C], data: st.DataObject) -> None:
            good = build(xs).to_bytes()
            cut = data.draw(st.integers(0, len(good) - 1))
            at = data.draw(st.integers(0, len(good) - 1))
            flip = data.draw(st.integers(1, 255))
            noise = data.draw(st.binary(max_size=64))
            flipped = good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
            for bad in (good[:cut], flipped, good + b"\0", noise):
                with pytest.raises(ValueError):
                    kind.from_bytes(bad)

    Laws.__name__ = Laws.__qualname__ = f"Test{kind.__name__}Laws"
    return Laws
