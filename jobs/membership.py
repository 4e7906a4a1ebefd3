"""Who a process is in a group of replicas: its keys, the roster, and its end of the mesh.

A member's directory of keys holds

- ``ca.crt`` and ``NAME.pem``: for the links (mutual TLS)
- ``NAME.identity.json``, ``roster.json`` and, where there are clients, ``clients.json``: see
  `jobs.identities`
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from connectors.mesh import QuicMesh
from connectors.quic import Identity, Limits
from connectors.quic.certificates import (
    authority_certificate,
    make_authority,
    make_node,
    node_file,
)
from jobs.identities import (
    clients_file,
    identity_file,
    make_roster,
    read_identity,
    read_roster,
    roster_file,
)
from state.identity import IdentityError
from state.pbft import Group
from state.pbft.keys import Keys


@dataclass(frozen=True, slots=True)
class Membership:
    """One member of a group, and whom it knows."""

    name: str
    group: Group
    keys: Keys
    clients: tuple[str, ...]
    """Who may submit requests."""
    tls: Identity

    @classmethod
    def load(
        cls, directory: Path, name: str, roster: Path | None = None, clients: Path | None = None
    ) -> Self:
        """Read a member's keys.

        Args:
            directory: Where they are.
            name: Whose.
            roster: The file of replicas, if it is elsewhere.
            clients: The file of clients, if it is elsewhere.

        Raises:
            ValueError: a file is malformed, or does not fit the others.
            OSError: one cannot be read.
        """
        tls = Identity.load(directory, name)
        path = identity_file(directory, name)
        identity = read_identity(path)
        if identity.name != name:
            raise IdentityError(f"{path}: the identity of {identity.name}, not of {name}")
        replicas = read_roster(roster or roster_file(directory))
        found = clients or clients_file(directory)
        others = read_roster(found).members if clients is not None or found.exists() else ()
        return cls(
            name,
            Group(replicas.cluster, replicas.names),
            Keys(identity, replicas, others),
            tuple(other.name for other in others),
            tls,
        )

    def mesh(
        self, listen: str, advertise: str | None, peers: Sequence[str], *, datagram: int
    ) -> QuicMesh:
        """Return this member's end of the links; nobody else may connect.

        Args:
            listen: ``host:port``.
            advertise: ``host:port`` where others reach it, if that is another one.
            peers: Where replicas are, as ``name@host:port``.
            datagram: Bytes of a UDP payload.

        Raises:
            ValueError: an address is none, or a replica is not of the roster.
        """
        replica = self.name in self.group.members
        allowed = [*self.group.others(self.name), *(self.clients if replica else ())]
        mesh = QuicMesh(
            self.name,
            listen,
            advertise,
            identity=self.tls,
            peers=allowed,
            limits=Limits(datagram=datagram),
        )
        for peer in peers:
            name, _, address = peer.partition("@")
            if name not in self.group.members:
                raise ValueError(f"{peer!r}: the roster has no replica {name!r}")
            mesh.learn(name, address)
        return mesh


def make_members(
    directory: Path, replicas: Sequence[str], clients: Sequence[str], *, cluster: str
) -> dict[str, Path]:
    """Make new keys for a group, for each member in a directory of its own that nobody else needs.

    The authority's key is gone afterwards: nobody can join.

    Args:
        directory: Where they go; ``NAME/keys`` for each.
        replicas: Their names, in the order in which they lead.
        clients: Names of clients.
        cluster: The group's name.

    Returns:
        Each member's directory of keys.
    """
    made = {}
    with tempfile.TemporaryDirectory(prefix="authority-") as place:
        authority = Path(place)
        make_authority(authority)
        for path, names in ((roster_file(authority), replicas), (clients_file(authority), clients)):
            make_roster(path, names, cluster=cluster).write()
        shared = authority_certificate(authority), roster_file(authority), clients_file(authority)
        for name in (*replicas, *clients):
            make_node(authority, name)
            keys = made[name] = directory / name / "keys"
            keys.mkdir(parents=True)
            for path in shared:
                shutil.copy2(path, keys)
            for path in (node_file(authority, name), identity_file(authority, name)):
                shutil.move(path, keys)
    return made
