"""Keys for simulations: quick, and as unforgeable as real ones inside one process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from state.pbft.authentication import MAC_BYTES


class SimulatedKeys:
    """Keyed BLAKE2b in the place of signatures and MACs: an `Authenticator` for a simulation.

    Each name has a secret that only its own :meth:`sign` and :meth:`mac` use. Whoever verifies has
    to know it too, so this is worth nothing between processes; inside one it takes 2 microseconds
    where Ed25519 takes 100, and behaves the same.

    >>> keys = SimulatedKeys.of(["a", "b"], seed=1)
    >>> keys["b"].valid("a", b"said", keys["a"].sign(b"said"))
    True
    >>> keys["b"].valid("a", b"said", keys["b"].sign(b"said"))
    False
    """

    def __init__(self, name: str, secrets: dict[str, bytes]) -> None:
        self.name = name
        self._secrets = secrets
        self._signers: dict[str, hashlib.blake2b] = {}
        self._keyed: dict[tuple[str, str], hashlib.blake2b] = {}

    @classmethod
    def of(cls, names: Iterable[str], seed: int) -> dict[str, SimulatedKeys]:
        """Return the keys of each of `names`."""
        secrets = {
            name: hashlib.blake2b(f"{seed} {name}".encode(), digest_size=32).digest()
            for name in names
        }
        return {name: cls(name, secrets) for name in secrets}

    def sign(self, part: bytes) -> bytes:
        """Return this peer's signature on bytes."""
        return self._signature(self.name, part)

    def valid(self, signer: str, part: bytes, signature: bytes) -> bool:
        """Return whether a signature is `signer`'s on these bytes; False if it is unknown."""
        return signer in self._secrets and self._signature(signer, part) == signature

    def mac(self, to: str, data: bytes) -> bytes:
        """Return the MAC of what this peer says to another.

        Raises:
            KeyError: it is unknown.
        """
        return self._mac(self.name, to, data)

    def mac_valid(self, sender: str, data: bytes, mac: bytes) -> bool:
        """Return whether a MAC is that of what `sender` says to this peer."""
        return sender in self._secrets and self._mac(sender, self.name, data) == mac

    def _signature(self, name: str, part: bytes) -> bytes:
        keyed = self._signers.get(name)
        if keyed is None:
            keyed = hashlib.blake2b(key=self._secrets[name], digest_size=64)
            self._signers[name] = keyed
        keyed = keyed.copy()
        keyed.update(part)
        return keyed.digest()

    def _mac(self, sender: str, receiver: str, data: bytes) -> bytes:
        keyed = self._keyed.get((sender, receiver))
        if keyed is None:
            if receiver not in self._secrets:
                raise KeyError(receiver)
            key = hashlib.blake2b(receiver.encode(), key=self._secrets[sender]).digest()
            keyed = hashlib.blake2b(key=key, digest_size=MAC_BYTES)
            self._keyed[sender, receiver] = keyed
        keyed = keyed.copy()
        keyed.update(data)
        return keyed.digest()
