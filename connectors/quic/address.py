"""Addresses as users write them, and sockets that listen there."""

from __future__ import annotations

import functools
import socket

Place = tuple[str, int]
"""Host and port."""

SOCKET_BUFFER = 4 << 20
"""Bytes; the system's 208 KiB hold a dozen datagrams of 16,000, and what overflows is lost."""


def parse(address: str) -> Place:
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


@functools.lru_cache(maxsize=4096)
def host_port(place: Place) -> str:
    """Return a place as users write it.

    >>> host_port(("::1", 4433))
    '[::1]:4433'
    """
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bound(place: Place) -> socket.socket:
    """Return a UDP socket that listens at `place`, with wide buffers.

    Raises:
        OSError: the address cannot be listened on; the message names it.
    """
    try:
        family = socket.getaddrinfo(*place, type=socket.SOCK_DGRAM)[0][0]
    except (OSError, UnicodeError):
        raise OSError(f"{host_port(place)}: there is no such host") from None
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.bind(place)
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"{host_port(place)}: {error.strerror}") from None
    widen(made)
    made.setblocking(False)
    return made


def widen(made: socket.socket) -> None:
    """Widen a socket's buffers, as far as the system allows (``net.core.rmem_max``)."""
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER)
