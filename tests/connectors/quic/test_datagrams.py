"""Connections that two threads send on, over loopback."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import QuicServer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

from connectors.quic.certificates import make_authority, make_node
from connectors.quic.datagrams import Datagrams
from connectors.quic.loop import loop, run
from connectors.testing.relay import UdpRelay


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory)
    make_node(directory, "root")
    return directory


class Echo(Datagrams):
    pause = 0.001

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            self._quic.send_stream_data(event.stream_id, event.data)


class Caller(Datagrams):
    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.got = bytearray()
        self.arrived = threading.Condition()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            with self.arrived:
                self.got += event.data
                self.arrived.notify_all()

    def say(self, data: bytes) -> None:
        with self.lock:
            self._quic.send_stream_data(0, data)
            self.transmit()

    def heard(self, size: int) -> bool:
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.got) >= size, 20)


@asynccontextmanager
async def calling(keys: Path, relay_seed: int | None = None) -> AsyncIterator[Caller]:
    served = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    served.load_cert_chain(keys / "root.pem", keys / "root.pem")
    transport, server = await loop().create_datagram_endpoint(
        lambda: QuicServer(configuration=served, create_protocol=Echo),
        local_addr=("127.0.0.1", 0),
    )
    asked = QuicConfiguration(
        alpn_protocols=["echo"], server_name="root", verify_mode=ssl.CERT_REQUIRED
    )
    asked.load_verify_locations(str(keys / "ca.crt"))
    host, port = transport.get_extra_info("sockname")[:2]
    try:
        if relay_seed is None:
            async with connect(host, port, configuration=asked, create_protocol=Caller) as protocol:
                assert isinstance(protocol, Caller)
                yield protocol
        else:
            with UdpRelay((host, port), loss=0.2, seed=relay_seed) as relay:
                async with connect(
                    *relay.address, configuration=asked, create_protocol=Caller
                ) as protocol:
                    assert isinstance(protocol, Caller)
                    yield protocol
    finally:
        server.close()


def say_elsewhere(caller: Caller, parts: list[bytes]) -> None:
    for part in parts:
        caller.say(part)


def test_another_thread_sends_while_the_loop_sleeps(keys: Path) -> None:
    async def scenario() -> bytes:
        async with calling(keys) as caller:
            for i in range(20):
                await asyncio.to_thread(caller.say, bytes([i]))
                assert await asyncio.to_thread(caller.heard, i + 1)
            return bytes(caller.got)

    assert run(scenario()) == bytes(range(20))


def test_two_threads_send_at_once(keys: Path) -> None:
    parts = [bytes([i % 251]) * 700 for i in range(300)]

    async def scenario() -> bytes:
        async with calling(keys) as caller:
            other = asyncio.create_task(asyncio.to_thread(say_elsewhere, caller, parts))
            for _ in range(300):
                caller.say(bytes([255]))
                await asyncio.sleep(0)
            await other
            assert await asyncio.to_thread(caller.heard, 300 * 701)
            return bytes(caller.got)

    got = run(scenario())
    assert len(got) == 300 * 701
    assert bytes(byte for byte in got if byte != 255) == b"".join(parts)


@pytest.mark.parametrize("seed", range(3))
def test_what_another_thread_sent_is_sent_again_when_lost(keys: Path, seed: int) -> None:
    """Only the timer can tell of the last datagram's loss: it must have been set."""

    async def scenario() -> bytes:
        async with calling(keys, seed) as caller:
            for i in range(20):
                await asyncio.to_thread(caller.say, bytes([i]))
                assert await asyncio.to_thread(caller.heard, i + 1)
            return bytes(caller.got)

    assert run(scenario()) == bytes(range(20))


class Silence:
    """A transport whose datagrams reach nobody."""

    def __init__(self) -> None:
        self.sent = 0

    def sendto(self, data: bytes, to: Any) -> None:
        self.sent += 1


def test_each_timeout_sends_two_probes(keys: Path) -> None:
    async def scenario() -> bytes:
        async with calling(keys) as caller:
            recovery, connected = caller._quic._loss, caller._transport
            caller.say(b"a")
            while len(caller.got) < 1 or any(s.ack_eliciting_in_flight for s in recovery.spaces):
                await asyncio.sleep(0.01)
            caller._transport = silence = Silence()  # type: ignore[assignment]
            caller.say(b"b")
            assert silence.sent == 1
            while silence.sent < 7:
                await asyncio.sleep(0)
            assert recovery._pto_count == silence.sent // 2
            caller._transport = connected
            assert await asyncio.to_thread(caller.heard, 2)
            return bytes(caller.got)

    assert run(scenario()) == b"ab"


def test_the_timer_is_never_later_than_aioquic_asks(keys: Path) -> None:
    async def scenario() -> None:
        async with calling(keys) as caller:
            for i in range(6):
                if i % 2:
                    # Idle: what is left is the timer that ends the connection.
                    while caller._timer_at is None or caller._timer_at < loop().time() + 5:
                        await asyncio.sleep(0.01)
                    await asyncio.to_thread(caller.say, b"x")
                else:
                    caller.say(b"x")
                await asyncio.sleep(0)
                while caller._transmit_task is not None:  # what came since is still to be answered
                    await asyncio.sleep(0)
                due = caller._quic.get_timer()
                assert due is not None
                assert caller._timer_at is not None
                assert caller._timer_at <= due
                assert await asyncio.to_thread(caller.heard, i + 1)

    run(scenario())
