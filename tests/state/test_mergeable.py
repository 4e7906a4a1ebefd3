"""The envelope of all states, and what an algebra claims."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.mergeable import Algebra, Foldable, Mergeable, seal, unseal
from state.moments import LaggedMoments
from state.panel import Panel


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1))
def test_round_trip(payload: bytes, version: int) -> None:
    assert unseal("demo", seal("demo", version, payload), versions={version}) == (version, payload)


def test_the_layout_is_the_one_that_is_documented() -> None:
    sealed = seal("ab", 3, b"xyz")
    body = b"BRDF" + struct.pack("<BHQ", 2, 3, 3) + b"ab" + b"xyz"
    assert sealed == body + struct.pack("<I", zlib.crc32(body))


@given(st.binary(max_size=40), st.data())
def test_any_changed_byte_is_noticed(payload: bytes, data: st.DataObject) -> None:
    good = seal("demo", 1, payload)
    at = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    with pytest.raises(ValueError):
        unseal("demo", good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :], versions={1})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (b"x" * 40, "wrong first four bytes"),
        (seal("demo", 1, b"abc")[:-1], "truncated"),
        (seal("demo", 1, b"abc") + b"\0", "truncated or padded"),
        (seal("other", 1, b"abc"), "expected the bytes of a demo"),
        (seal("demo", 2, b"abc"), "format version 2 is not known"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unseal("demo", data, versions={1})


def test_a_claimed_length_costs_no_memory() -> None:
    huge = b"BRDF" + struct.pack("<BHQ", 4, 1, 2**63) + b"demo" + bytes(8)
    with pytest.raises(ValueError, match="truncated"):
        unseal("demo", huge, versions={1})


def test_algebras_say_what_they_claim() -> None:
    claims = {a: (a.ordered, a.commutative, a.idempotent) for a in Algebra}
    assert claims == {
        Algebra.ORDERED_MONOID: (True, False, False),
        Algebra.COMMUTATIVE_MONOID: (False, True, False),
        Algebra.SEMILATTICE: (False, True, True),
    }


def test_states_are_recognised_by_what_they_can_do() -> None:
    assert isinstance(LaggedMoments(1, 1), Mergeable)
    assert not isinstance(LaggedMoments(1, 1), Foldable)
    assert isinstance(Panel(1), Foldable)
