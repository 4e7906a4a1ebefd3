"""Who a member is to others, and what it keeps to itself.

Both have a JSON form. The private one holds secrets: its file is for its owner alone (mode 0600).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import msgspec

from state.identity import ed25519
from state.identity.keys import AgreementKey, SigningKey, prefixed, valid_agreement

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")

_Hex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class IdentityError(ValueError):
    """A name, a key or a roster cannot be used; the message says which and why, never a secret."""


class PublicEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON form of a `PublicIdentity`."""

    name: str
    verify_key: _Hex
    agreement_key: _Hex


class _PrivateEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["identity"]
    version: Literal[1]
    name: str
    signing_key: _Hex
    agreement_key: _Hex


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """A name and the two public keys that belong to it.

    Raises:
        IdentityError: the name is no name, or a key is of small order, not canonical, or no key.
    """

    name: str
    """1-253 of a-z, 0-9, "-", "_" and ".", the first and last a letter or digit."""
    verify_key: bytes
    """(32,) Ed25519."""
    agreement_key: bytes
    """(32,) X25519."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise IdentityError(
                f"{self.name[:300]!r} cannot name a member: lower-case letters, digits, '-', '_' "
                "and '.', a letter or digit first and last"
            )
        if not ed25519.valid_public(self.verify_key):
            raise IdentityError(
                f"{self.name}: {self.verify_key.hex()[:80]} is no Ed25519 key of prime order"
            )
        if not valid_agreement(self.agreement_key):
            raise IdentityError(
                f"{self.name}: {self.agreement_key.hex()[:80]} is no X25519 key to agree with"
            )

    def to_bytes(self) -> bytes:
        """Return canonical bytes: u32 length of the name, the name, the two keys."""
        return prefixed(self.name.encode()) + self.verify_key + self.agreement_key

    def to_entry(self) -> PublicEntry:
        """Return the JSON form as an object."""
        return PublicEntry(self.name, self.verify_key.hex(), self.agreement_key.hex())

    @classmethod
    def from_entry(cls, entry: PublicEntry) -> Self:
        """Return the identity of a JSON object.

        Raises:
            IdentityError: as the class does.
        """
        return cls(entry.name, bytes.fromhex(entry.verify_key), bytes.fromhex(entry.agreement_key))


@dataclass(frozen=True, slots=True)
class PrivateIdentity:
    """A member's own identity: its name and its two private keys, which never show themselves.

    >>> alice = PrivateIdentity.generate("alice", bytes(32))
    >>> alice
    PrivateIdentity(name='alice')
    >>> bob = PrivateIdentity.generate("bob", bytes([1] * 32))
    >>> alice.shared_key(bob.public, b"demo") == bob.shared_key(alice.public, b"demo")
    True
    """

    name: str
    signing_key: SigningKey = field(repr=False)
    agreement_key: AgreementKey = field(repr=False)
    public: PublicIdentity = field(init=False, repr=False)
    """What others may know."""

    def __post_init__(self) -> None:
        public = PublicIdentity(self.name, self.signing_key.public, self.agreement_key.public)
        object.__setattr__(self, "public", public)

    @classmethod
    def generate(cls, name: str, seed: bytes) -> Self:
        """Derive both keys from ``seed``, which must be unpredictable: ``os.urandom(32)``.

        Raises:
            IdentityError: ``name`` is no name.
            ValueError: ``seed`` has not 32 bytes.
        """
        return cls(name, SigningKey.generate(seed), AgreementKey.generate(seed))

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Return the (64,) signature of ``message`` in ``domain``."""
        return self.signing_key.sign(domain, message)

    def shared_key(self, other: PublicIdentity, context: bytes) -> bytes:
        """Return the (32,) key for :func:`mac` that only this identity and ``other`` can make.

        Static-static X25519, then keyed BLAKE2b over ``context`` and both identities, the smaller
        first, so that both get the same. ``context`` says what the key is for: give it the cluster
        and epoch with `Roster.context`. One key serves both directions, so a message names its
        sender. Who steals either private key can make it, also for messages of the past.
        """
        mine = self.public.to_bytes()
        theirs = other.to_bytes()
        data = b"".join((prefixed(context), *sorted((prefixed(mine), prefixed(theirs)))))
        return hashlib.blake2b(
            data,
            digest_size=32,
            key=self.agreement_key.agree(other.agreement_key),
            person=b"brdf-shared-mac",
        ).digest()

    def to_json(self) -> str:
        """Return the private file's text, which holds the secrets."""
        entry = _PrivateEntry(
            kind="identity",
            version=1,
            name=self.name,
            signing_key=self.signing_key.to_bytes().hex(),
            agreement_key=self.agreement_key.to_bytes().hex(),
        )
        return msgspec.json.format(msgspec.json.encode(entry), indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "identity") -> Self:
        """Return the identity of a private file's text.

        Args:
            text: what `to_json` gave.
            where: the file's name, for errors, which do not quote the text.

        Raises:
            IdentityError: the text is malformed.
        """
        try:
            entry = msgspec.json.decode(text, type=_PrivateEntry)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            # The parser's words may quote the file.
            raise IdentityError(f"{where} is not a private identity, or damaged") from None
        try:
            return cls(
                entry.name,
                SigningKey.from_bytes(bytes.fromhex(entry.signing_key)),
                AgreementKey.from_bytes(bytes.fromhex(entry.agreement_key)),
            )
        except IdentityError as error:
            raise IdentityError(f"{where}: {error}") from None
