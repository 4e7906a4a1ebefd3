"""Ed25519 by the strict rule: a signature is valid for everybody or for nobody.

RFC 8032 leaves room: implementations differ about keys of small order, encodings that are not the
shortest, and points with a small-order part, so that two honest verifiers may disagree about a
signature that its maker crafted. Where a group decides by counting signatures that is a fork.
Accepted is (A the key, R and S the signature, h = SHA-512(R, A, message)) only where

    A    is encoded canonically, is on the curve and in the subgroup of prime order, not 0
    R    is encoded canonically and is not of small order
    S    is below the order of the group
    and  S B = R + h A  without a cofactor

It follows that R is in the subgroup too, and that with and without a cofactor are the same. No
other signature can be made from a valid one without the key. (ZIP 215 is the opposite choice that
is consistent as well: accept all of it, with the cofactor.)

libsodium (here through PyNaCl) checks all but one of these: it takes keys with a small-order part
besides that of prime order. `valid_public` refuses those; its answers are kept, for keys are few.

Sources: RFC 8032, 5.1.7; Chalkias, Garillot and Nikolaenko, "Taming the many EdDSAs" (2020).
"""

from __future__ import annotations

import functools

from nacl import bindings
from nacl.exceptions import CryptoError

SECRET_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


def expand(secret: bytes) -> tuple[bytes, bytes]:
    """Return the public key of an RFC 8032 private key, and what :func:`sign` takes.

    Raises:
        ValueError: ``secret`` has not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a private key of {len(secret)} bytes: an Ed25519 key has 32")
    public, expanded = bindings.crypto_sign_seed_keypair(secret)
    return bytes(public), bytes(expanded)


def sign(expanded: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature of ``message``, which depends on nothing else but the key."""
    signed = bindings.crypto_sign(message, expanded)
    return bytes(signed[:SIGNATURE_BYTES])


@functools.lru_cache(maxsize=4096)
def valid_public(public: bytes) -> bool:
    """Return whether ``public`` encodes, canonically, a point of the prime-order subgroup."""
    return len(public) == PUBLIC_BYTES and bool(bindings.crypto_core_ed25519_is_valid_point(public))


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` is valid by the strict rule; bytes of any length are answered.

    About 0.1 ms.
    """
    if len(signature) != SIGNATURE_BYTES or not valid_public(public):
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except CryptoError:
        return False
    return True
