"""Files of identities and rosters: who signs in a group that votes or agrees.

A directory of keys may hold, besides certificates,

- ``NAME.identity.json``: the signing and agreement keys of the member NAME, mode 0600. Only where
  that member runs.
- ``roster.json``: who the members are, in an order that counts. Every member has the same.
- ``clients.json``: who may ask the members for something, in the same form.

A certificate says who is at the other end of a link and lasts days; an identity signs what is shown
to third parties, and lasts as long as the rosters that name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.files.atomic import replacing
from state.identity import IdentityError, PrivateIdentity, Roster


def identity_file(directory: Path, name: str) -> Path:
    """Return where a member's private identity is."""
    return directory / f"{name}.identity.json"


def roster_file(directory: Path) -> Path:
    """Return where the roster is."""
    return directory / "roster.json"


def clients_file(directory: Path) -> Path:
    """Return where the roster of clients is."""
    return directory / "clients.json"


def read_identity(path: Path) -> PrivateIdentity:
    """Return a private identity, checked.

    Raises:
        IdentityError: the file is malformed, or others than its owner may read it.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise IdentityError(f"{path} has mode {mode:o}: a private identity has 600")
        return PrivateIdentity.from_json(file.read(), str(path))


def read_roster(path: Path) -> Roster:
    """Return a roster, checked.

    Raises:
        IdentityError: the file is malformed.
        OSError: it cannot be read.
    """
    return Roster.from_json(path.read_bytes(), str(path))


@dataclass(frozen=True, slots=True)
class NewRoster:
    """A roster, the private identities that are still to be written, and whether it is too."""

    path: Path
    roster: Roster
    identities: tuple[PrivateIdentity, ...]
    new: bool

    def write(self) -> list[Path]:
        """Write what is not there yet; return the files.

        Raises:
            OSError: a file cannot be written.
        """
        directory = self.path.parent
        directory.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for identity in self.identities:
            path = identity_file(directory, identity.name)
            with replacing(path, mode=0o600) as file:
                file.write(identity.to_json().encode())
            written.append(path)
        if self.new:
            with replacing(self.path) as file:
                file.write(self.roster.to_json().encode())
            written.append(self.path)
        return written


def make_roster(
    path: Path,
    names: Sequence[str],
    *,
    cluster: str = "braidflow",
    random: Callable[[int], bytes] = os.urandom,
) -> NewRoster:
    """Make the identities that are missing and the roster of epoch 1, if there is none.

    Identities and rosters that are there are never replaced: what was signed would be worth
    nothing. (Later rosters need the approval of the members: `state.identity.TrustStore`.) Nothing
    is written before `NewRoster.write`.

    Args:
        path: where the roster is to go; the identities go beside it.
        names: the members, in the order of their numbers.
        cluster: the name of the cluster.
        random: what makes unpredictable bytes.

    Raises:
        IdentityError: there is another roster, or a name or a file cannot be used.
        OSError: a file cannot be read.
    """
    directory = path.parent
    found = read_roster(path) if path.exists() else None
    wanted = tuple(dict.fromkeys(names))
    if found is not None and (found.names, found.cluster) != (wanted, cluster):
        raise IdentityError(
            f"{path} is of {found.cluster}: {', '.join(found.names)}; a roster is never replaced"
        )
    made: list[PrivateIdentity] = []
    members: list[PrivateIdentity] = []
    for name in wanted:
        file = identity_file(directory, name)
        if file.exists():
            members.append(read_identity(file))
            if members[-1].name != name:
                raise IdentityError(f"{file} is the identity of {members[-1].name}")
        elif found is not None:
            raise IdentityError(f"{file} is missing, and {path} names it: it cannot be made anew")
        else:
            made.append(PrivateIdentity.generate(name, random(32)))
            members.append(made[-1])
    roster = Roster(cluster, 1, tuple(member.public for member in members))
    if found is not None and found.members != roster.members:
        raise IdentityError(f"{path} has other keys than the identities beside it")
    return NewRoster(path, found or roster, tuple(made), found is None)
