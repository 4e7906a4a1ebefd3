"""Make the keys of a cluster whose nodes are linked by QUIC, and renew them.

python -m jobs keys DIR root leaf-1 leaf-2   the authority, if there is none, and these nodes
python -m jobs keys DIR                      renew the nodes that are there
python -m jobs keys DIR n1 n2 n3 n4 --roster the same, with identities for a group that votes
python -m jobs keys DIR c1 c2 --clients      the same for those who ask that group

Each node needs ``ca.crt`` and its own ``NAME.pem``, which it reads again for each connection: a
renewed file may be copied over the old one (under another name and renamed) while the node runs.
``ca.key`` stays where certificates are made. What the last two make is told in `jobs.identities`.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from connectors.quic.certificates import (
    AUTHORITY_LIFETIME,
    NODE_LIFETIME,
    CertificateError,
    Issued,
    authority_certificate,
    make_authority,
    make_node,
    node_name,
    node_names,
)
from jobs.identities import clients_file, make_roster, roster_file
from state.identity import IdentityError


def make_keys(
    directory: Path,
    names: Sequence[str] = (),
    *,
    addresses: Sequence[str] | None = None,
    days: float | None = None,
    ca_days: float | None = None,
) -> list[Issued]:
    """Make the authority if there is none, and make or renew nodes; return what was written.

    Args:
        directory: Where the files go; created if missing.
        names: The nodes. By default all that have a file, or else one called like this host.
        addresses: Further names and IP addresses of the one node named.
        days: How long the nodes' certificates are valid; 14 by default.
        ca_days: How long a new authority is valid; 1825 by default.

    Raises:
        CertificateError: a name, an address or a number of days cannot be used, or the files that
            are there cannot; before anything is written if the arguments show it.
        OSError: a file cannot be read or written.
    """
    chosen = [node_name(name) for name in dict.fromkeys(names)]
    if addresses and len(chosen) != 1:
        raise CertificateError("addresses belong to one node: name it, and no other")
    chosen = chosen or node_names(directory) or [_host()]
    lifetime = NODE_LIFETIME if days is None else _days(days)
    found = authority_certificate(directory)
    written = []
    if not found.exists():
        authority = AUTHORITY_LIFETIME if ca_days is None else _days(ca_days)
        written.append(make_authority(directory, lifetime=authority))
    elif ca_days is not None:
        raise CertificateError(f"{found} exists: an authority is never replaced")
    for name in chosen:
        written.append(make_node(directory, name, addresses=addresses, lifetime=lifetime))
    return written


def run(
    directory: Path,
    names: Sequence[str],
    *,
    addresses: Sequence[str] | None = None,
    days: float | None = None,
    ca_days: float | None = None,
    cluster: str | None = None,
    clients: bool = False,
) -> int:
    """Make keys and print what was written; return the exit code, 2 after an error.

    With a `cluster`, also the identities of the nodes and the roster of that cluster, or that of
    its `clients`.
    """
    try:
        members = [node_name(name) for name in names] or node_names(directory) or [_host()]
        public = (clients_file if clients else roster_file)(directory)
        group = None if cluster is None else make_roster(public, members, cluster=cluster)
        issued = make_keys(directory, names, addresses=addresses, days=days, ca_days=ca_days)
        lines = [(i.path, f"valid until {i.not_after:%F %H:%M} UTC") for i in issued]
        if group is not None:
            whom = "clients" if clients else "members"
            about = f"epoch {group.roster.epoch} of {cluster}, {whom}: {len(group.roster)}"
            lines += [(p, about if p == public else "private") for p in group.write()]
    except (CertificateError, IdentityError, OSError) as error:
        print(f"keys: {error}", file=sys.stderr)
        return 2
    width = max(len(str(path)) for path, _ in lines)
    for path, text in lines:
        print(f"{path!s:<{width}}  {text}")
    return 0


def _host() -> str:
    host = socket.gethostname().partition(".")[0].lower()
    try:
        return node_name(host)
    except CertificateError as error:
        raise CertificateError(f"name the nodes: this host's name will not do: {error}") from None


def _days(days: float) -> timedelta:
    if not 0 < days <= 36_500:
        raise CertificateError(f"{days} days: more than 0, at most 36500")
    return timedelta(days=days)
