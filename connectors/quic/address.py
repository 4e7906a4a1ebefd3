"""Addresses as users write them."""

from __future__ import annotations


def parse(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is neither.

    >>> parse("127.0.0.1:4433"), parse("[::1]:4433")
    (('127.0.0.1', 4433), ('::1', 4433))
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) < 65536:
        raise ValueError(f"address {address!r}: host:port is wanted, such as 127.0.0.1:4433")
    return host, int(port)
