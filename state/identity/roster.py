"""The members of a cluster in one epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import msgspec

from state.identity import keys
from state.identity.identities import IdentityError, PublicEntry, PublicIdentity
from state.thresholds import max_faults

MAX_MEMBERS = 1024
MAX_EPOCH = (1 << 63) - 1

_MAGIC = b"braidflow roster 1\0"


class _RosterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["roster"]
    version: Literal[1]
    cluster: str
    epoch: int
    members: Annotated[list[PublicEntry], msgspec.Meta(max_length=MAX_MEMBERS)]


@dataclass(frozen=True, slots=True)
class Roster:
    """Who belongs to a cluster in an epoch, in an order that means something.

    The place of a member is its index (in consensus: the replica's number), so rosters that differ
    in order differ, and so do their digests.

    >>> from state.identity import PrivateIdentity
    >>> members = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)).public for i in range(4)]
    >>> roster = Roster("demo", 1, tuple(members))
    >>> roster.index("n2"), roster.max_faults, roster.get("mallory")
    (2, 1, None)

    Raises:
        IdentityError: the cluster has no name, the epoch is out of range, there are no members or
            more than 1024, or two have the same name or a key in common.
    """

    cluster: str
    epoch: int
    members: tuple[PublicIdentity, ...]
    digest: bytes = field(init=False, repr=False, compare=False)
    """(32,) BLAKE2b-256 of `to_bytes`."""
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.cluster.isprintable() or not 1 <= len(self.cluster.encode()) <= 255:
            raise IdentityError(f"{self.cluster[:300]!r} cannot name a cluster: 1 to 255 bytes")
        if not 0 <= self.epoch <= MAX_EPOCH:
            raise IdentityError(f"{self.cluster}: epoch {self.epoch} is not in 0 to 2**63 - 1")
        where = f"{self.cluster}, epoch {self.epoch}"
        if not 1 <= len(self.members) <= MAX_MEMBERS:
            raise IdentityError(f"{where}: {len(self.members)} members: 1 to {MAX_MEMBERS}")
        owners: dict[bytes, str] = {}
        index: dict[str, int] = {}
        for i, member in enumerate(self.members):
            if index.setdefault(member.name, i) != i:
                raise IdentityError(f"{where}: two members are called {member.name}")
            for key in (b"v" + member.verify_key, b"a" + member.agreement_key):
                if owner := owners.get(key):
                    raise IdentityError(f"{where}: {owner} and {member.name} have the same key")
                owners[key] = member.name
        object.__setattr__(self, "_index", index)
        digest = hashlib.blake2b(self.to_bytes(), digest_size=32).digest()
        object.__setattr__(self, "digest", digest)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in order."""
        return tuple(self._index)

    @property
    def max_faults(self) -> int:
        """How many faulty members a group of this size can bear."""
        return max_faults(len(self.members))

    def get(self, name: str) -> PublicIdentity | None:
        """Return the member of that name, if any."""
        place = self._index.get(name)
        return None if place is None else self.members[place]

    def index(self, name: str) -> int:
        """Return the place of a member, from 0.

        Raises:
            KeyError: nobody is called so.
        """
        return self._index[name]

    def verify(self, name: str, domain: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether ``signature`` is that of the member ``name``; False if there is none."""
        member = self.get(name)
        return member is not None and keys.verify(member.verify_key, domain, message, signature)

    def context(self, purpose: bytes) -> bytes:
        """Return bytes that name this roster and a purpose, for `PrivateIdentity.shared_key`.

        They differ whenever cluster, epoch, any member or the purpose differ.
        """
        return keys.prefixed(purpose) + self.digest

    def to_bytes(self) -> bytes:
        """Return canonical bytes: what members sign when they approve the roster."""
        parts = [_MAGIC, keys.prefixed(self.cluster.encode()), self.epoch.to_bytes(8, "little")]
        parts.append(len(self.members).to_bytes(4, "little"))
        parts += [member.to_bytes() for member in self.members]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the roster of canonical bytes.

        Raises:
            IdentityError: ``data`` is malformed or its roster cannot be.
        """
        parts = _Parts(data)
        try:
            if parts.take(len(_MAGIC)) != _MAGIC:
                raise IdentityError("not the bytes of a roster")
            cluster, epoch = parts.prefixed().decode(), parts.number(8)
            count = parts.number(4)
            if count > MAX_MEMBERS:
                raise IdentityError(f"{count} members: at most {MAX_MEMBERS}")
            members = tuple(
                PublicIdentity(parts.prefixed().decode(), parts.take(32), parts.take(32))
                for _ in range(count)
            )
        except UnicodeDecodeError:
            raise IdentityError("a name in a roster is not UTF-8") from None
        if parts.rest:
            raise IdentityError(f"{parts.rest} bytes follow a roster")
        return cls(cluster, epoch, members)

    def to_json(self) -> str:
        """Return the roster file's text; it holds no secrets."""
        file = _RosterFile(
            kind="roster",
            version=1,
            cluster=self.cluster,
            epoch=self.epoch,
            members=[member.to_entry() for member in self.members],
        )
        return msgspec.json.format(msgspec.json.encode(file), indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "roster") -> Self:
        """Return the roster of a file's text.

        Args:
            text: what `to_json` gave, or a person wrote.
            where: the file's name, for errors.

        Raises:
            IdentityError: the text is malformed or its roster cannot be; it names the place.
        """
        try:
            file = msgspec.json.decode(text, type=_RosterFile)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise IdentityError(f"{where} is not a roster: {error}") from None
        try:
            members = tuple(PublicIdentity.from_entry(entry) for entry in file.members)
            return cls(file.cluster, file.epoch, members)
        except IdentityError as error:
            raise IdentityError(f"{where}: {error}") from None


class _Parts:
    """Bytes that are taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def rest(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.rest:
            raise IdentityError("the bytes of a roster are truncated")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def prefixed(self) -> bytes:
        return self.take(self.number(4))
