"""Plain values: against the vectors of RFC 8949 and against cbor2."""

from __future__ import annotations

import enum
import math
import tracemalloc
from collections import OrderedDict
from typing import NamedTuple

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.crdt.values import decode, decode_key, encode, encode_key

# RFC 8949, appendix A: those of its examples that are plain values in their deterministic form.
VECTORS = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("1903e8", 1000),
    ("1a000f4240", 1000000),
    ("1b000000e8d4a51000", 1000000000000),
    ("1bffffffffffffffff", 18446744073709551615),
    ("c249010000000000000000", 18446744073709551616),
    ("3bffffffffffffffff", -18446744073709551616),
    ("c349010000000000000000", -18446744073709551617),
    ("20", -1),
    ("3903e7", -1000),
    ("f90000", 0.0),
    ("f98000", -0.0),
    ("f93c00", 1.0),
    ("fb3ff199999999999a", 1.1),
    ("f97bff", 65504.0),
    ("fa47c35000", 100000.0),
    ("fa7f7fffff", 3.4028234663852886e38),
    ("fb7e37e43c8800759c", 1.0e300),
    ("f90001", 5.960464477539063e-8),
    ("f90400", 0.00006103515625),
    ("f9c400", -4.0),
    ("fbc010666666666666", -4.1),
    ("f97c00", math.inf),
    ("f97e00", math.nan),
    ("f9fc00", -math.inf),
    ("f4", False),
    ("f5", True),
    ("f6", None),
    ("40", b""),
    ("4401020304", b"\1\2\3\4"),
    ("60", ""),
    ("62225c", '"\\'),
    ("62c3bc", "ü"),
    ("63e6b0b4", "水"),
    ("64f0908591", "\U00010151"),
    ("80", []),
    ("8301820203820405", [1, [2, 3], [4, 5]]),
    ("98190102030405060708090a0b0c0d0e0f101112131415161718181819", list(range(1, 26))),
    ("a0", {}),
    ("a26161016162820203", {"a": 1, "b": [2, 3]}),
    ("826161a161626163", ["a", {"b": "c"}]),
]
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30) | st.binary()
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=30), inner),
    max_leaves=12,
)


@pytest.mark.parametrize(("data", "value"), VECTORS)
def test_vectors_of_the_rfc(data, value):
    assert encode(value).hex() == data
    again = decode(bytes.fromhex(data))
    assert repr(again) == repr(value)


@given(plain)
def test_bytes_are_those_of_cbor2(value):
    data = encode(value)
    assert data == cbor2.dumps(value, canonical=True)
    assert repr(cbor2.loads(data)) == repr(decode(data))
    assert encode(decode(data)) == data


@given(st.binary(max_size=24))
@settings(max_examples=400)
def test_what_decodes_is_canonical(data):
    try:
        value = decode(data)
    except ValueError:
        return
    assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        "",
        "1817",
        "190017",
        "1a0000ffff",
        "1b00000000ffffffff",
        "c24101",
        "c2490001000000000000000000",
        "c24a00010000000000000000",
        "c101",
        "fa3f800000",
        "fb3ff0000000000000",
        "f97e01",
        "f818",
        "f7",
        "5f4101ff",
        "9fff",
        "ff",
        "61ff",
        "a20161f5",
        "a2616201616102",
        "a2616101616102",
        "a10102",
        "0000",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "5bffffffffffffffff00",
        "81" * 33 + "00",
        "81" * 100_000 + "00",
    ],
)
def test_all_else_is_refused(data):
    with pytest.raises(ValueError):
        decode(bytes.fromhex(data))


def test_depth_is_bounded_both_ways():
    value = []
    for _ in range(31):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(ValueError, match="too deep"):
        encode([value])


@pytest.mark.parametrize("value", [{1: 2}, {1, 2}, object(), "\ud800", 1j, {"a": {1}}])
def test_other_values_are_refused(value):
    with pytest.raises(ValueError):
        encode(value)


def test_keys_are_hashable():
    assert decode_key(encode_key(("a", (1, None)))) == ("a", (1, None))
    assert len({encode_key(1), encode_key(1.0), encode_key(True)}) == 3
    for bad in ([1], ("a", [1]), {"a": 1}):
        with pytest.raises(ValueError):
            encode_key(bad)
    with pytest.raises(ValueError):
        decode_key(encode([{"a": 1}]))


def test_announced_counts_take_no_memory():
    data = b"\x9a\x7f\xff\xff\xff" * 1000
    tracemalloc.start()
    with pytest.raises(ValueError):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_values_of_derived_classes_are_written_as_plain_ones():
    class Level(enum.IntEnum):
        HIGH = 300

    class Name(enum.StrEnum):
        ANN = "ann"

    class Row(NamedTuple):
        a: int
        b: bytes

    class Real(float):
        pass

    derived = [Level.HIGH, Name.ANN, Row(1, b"x"), Real(1.5), OrderedDict(b=None, a=True)]
    assert encode(derived) == encode([300, "ann", [1, b"x"], 1.5, {"a": True, "b": None}])
    with pytest.raises(ValueError, match="a set is not a plain value"):
        encode([set()])
    with pytest.raises(ValueError, match="a bytearray is not a plain value"):
        encode(bytearray())
