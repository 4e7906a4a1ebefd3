"""Keys: signing with domains, and keys that two parties share without having talked.

What is signed is never a bare message. A *domain* says what the message is for, so that a
signature under one meaning is worth nothing under another, and the signed bytes are

    "braidflow signature 1" 00, u8 length of the domain, the domain, the message

which is unambiguous: no domain and message read like another domain and message.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Self

from nacl import bindings

from state.identity import ed25519

MAC_BYTES = 16
MAX_DOMAIN = 255

_SIGNED = b"braidflow signature 1\0"
_FIELD_PRIME = 2**255 - 19


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key; it never shows itself.

    >>> key = SigningKey.generate(bytes(32))
    >>> signature = key.sign(b"greeting", b"hello")
    >>> verify(key.public, b"greeting", b"hello", signature)
    True
    >>> verify(key.public, b"farewell", b"hello", signature)
    False
    """

    public: bytes
    """(32,) what others verify with."""
    _expanded: bytes = field(repr=False, compare=False)

    @classmethod
    def generate(cls, seed: bytes) -> Self:
        """Derive a key from ``seed``, which must be unpredictable: ``os.urandom(32)``.

        Raises:
            ValueError: ``seed`` has not 32 bytes.
        """
        return cls.from_bytes(_derived(seed, b"brdf-signing"))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the key of an RFC 8032 private key, as `to_bytes` gives it.

        Raises:
            ValueError: ``secret`` has not 32 bytes.
        """
        return cls(*ed25519.expand(secret))

    def to_bytes(self) -> bytes:
        """Return the (32,) secret."""
        return self._expanded[: ed25519.SECRET_BYTES]

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Return the (64,) signature of ``message`` in ``domain``; the same each time.

        Raises:
            ValueError: ``domain`` is empty or has more than 255 bytes.
        """
        return ed25519.sign(self._expanded, _in_domain(domain, message))


def verify(public: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether ``signature`` is that of ``public``'s owner for ``message`` in ``domain``.

    The rule is strict (:mod:`state.identity.ed25519`): keys and signatures that are malleable, of
    small order or not canonical are not valid, nor is anything of a wrong length.

    Raises:
        ValueError: ``domain`` is empty or has more than 255 bytes.
    """
    return ed25519.verify(public, _in_domain(domain, message), signature)


@dataclass(frozen=True, slots=True)
class AgreementKey:
    """An X25519 private key; it never shows itself.

    Two owners compute the same secret each from its own key and the other's public one.
    """

    public: bytes
    """(32,) what others agree with."""
    _secret: bytes = field(repr=False, compare=False)

    @classmethod
    def generate(cls, seed: bytes) -> Self:
        """Derive a key from ``seed``, which must be unpredictable: ``os.urandom(32)``.

        Raises:
            ValueError: ``seed`` has not 32 bytes.
        """
        return cls.from_bytes(_derived(seed, b"brdf-agreement"))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the key of an RFC 7748 private key, as `to_bytes` gives it.

        Raises:
            ValueError: ``secret`` has not 32 bytes.
        """
        if len(secret) != 32:
            raise ValueError(f"a private key of {len(secret)} bytes: an X25519 key has 32")
        return cls(bytes(bindings.crypto_scalarmult_base(secret)), secret)

    def to_bytes(self) -> bytes:
        """Return the (32,) secret."""
        return self._secret

    def agree(self, public: bytes) -> bytes:
        """Return the (32,) secret shared with the owner of ``public``.

        It is no key yet: derive one, as `PrivateIdentity.shared_key` does.

        Raises:
            ValueError: ``public`` is not :func:`valid_agreement`.
        """
        if not valid_agreement(public):
            raise ValueError(f"{public.hex()} is no X25519 key to agree with")
        return bytes(bindings.crypto_scalarmult(self._secret, public))


@functools.lru_cache(maxsize=4096)
def valid_agreement(public: bytes) -> bool:
    """Return whether ``public`` is an X25519 public key, canonical and not of small order.

    A key of small order would make the shared secret 0 for everyone.
    """
    if len(public) != 32 or int.from_bytes(public, "little") >= _FIELD_PRIME:
        return False
    try:
        bindings.crypto_scalarmult(bytes(32), public)
    except RuntimeError:  # what PyNaCl makes of "the result is 0"
        return False
    return True


def mac(key: bytes, message: bytes) -> bytes:
    """Return the (16,) keyed BLAKE2b of ``message``: RFC 7693, 128 bits long.

    Both owners of ``key`` can make it, so it convinces them alone, and each of messages that name
    their sender only.
    """
    return hashlib.blake2b(message, digest_size=MAC_BYTES, key=key).digest()


def mac_valid(key: bytes, message: bytes, code: bytes) -> bool:
    """Return whether ``code`` is the :func:`mac` of ``message``, in a time that tells nothing."""
    return hmac.compare_digest(mac(key, message), code)


def prefixed(part: bytes) -> bytes:
    """Return ``part`` after its length as u32, so that parts in a row cannot be read otherwise."""
    return len(part).to_bytes(4, "little") + part


def _in_domain(domain: bytes, message: bytes) -> bytes:
    if not 1 <= len(domain) <= MAX_DOMAIN:
        raise ValueError(f"a domain of {len(domain)} bytes: 1 to {MAX_DOMAIN}")
    return b"".join((_SIGNED, bytes((len(domain),)), domain, message))


def _derived(seed: bytes, purpose: bytes) -> bytes:
    if len(seed) != 32:
        raise ValueError(f"a seed of {len(seed)} bytes: 32, and unpredictable")
    return hashlib.blake2b(seed, digest_size=32, person=purpose).digest()
