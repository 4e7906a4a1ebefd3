"""The strict rule, against published vectors and against plain integers."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from state.identity.ed25519 import expand, sign, valid_public, verify

HERE = Path(__file__).parent

# A slow Ed25519 in plain integers, to make what no honest signer makes and to judge it; formulas
# as in RFC 8032, section 5.1, in affine coordinates.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)  # noqa: E741

Point = tuple[int, int]
ZERO: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def times(k: int, a: Point) -> Point:
    total = ZERO
    while k:
        if k & 1:
            total = add(total, a)
        a = add(a, a)
        k >>= 1
    return total


def encode(a: Point) -> bytes:
    return (a[1] | (a[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes, *, canonical: bool = True) -> Point | None:
    """Return the point; None if there is none, or the encoding is another than `encode`'s."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P and canonical:
        return None
    y %= P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * I % P
    if x * x % P != square or (x == 0 and sign and canonical):
        return None
    return (P - x if x & 1 != sign else x) % P, y


_base = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert _base is not None
BASE: Point = _base


def small_order() -> list[Point]:
    """Return the eight points whose order divides 8: the multiples of one of order 8."""
    y = 2
    while True:
        if (a := decode(y.to_bytes(32, "little"))) and times(4, (t := times(L, a))) != ZERO:
            return [times(k, t) for k in range(8)]
        y += 1


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def strict(public: bytes, message: bytes, signature: bytes) -> bool:
    """Judge by the definition in `state.identity.ed25519`, written out."""
    if len(public) != 32 or len(signature) != 64:
        return False
    a, r = decode(public), decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or a == ZERO or times(L, a) != ZERO:
        return False
    if times(8, r) == ZERO:
        return False
    h = challenge(signature[:32], public, message)
    return times(s, BASE) == add(r, times(h, a))


def vectors(name: str) -> list[list[bytes]]:
    lines = (HERE / name).read_text().splitlines()
    rows = (line.split() for line in lines if line and not line.startswith("#"))
    return [[b"" if part == "-" else bytes.fromhex(part) for part in row] for row in rows]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), vectors("rfc8032.txt"))
def test_rfc_8032_section_7_1(
    secret: bytes, public: bytes, message: bytes, signature: bytes
) -> None:
    found, expanded = expand(secret)
    assert found == public
    assert sign(expanded, message) == signature
    assert verify(public, message, signature)
    assert strict(public, message, signature)


@pytest.mark.parametrize(("message", "public", "signature"), vectors("taming.txt"))
def test_taming_the_many_eddsas(message: bytes, public: bytes, signature: bytes) -> None:
    """Each is accepted by some of the libraries that the paper compares; by us, none."""
    assert not verify(public, message, signature)
    assert not strict(public, message, signature)


def test_the_one_that_libsodium_alone_would_accept() -> None:
    """Key and R have a small-order part, and the equation holds without a cofactor."""
    from nacl import bindings

    message, public, signature = vectors("taming.txt")[6]
    assert bindings.crypto_sign_open(signature + message, public) == message
    assert not valid_public(public)


@pytest.mark.parametrize(("public", "message", "signature"), vectors("wycheproof.txt"))
def test_wycheproof_valid(public: bytes, message: bytes, signature: bytes) -> None:
    assert verify(public, message, signature)
    assert not verify(public, message + b"\0", signature)


def test_wycheproof_special_values_of_r_and_s() -> None:
    public = vectors("wycheproof.txt")[0][0]
    limits = (0, 1, L - 1, L, L + 1, P - 1, P, 2**256 - 1)
    special = [value.to_bytes(32, "little") for value in limits]
    assert not any(verify(public, b"?", r + s) for r in special for s in special)


def test_a_signature_has_one_form() -> None:
    """Neither S + kL, nor another encoding of R, nor other lengths are taken."""
    rng = random.Random(8032)
    public, expanded = expand(rng.randbytes(32))
    good = sign(expanded, b"m")
    s = int.from_bytes(good[32:], "little")
    for k in range(1, 16):
        if s + k * L < 2**256:
            assert not verify(public, b"m", good[:32] + (s + k * L).to_bytes(32, "little"))
    for bad in (b"", good[:63], good + b"\0", good[:32], good[32:] + good[:32], bytes(64)):
        assert not verify(public, b"m", bad)
    for key in (b"", public[:31], public + b"\0"):
        assert not verify(key, b"m", good)


def test_every_encoding_of_a_small_order_point_is_no_key() -> None:
    points = small_order()
    assert len(set(points)) == 8
    encodings = {encode(point) for point in points}
    # Those that are not canonical: y + p where that fits, and the sign of x = 0.
    encodings |= {(y + P).to_bytes(32, "little") for _, y in points if y < 19}
    encodings |= {bytes([*e[:31], e[31] ^ 0x80]) for e in encodings}
    assert len(encodings) == 14  # as libsodium and the paper count them
    for encoding in encodings:
        assert decode(encoding, canonical=False) in points
        assert not valid_public(encoding)
        # With such a key, R = S = 0 would sign anything.
        assert not verify(encoding, b"m", encode(ZERO) + bytes(32))


scalars = st.integers(1, L - 1)


@settings(max_examples=25, deadline=None)
@given(a=scalars, r=scalars, ta=st.integers(0, 7), tr=st.integers(0, 7), message=st.binary())
def test_keys_and_points_with_a_small_order_part(
    a: int, r: int, ta: int, tr: int, message: bytes
) -> None:
    """What a signer can craft: A + Ta, R + Tr; with a cofactor all of these would hold."""
    small = small_order()
    public = encode(add(times(a, BASE), small[ta]))
    first = encode(add(times(r, BASE), small[tr]))
    s = (r + challenge(first, public, message) * a) % L
    signature = first + s.to_bytes(32, "little")
    assert valid_public(public) == (ta == 0)
    assert verify(public, message, signature) == (ta == tr == 0)
    assert strict(public, message, signature) == (ta == tr == 0)


@settings(max_examples=60, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), message=st.binary(), data=st.data())
def test_agrees_with_openssl_and_with_integers(
    secret: bytes, message: bytes, data: st.DataObject
) -> None:
    public, expanded = expand(secret)
    other = Ed25519PrivateKey.from_private_bytes(secret)
    assert other.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) == public
    signature = sign(expanded, message)
    assert other.sign(message) == signature
    assert verify(public, message, signature)
    at, bit = data.draw(st.integers(0, 63)), data.draw(st.integers(0, 7))
    flipped = bytearray(signature)
    flipped[at] ^= 1 << bit
    assert not verify(public, message, bytes(flipped))


@settings(max_examples=40, deadline=None)
@given(public=st.binary(min_size=32, max_size=32))
def test_valid_keys_are_those_of_the_subgroup(public: bytes) -> None:
    point = decode(public)
    expected = point is not None and point != ZERO
    assert valid_public(public) == (expected and times(L, point) == ZERO)


def test_a_private_key_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="a private key of 31 bytes"):
        expand(bytes(31))
