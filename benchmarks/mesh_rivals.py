"""The meshes that `connectors.mesh.QuicMesh` is compared with: TCP with TLS, and HTTPS.

Both use mutual TLS 1.3 with the same certificates, one kept connection for each sender and
receiver, no delay of small segments, and send together what is sent in one turn of the loop:

- `TlsMesh`: messages with a length before each.
- `HttpsMesh`: HTTP/1.1, a minimal client and server of our own. All messages that wait go into the
  body of one POST; the next POST waits for the answer of the last, as HTTP/1.1 clients do.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
from abc import abstractmethod
from pathlib import Path
from typing import cast

from connectors.mesh import Mesh
from connectors.quic.address import Place

_LENGTH = struct.Struct("<I")
_HEAD_END = b"\r\n\r\n"
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_BUFFERED = 4 << 20
"""Bytes that may wait for one peer."""


class _TcpMesh(Mesh):
    """What both have in common: connections, and who is at their other end.

    Args:
        name: Who this peer is: the name in its certificate.
        listen: ``host:port``.
        keys: A directory made by ``python -m jobs keys``.
    """

    def __init__(self, name: str, listen: str, *, keys: Path) -> None:
        super().__init__(name, listen)
        self._keys = keys
        self._out: dict[str, _Out] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted: set[_In] = set()

    def _bound(self) -> Place:
        assert self._server is not None, "start it first"
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, *self._listen, ssl=self._tls(client=False)
        )

    async def stop(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        for connection in [*self._out.values(), *self.accepted]:
            connection.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.sleep(0)

    def send(self, to: str, message: bytes, *, reliable: bool = True) -> None:
        """Send a message on the peer's connection, or dial; `reliable` makes no difference."""
        out = self._out.get(to)
        if out is None:
            out = self._out[to] = self._open()
            task = asyncio.get_running_loop().create_task(self._dial(to, out))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if out.buffered > _BUFFERED:
            self.counts.dropped += 1
        else:
            out.put(message)
            self.counts.sent += 1

    def take(self, peer: str, data: bytes) -> None:
        """Hand over a message."""
        self.counts.received += 1
        self.on_message(peer, data)

    async def _dial(self, to: str, out: _Out) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: out, *self._places[to], ssl=self._tls(client=True), server_hostname=to
            )
        except (OSError, KeyError):
            self.counts.dropped += len(out.waiting)
            await asyncio.sleep(0.05)
        else:
            await out.ended.wait()
        del self._out[to]
        self.on_down(to)

    def _tls(self, *, client: bool) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(self._keys / "ca.crt")
        made.load_cert_chain(self._keys / f"{self.name}.pem")
        return made

    @abstractmethod
    def _open(self) -> _Out: ...

    @abstractmethod
    def _accept(self) -> _In: ...


class _End(asyncio.Protocol):
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=2 * _BUFFERED)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _In(_End):
    """The receiving end of a connection."""

    def __init__(self, mesh: _TcpMesh) -> None:
        self.mesh = mesh
        self.data = bytearray()
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        certificate = transport.get_extra_info("peercert")
        self.peer = next(value for ((key, value),) in certificate["subject"] if key == "commonName")
        self.mesh.accepted.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.mesh.accepted.discard(self)


class _Out(_End):
    """The sending end of a connection."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.ended = asyncio.Event()
        self.soon = False

    @property
    def buffered(self) -> int:
        waiting = sum(map(len, self.waiting))
        return waiting + (self.transport.get_write_buffer_size() if self.transport else 0)

    def put(self, message: bytes) -> None:
        self.waiting += (_LENGTH.pack(len(message)), message)
        if not self.soon:
            self.soon = True
            asyncio.get_running_loop().call_soon(self._turn)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    def _turn(self) -> None:
        self.soon = False
        if self.transport is not None:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self.waiting and self.transport is not None:
            self.transport.write(b"".join(self.waiting))
            self.waiting.clear()


def _cut(mesh: _TcpMesh, peer: str, data: bytearray) -> None:
    """Hand over the whole messages at the beginning of `data`, and delete them."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + _LENGTH.unpack_from(data, at)[0]
        if end > len(data):
            break
        mesh.take(peer, bytes(memoryview(data)[at + 4 : end]))
        at = end
    del data[:at]


class TlsMesh(_TcpMesh):
    """Messages over TCP with TLS."""

    def _open(self) -> _Out:
        return _Out()

    def _accept(self) -> _In:
        return _TlsIn(self)


class _TlsIn(_In):
    def data_received(self, data: bytes) -> None:
        self.data += data
        _cut(self.mesh, self.peer, self.data)


class HttpsMesh(_TcpMesh):
    """Messages as bodies of HTTP/1.1 requests over TLS."""

    def _open(self) -> _Out:
        return _HttpsOut()

    def _accept(self) -> _In:
        return _HttpsIn(self)


class _HttpsOut(_Out):
    asked = False

    def flush(self) -> None:
        """Send what waits as one request, if the last one was answered."""
        if self.waiting and self.transport is not None and not self.asked:
            body = b"".join(self.waiting)
            self.waiting.clear()
            head = f"POST /messages HTTP/1.1\r\nHost: peer\r\nContent-Length: {len(body)}\r\n\r\n"
            self.asked = True
            self.transport.write(head.encode() + body)

    def data_received(self, data: bytes) -> None:
        if data != _NO_CONTENT:
            raise ConnectionError(f"not an answer: {data[:100]!r}")
        self.asked = False
        self.flush()


class _HttpsIn(_In):
    def data_received(self, data: bytes) -> None:
        self.data += data
        while (head := self.data.find(_HEAD_END)) >= 0:
            fields = bytes(self.data[:head]).split(b"\r\n")[1:]
            length = next(int(f[15:]) for f in fields if f.lower().startswith(b"content-length:"))
            end = head + len(_HEAD_END) + length
            if len(self.data) < end:
                return
            body = self.data[head + len(_HEAD_END) : end]
            del self.data[:end]
            assert self.transport is not None
            self.transport.write(_NO_CONTENT)
            _cut(self.mesh, self.peer, body)
