"""What settings say of a peer of a group that gossips, in a module that imports fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Transport = Literal["quic", "udp"]
"""quic (mutual TLS), or udp (nothing is checked: for one machine or one trusted network)."""


def check_name(setting: str, name: str) -> None:
    """Check that a peer can be called `name`.

    Raises:
        ValueError: it cannot.
    """
    if not name or set(name) & set("#@"):
        raise ValueError(f"{setting}={name}: a name without # and @")


def check_bootstrap(setting: str, contacts: Iterable[str]) -> None:
    """Check that members are written as they must be.

    Raises:
        ValueError: one is not.
    """
    for contact in contacts:
        name, at, address = contact.partition("@")
        if not name or not at or ":" not in address:
            raise ValueError(f"{setting}: {contact!r} is not name@host:port")
