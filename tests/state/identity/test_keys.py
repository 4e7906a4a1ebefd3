"""Domains, agreement and codes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from state.identity import AgreementKey, SigningKey, mac, mac_valid, verify
from state.identity.keys import valid_agreement

seeds = st.binary(min_size=32, max_size=32)
domains = st.binary(min_size=1, max_size=255)
key = SigningKey.generate(bytes(32))


@given(domain=domains, message=st.binary(), other=domains, another=st.binary())
def test_a_signature_is_worth_nothing_in_another_domain(
    domain: bytes, message: bytes, other: bytes, another: bytes
) -> None:
    signature = key.sign(domain, message)
    assert verify(key.public, domain, message, signature)
    same = (domain, message) == (other, another)
    assert verify(key.public, other, another, signature) == same


@pytest.mark.parametrize("shift", range(1, 4))
def test_bytes_do_not_move_between_domain_and_message(shift: int) -> None:
    signature = key.sign(b"abcd", b"efgh")
    whole = b"abcdefgh"
    assert not verify(key.public, whole[: 4 + shift], whole[4 + shift :], signature)
    assert not verify(key.public, whole[: 4 - shift], whole[4 - shift :], signature)


@pytest.mark.parametrize("domain", [b"", bytes(256)])
def test_a_domain_has_1_to_255_bytes(domain: bytes) -> None:
    with pytest.raises(ValueError, match="a domain of"):
        key.sign(domain, b"")
    with pytest.raises(ValueError, match="a domain of"):
        verify(key.public, domain, b"", bytes(64))


@given(seed=seeds)
def test_keys_come_back_from_their_bytes_and_do_not_show_them(seed: bytes) -> None:
    for kind in (SigningKey, AgreementKey):
        made = kind.generate(seed)
        again = kind.from_bytes(made.to_bytes())
        assert again == made
        assert again.to_bytes() == made.to_bytes()
        assert made.to_bytes() != seed
        for text in (repr(made), str(made), f"{made}"):
            assert made.to_bytes().hex() not in text
            assert repr(made.to_bytes())[2:-1] not in text
    assert SigningKey.generate(seed).to_bytes() != AgreementKey.generate(seed).to_bytes()


@pytest.mark.parametrize("kind", [SigningKey, AgreementKey])
@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_secrets_have_32_bytes(kind: type[SigningKey] | type[AgreementKey], length: int) -> None:
    with pytest.raises(ValueError, match=f"of {length} bytes"):
        kind.generate(bytes(length))
    with pytest.raises(ValueError, match=f"of {length} bytes"):
        kind.from_bytes(bytes(length))


@settings(max_examples=30)
@given(one=seeds, two=seeds)
def test_agreement_is_that_of_openssl(one: bytes, two: bytes) -> None:
    a, b = AgreementKey.generate(one), AgreementKey.generate(two)
    other = X25519PrivateKey.from_private_bytes(a.to_bytes())
    expected = other.exchange(X25519PublicKey.from_public_bytes(b.public))
    assert a.agree(b.public) == b.agree(a.public) == expected


def test_agreement_keys_of_small_order_or_not_canonical_are_refused() -> None:
    p = 2**255 - 19
    # The points of order 1, 2, 4 and 8 of the curve and its twist (https://cr.yp.to/ecdh.html).
    small = [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        p - 1,
    ]
    for u in small:
        for encoded in (u, u + p, u | 1 << 255):
            if encoded < 2**256:
                assert not valid_agreement(encoded.to_bytes(32, "little"))
                with pytest.raises(ValueError, match="no X25519 key"):
                    AgreementKey.generate(bytes(32)).agree(encoded.to_bytes(32, "little"))
    good = AgreementKey.generate(bytes(32)).public
    assert valid_agreement(good)
    assert not valid_agreement(bytes([*good[:31], good[31] | 0x80]))
    assert not valid_agreement(good + b"\0")
    assert not valid_agreement(b"")


def test_codes() -> None:
    # RFC 7693's function with a key, 16 bytes long; from libsodium by another way.
    from nacl.bindings import crypto_generichash_blake2b_salt_personal as blake2b

    secret = bytes(range(32))
    code = mac(secret, b"message")
    assert code == blake2b(b"message", digest_size=16, key=secret)
    assert mac_valid(secret, b"message", code)
    for bad in (b"", code[:15], code + b"\0", bytes(16)):
        assert not mac_valid(secret, b"message", bad)
    assert not mac_valid(secret, b"massage", code)
    assert not mac_valid(bytes(32), b"message", code)
