"""What `benchmarks.quic_link` compares with: plain aioquic, TCP with TLS, HTTP/1.1 over TLS.

All run on uvloop, as our links do, with the same certificates, and move the same frames without a
dataflow, a spool or an acknowledgement behind them:

- ``aioquic``: one stream, frames with a length before each. With a pause between frames, each is
  echoed, so that a round trip is measured beside the one-way time. Without one, the receiver
  tells how much it has got, and the sender keeps 4 MiB under way (aioquic itself never pushes
  back). Socket buffers as wide as ours; only the server has a certificate that is checked.
- ``tcp``: asyncio streams over mutual TLS 1.3, frames with a length before each.
- ``http``: one POST for each frame on one kept connection, mutual TLS 1.3, a minimal client and
  server of our own on asyncio streams; the next request waits for the answer of the last.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import uvloop
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from benchmarks.link_ends import TOGETHER, Arrivals, Job, Result, free_port, runs, say

_LENGTH = struct.Struct("<I")
_UNDER_WAY = 4 << 20
_TELL = 256 << 10


class _Splitter:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        kept = self._data
        kept += data
        at = 0
        while at + 4 <= len(kept):
            end = at + 4 + _LENGTH.unpack_from(kept, at)[0]
            if end > len(kept):
                break
            yield bytes(memoryview(kept)[at + 4 : end])
            at = end
        del kept[:at]


def _framed(job: Job, numbers: range) -> bytes:
    parts: list[Any] = []
    for number in numbers:
        body = job.body(number)
        parts += (_LENGTH.pack(len(body)), body)
    return b"".join(parts)


def _together(job: Job) -> Iterator[range]:
    return runs(1, job.total, 1 if job.gap or job.large else TOGETHER)


# Plain aioquic


def _configuration(job: Job, name: str, *, client: bool) -> QuicConfiguration:
    keys = Path(job.keys)
    made = QuicConfiguration(
        is_client=client,
        alpn_protocols=["frames"],
        max_datagram_size=job.datagram,
        server_name="root",
        max_data=_UNDER_WAY,
        max_stream_data=_UNDER_WAY,
    )
    made.load_verify_locations(str(keys / "ca.crt"))
    made.load_cert_chain(keys / f"{name}.pem", keys / f"{name}.pem")
    return made


def _widen(transport: asyncio.BaseTransport) -> None:
    """Give the socket the buffers that our connections have."""
    end = transport.get_extra_info("socket")
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, buffer, 4 << 20)


class _QuicTaking(QuicConnectionProtocol):
    def __init__(self, quic: QuicConnection, job: Job, arrivals: Arrivals, **rest: Any) -> None:
        super().__init__(quic, **rest)
        self._job, self._arrivals = job, arrivals
        self._splitter = _Splitter()
        self._got = self._told = 0
        self.done: asyncio.Event

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _widen(transport)

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.ConnectionTerminated):
            self.done.set()
        if not isinstance(event, events.StreamDataReceived):
            return
        for frame in self._splitter.feed(event.data):
            self._arrivals.take(self._job.read(frame))
        self._got += len(event.data)
        if self._job.gap:
            self._quic.send_stream_data(0, event.data)
            self.transmit()
        elif self._got - self._told >= _TELL or self._arrivals.complete:
            self._told = self._got
            self._quic.send_stream_data(0, self._got.to_bytes(8, "little"))
            self.transmit()


class _QuicGiving(QuicConnectionProtocol):
    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._answers = bytearray()
        self.told = 0
        self.moved = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _widen(transport)

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            self._answers += event.data
            self.moved.set()

    def write(self, data: bytes) -> None:
        self._quic.send_stream_data(0, data)
        self.transmit()

    async def echoed(self, size: int) -> None:
        """Wait for so many bytes."""
        while len(self._answers) < size:
            self.moved.clear()
            await self.moved.wait()
        del self._answers[:size]

    async def room(self, sent: int, left: int) -> None:
        """Wait until no more than `left` of `sent` bytes are under way."""
        while True:
            while len(self._answers) >= 8:
                self.told = int.from_bytes(self._answers[:8], "little")
                del self._answers[:8]
            if sent - self.told <= left:
                return
            self.moved.clear()
            await self.moved.wait()


async def _quic_source(job: Job) -> Result:
    arrivals = Arrivals(job)
    done = asyncio.Event()

    def create(quic: QuicConnection, **rest: Any) -> _QuicTaking:
        made = _QuicTaking(quic, job, arrivals, **rest)
        made.done = done
        return made

    port = free_port(socket.SOCK_DGRAM)
    configuration = _configuration(job, "root", client=False)
    server = await serve("127.0.0.1", port, configuration=configuration, create_protocol=create)
    say({"port": port})
    await done.wait()
    server.close()
    return arrivals.finish()


async def _quic_sink(job: Job) -> Result:
    result = Result()
    async with connect(
        "127.0.0.1",
        job.port,
        configuration=_configuration(job, "leaf", client=True),
        create_protocol=_QuicGiving,
    ) as link:
        assert isinstance(link, _QuicGiving)
        first = _framed(job, range(1))
        link.write(first)
        sent = len(first)
        await (link.echoed(sent) if job.gap else link.room(sent, _TELL))
        result.begin = time.monotonic_ns()
        for numbers in _together(job):
            begin = time.monotonic_ns()
            data = _framed(job, numbers)
            link.write(data)
            sent += len(data)
            if job.gap:
                await link.echoed(len(data))
                result.round_trips.append((time.monotonic_ns() - begin) / 1e3)
                await asyncio.sleep(job.gap)
            else:
                await link.room(sent, _UNDER_WAY)
        if not job.gap:
            await link.room(sent, 0)
    return result


# TCP and HTTP


def _tls(job: Job, name: str, *, client: bool) -> ssl.SSLContext:
    keys = Path(job.keys)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if client else ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(keys / "ca.crt")
    made.load_cert_chain(keys / f"{name}.pem")
    return made


Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


async def _listen(job: Job, serve_one: Callable[[Reader, Writer, Arrivals], Any]) -> Result:
    arrivals = Arrivals(job)
    done = asyncio.Event()

    async def serve_and_tell(reader: Reader, writer: Writer) -> None:
        try:
            await serve_one(reader, writer, arrivals)
            await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
            done.set()

    server = await asyncio.start_server(
        serve_and_tell,
        "127.0.0.1",
        ssl=_tls(job, "root", client=False),
        limit=4 << 20,
    )
    say({"port": server.sockets[0].getsockname()[1]})
    await done.wait()
    server.close()
    await server.wait_closed()
    return arrivals.finish()


async def _open(job: Job) -> tuple[Reader, Writer]:
    tls = _tls(job, "leaf", client=True)
    return await asyncio.open_connection("127.0.0.1", job.port, ssl=tls, server_hostname="root")


async def _tcp_source(job: Job) -> Result:
    async def one(reader: Reader, writer: Writer, arrivals: Arrivals) -> None:
        splitter = _Splitter()
        while job.large and not arrivals.complete:
            # Fewer copies than cutting; for small frames the cutting is what is faster.
            (length,) = _LENGTH.unpack(await reader.readexactly(4))
            arrivals.take(job.read(await reader.readexactly(length)))
        while not arrivals.complete:
            data = await reader.read(1 << 20)
            for frame in splitter.feed(data):
                arrivals.take(job.read(frame))
            if not data:
                return
        writer.write(b".")
        await writer.drain()

    return await _listen(job, one)


async def _tcp_sink(job: Job) -> Result:
    result = Result()
    reader, writer = await _open(job)
    writer.write(_framed(job, range(1)))
    await asyncio.sleep(0.05)
    result.begin = time.monotonic_ns()
    for numbers in _together(job):
        writer.write(_framed(job, numbers))
        await writer.drain()
        if job.gap:
            await asyncio.sleep(job.gap)
    await reader.readexactly(1)
    writer.close()
    await writer.wait_closed()
    return result


async def _http_source(job: Job) -> Result:
    async def one(reader: Reader, writer: Writer, arrivals: Arrivals) -> None:
        while not arrivals.complete:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line[15:])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            arrivals.take(job.read(await reader.readexactly(length)))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()

    return await _listen(job, one)


async def _http_sink(job: Job) -> Result:
    result = Result()
    reader, writer = await _open(job)
    for number in range(job.total):
        if number == 1:
            result.begin = time.monotonic_ns()
        body = job.body(number)
        head = f"POST /frames HTTP/1.1\r\nHost: root\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(b"".join([head.encode(), body]))
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 204"):
            raise ConnectionError(answer.decode())
        if job.gap:
            await asyncio.sleep(job.gap)
    writer.close()
    await writer.wait_closed()
    return result


def _runs(end: Callable[[Job], Coroutine[Any, Any, Result]]) -> Callable[[Job], Result]:
    return lambda job: uvloop.run(end(job))


ENDS: dict[str, dict[str, Callable[[Job], Result]]] = {
    "aioquic": {"sink": _runs(_quic_sink), "source": _runs(_quic_source)},
    "tcp": {"sink": _runs(_tcp_sink), "source": _runs(_tcp_source)},
    "http": {"sink": _runs(_http_sink), "source": _runs(_http_source)},
}
