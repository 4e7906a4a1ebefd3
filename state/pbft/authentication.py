"""Who said it: signatures that anyone can check, and MACs between two.

A bundle from a to b is its bytes and a MAC under a key that only these two have, one for each
direction. It proves the sender to the receiver whatever the transport does, at 2 microseconds; it
proves nothing to a third party. What must be proved to others is signed.
"""

from __future__ import annotations

from typing import Protocol

from state.pbft.messages import AnyMessage, MessageError, Signed, decode, encode, signed_part

MAC_BYTES = 16


class Authenticator(Protocol):
    """The keys of one peer, and what it knows of the others'."""

    name: str

    def sign(self, part: bytes) -> bytes:
        """Return this peer's signature on bytes, bound to the cluster."""

    def valid(self, signer: str, part: bytes, signature: bytes) -> bool:
        """Return whether a signature is `signer`'s on these bytes; False if it is unknown."""

    def mac(self, to: str, data: bytes) -> bytes:
        """Return the MAC of what this peer says to another.

        Raises:
            KeyError: it is unknown.
        """

    def mac_valid(self, sender: str, data: bytes, mac: bytes) -> bool:
        """Return whether a MAC is that of what `sender` says to this peer."""


def close(keys: Authenticator, to: str, messages: list[AnyMessage]) -> bytes:
    """Return the bytes of a bundle for a peer."""
    data = encode(messages)
    return keys.mac(to, data) + data


def open_bundle(keys: Authenticator, sender: str, bundle: bytes) -> list[AnyMessage]:
    """Return the messages of a bundle.

    Raises:
        MessageError: it is not from `sender` to this peer, or no bundle.
    """
    data = bundle[MAC_BYTES:]
    if not keys.mac_valid(sender, data, bundle[:MAC_BYTES]):
        raise MessageError("the MAC is wrong")
    return decode(data)


def sign(keys: Authenticator, message: Signed) -> bytes:
    """Return the signature of a message, whose own field for it does not matter."""
    return keys.sign(signed_part(message, keys.name))


def valid(keys: Authenticator, signer: str, message: Signed) -> bool:
    """Return whether `signer` has signed a message."""
    return keys.valid(signer, signed_part(message, signer), message.signature)
