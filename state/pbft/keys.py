"""The keys of a real peer: an identity and a roster as an `Authenticator`.

Signatures are in a domain that holds the roster's digest, and MAC keys are derived from it, so
nothing that was said in another cluster or epoch, or to another set of members, counts here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from state.identity import IdentityError, PrivateIdentity, PublicIdentity, Roster, verify
from state.pbft.authentication import MAC_BYTES

_PURPOSE = b"pbft"


class Keys:
    """One peer's identity, and whose signatures and MACs it can check: an `Authenticator`.

    The members of the roster are the replicas. Clients may be members of it too, or be given
    apart, so that they can come and go without a new epoch.

    >>> ids = [PrivateIdentity.generate(name, bytes([i] * 32)) for i, name in enumerate("abc")]
    >>> roster = Roster("demo", 1, tuple(each.public for each in ids[:2]))
    >>> a, b, client = (Keys(each, roster, [ids[2].public]) for each in ids)
    >>> b.valid("a", b"said", a.sign(b"said")), a.mac_valid("b", b"said", b.mac("a", b"said"))
    (True, True)
    >>> a.mac_valid("b", b"said", a.mac("b", b"said"))  # its own words, sent back to it
    False

    Args:
        identity: The peer's own.
        roster: The replicas of the cluster in this epoch.
        clients: Others who may be talked to.

    Raises:
        IdentityError: a client has the name of a member with another key, or two have one name.
    """

    def __init__(
        self,
        identity: PrivateIdentity,
        roster: Roster,
        clients: Iterable[PublicIdentity] = (),
    ) -> None:
        self.name = identity.name
        self._identity = identity
        self._domain = _PURPOSE + roster.digest
        self._context = roster.context(_PURPOSE)
        self._known = {member.name: member for member in roster.members}
        for client in clients:
            if self._known.setdefault(client.name, client) != client:
                raise IdentityError(f"{roster.cluster}: {client.name} is the name of two")
        if self._known.get(self.name, identity.public) != identity.public:
            raise IdentityError(f"{roster.cluster}: {self.name} has another key in the roster")
        self._keyed: dict[tuple[str, str], hashlib.blake2b] = {}

    def sign(self, part: bytes) -> bytes:
        """Return this peer's signature on bytes, bound to the cluster, epoch and members."""
        return self._identity.sign(self._domain, part)

    def valid(self, signer: str, part: bytes, signature: bytes) -> bool:
        """Return whether a signature is `signer`'s on these bytes; False if it is unknown."""
        other = self._known.get(signer)
        return other is not None and verify(other.verify_key, self._domain, part, signature)

    def mac(self, to: str, data: bytes) -> bytes:
        """Return the MAC of what this peer says to another.

        Raises:
            KeyError: it is unknown.
        """
        keyed = self._direction(self.name, to).copy()
        keyed.update(data)
        return keyed.digest()

    def mac_valid(self, sender: str, data: bytes, mac: bytes) -> bool:
        """Return whether a MAC is that of what `sender` says to this peer."""
        if sender not in self._known:
            return False
        keyed = self._direction(sender, self.name).copy()
        keyed.update(data)
        return hmac.compare_digest(keyed.digest(), mac)

    def _direction(self, sender: str, receiver: str) -> hashlib.blake2b:
        keyed = self._keyed.get((sender, receiver))
        if keyed is None:
            other = self._known[receiver if sender == self.name else sender]
            shared = self._identity.shared_key(other, self._context)
            # One key for each direction: what a peer says cannot be sent back to it.
            key = hashlib.blake2b(sender.encode(), key=shared, digest_size=32).digest()
            keyed = hashlib.blake2b(key=key, digest_size=MAC_BYTES)
            self._keyed[sender, receiver] = keyed
        return keyed
