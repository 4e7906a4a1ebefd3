"""Meshes over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.tls import Epoch

from connectors.mesh import Mesh, QuicMesh, UdpMesh
from connectors.mesh.link import ALPN
from connectors.quic import Identity, Limits
from connectors.quic.certificates import make_authority, make_node
from connectors.quic.connection import Code
from connectors.testing import UdpRelay

LIMITS = Limits(window=1 << 20, frame=1 << 18, idle=timedelta(seconds=2))
NAMES = ["a", "b", "c"]
Got = list[tuple[str, str, bytes]]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory)
    for name in NAMES:
        make_node(directory, name)
    return directory


def quic(keys: Path, name: str, **rest: object) -> QuicMesh:
    identity = Identity.load(keys, name)
    return QuicMesh(name, "127.0.0.1:0", identity=identity, limits=LIMITS, **rest)  # type: ignore[arg-type]


def listening(mesh: Mesh, got: Got) -> Mesh:
    mesh.on_message = lambda peer, message: got.append((mesh.name, peer, message))
    return mesh


async def started(meshes: list[Mesh], got: Got) -> None:
    for mesh in meshes:
        await listening(mesh, got).start()
    for mesh in meshes:
        for other in meshes:
            if other is not mesh:
                mesh.learn(other.name, other.address)


@asynccontextmanager
async def two(keys: Path) -> AsyncIterator[tuple[QuicMesh, QuicMesh, Got]]:
    """a and b, and what they got: a first word of a."""
    got: Got = []
    a, b = quic(keys, "a"), quic(keys, "b")
    await started([a, b], got)
    a.send("b", b"1")
    await until(lambda: len(got) == 1)
    yield a, b, got
    await asyncio.gather(a.stop(), b.stop())


async def until(ready: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not ready():
            await asyncio.sleep(0.005)


def run(test: Awaitable[None]) -> None:
    asyncio.run(test)  # type: ignore[arg-type]


@pytest.fixture(params=["quic", "udp"])
def meshes(request: pytest.FixtureRequest, keys: Path) -> list[Mesh]:
    if request.param == "udp":
        return [UdpMesh(name, "127.0.0.1:0") for name in NAMES]
    return [quic(keys, name) for name in NAMES]


def test_all_speak_to_all(meshes: list[Mesh]) -> None:
    async def test() -> None:
        got: Got = []
        await started(meshes, got)
        expected = set()
        for mesh in meshes:
            for other in meshes:
                if other is not mesh:
                    for reliable in (True, False):
                        message = f"{mesh.name} {other.name} {reliable}".encode()
                        mesh.send(other.name, message, reliable=reliable)
                        expected.add((other.name, mesh.name, message))
        await until(lambda: len(got) >= len(expected))
        assert set(got) == expected
        assert len(got) == len(expected)
        assert [mesh.counts.received for mesh in meshes] == [4, 4, 4]
        for mesh in meshes:
            await mesh.stop()

    run(test())


def test_simultaneous_dials_leave_one_connection(keys: Path) -> None:
    async def test() -> None:
        got: Got = []
        a, b = quic(keys, "a"), quic(keys, "b")
        await started([a, b], got)
        a.send("b", b"1")
        b.send("a", b"2")
        await until(lambda: len(got) == 2 and len(a._links) == len(b._links) == 1)
        assert next(iter(a._links)).dialled, "that of the smaller name stays"
        b.send("a", b"3")
        await until(lambda: len(got) == 3)
        await a.stop()
        await b.stop()

    run(test())


def test_messages_in_order_and_large_ones(keys: Path) -> None:
    async def test() -> None:
        got: Got = []
        a, b = quic(keys, "a"), quic(keys, "b")
        await started([a, b], got)
        sent = [bytes([i]) * size for i, size in enumerate([0, 1, 100, 5000, 100_000, 1 << 18])]
        for message in sent:
            a.send("b", message)
        await until(lambda: len(got) == len(sent))
        assert [message for _, _, message in got] == sent
        a.send("b", bytes(3000), reliable=False)
        await until(lambda: len(got) == len(sent) + 1)
        with pytest.raises(ValueError, match=f"a message of {(1 << 18) + 1} bytes"):
            a.send("b", bytes((1 << 18) + 1))
        await a.stop()
        await b.stop()

    run(test())


@pytest.mark.parametrize("survivor", ["a", "c"])
def test_a_peer_that_comes_back_is_heard(keys: Path, survivor: str) -> None:
    """Whoever had dialled: the dead connection does not stand in the new one's way."""

    async def test() -> None:
        got: Got = []
        stays, dies = quic(keys, survivor), quic(keys, "b")
        await started([stays, dies], got)
        stays.send("b", b"1")
        await until(lambda: len(got) == 1)
        # As SIGKILL does: the socket is gone without a word.
        assert dies._server is not None
        dies._server.close()
        for link in dies._links:
            link._transport.close()  # type: ignore[union-attr]
        again = quic(keys, "b")
        await started([again], got)
        again.learn(survivor, stays.address)
        stays.learn("b", again.address)
        again.send(survivor, b"2")
        await until(lambda: len(got) == 2)

        async def answer() -> None:
            while len(got) == 2:
                stays.send("b", b"3")
                await asyncio.sleep(0.05)

        async with asyncio.timeout(1.5):  # less than the idle time
            await answer()
        await stays.stop()
        await again.stop()

    run(test())


def test_reliable_messages_survive_loss(keys: Path) -> None:
    async def test() -> None:
        got: Got = []
        a, b = quic(keys, "a"), quic(keys, "b")
        await started([a, b], got)
        with UdpRelay(("127.0.0.1", int(b.address.rpartition(":")[2])), loss=0.3, seed=5) as relay:
            a.learn("b", f"127.0.0.1:{relay.address[1]}")
            for i in range(100):
                a.send("b", b"r%d" % i)
                a.send("b", b"u%d" % i, reliable=False)
                await asyncio.sleep(0.001)
            await until(lambda: sum(m[:1] == b"r" for _, _, m in got) == 100, 30)
            reliable = [m for _, _, m in got if m[:1] == b"r"]
            assert reliable == [b"r%d" % i for i in range(100)]
            await a.stop()
            await b.stop()

    run(test())


def test_links_tell_late_what_has_come(keys: Path) -> None:
    """The name is aioquic's own: a release that has another would answer each datagram again."""

    async def test() -> None:
        async with two(keys) as (a, b, _):
            for mesh in (a, b):
                (link,) = mesh._links
                assert link._quic._ack_delay == 0.015
            fresh = QuicConnection(
                configuration=a.identity.client_configuration(server_name="b", alpn="x")
            )
            assert fresh._ack_delay == 0.001

    run(test())


def test_much_that_comes_is_acknowledged_at_once(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends more than its window is not kept waiting for the late acknowledgement."""
    monkeypatch.setattr("connectors.mesh.link._ACK_DELAY", 3600.0)

    async def test() -> None:
        got: Got = []
        a, b = quic(keys, "a"), quic(keys, "b")
        await started([a, b], got)
        a.send("b", bytes(1 << 18))
        await until(lambda: len(got) == 1)
        await asyncio.gather(a.stop(), b.stop())

    run(test())


def test_what_is_said_takes_along_what_is_to_be_acknowledged_soon(keys: Path) -> None:
    async def test() -> None:
        async with two(keys) as (_, b, _):
            (link,) = b._links
            space = link._quic._spaces[Epoch.ONE_RTT]
            for soon, left in ((0.004, False), (3600.0, True)):
                space.ack_at = asyncio.get_running_loop().time() + soon
                sent = link._quic._packet_number
                b.send("a", b"hello", reliable=False)
                await asyncio.sleep(0)
                assert link._quic._packet_number > sent
                assert (space.ack_at is not None) == left

    run(test())


def test_an_absent_peer_costs_only_its_messages(
    keys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "braidflow.mesh")
    monkeypatch.setattr("connectors.mesh.peer._HANDSHAKE", 0.3)

    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            a = quic(keys, "a")
            downs: list[str] = []
            a.on_down = downs.append
            await a.start()
            a.send("nobody", b"1")
            a.learn("b", f"127.0.0.1:{silent.getsockname()[1]}")
            for _ in range(100):
                a.send("b", bytes(1 << 16))
            await until(lambda: a.counts.dropped == 101)
            assert sorted(set(downs)) == ["b", "nobody"]
            assert f"b at {a.address_of('b')} cannot be reached: timeout" in caplog.text
            assert a.connected() == []
            await a.stop()
            a.send("b", b"late")
            assert a.counts.dropped == 102

    run(test())


@pytest.mark.parametrize("host", ["..", "x" * 64 + ".example", "no-such-host.invalid"])
def test_a_host_that_is_no_name_costs_only_its_messages(keys: Path, host: str) -> None:
    """A peer says itself where it listens."""

    async def test() -> None:
        a = quic(keys, "a")
        downs: list[str] = []
        a.on_down = downs.append
        await a.start()
        a.learn("b", f"{host}:1")
        a.send("b", b"1")
        await until(lambda: a.counts.dropped == 1)
        assert downs == ["b"]
        assert not a._links
        await a.stop()

    run(test())


def test_who_says_nothing_after_the_first_packet_was_not_refused(keys: Path) -> None:
    async def test() -> None:
        a = quic(keys, "a")
        await a.start()
        host, _, port = a.address.rpartition(":")
        configuration = a.identity.client_configuration(server_name="a", alpn=ALPN)
        silent = QuicConnection(configuration=configuration)
        now = asyncio.get_running_loop().time()
        silent.connect((host, int(port)), now=now)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data, place in silent.datagrams_to_send(now=now):
                stranger.sendto(data, place)
            await until(lambda: bool(a._links))
            (link,) = a._links
            await until(lambda: not a._links)
        assert link.ended == (Code.LOST, "Idle timeout")
        assert a.counts.refused == 0
        await a.stop()

    run(test())


def test_a_transport_error_is_told_apart_from_ours(keys: Path) -> None:
    async def test() -> None:
        async with two(keys) as (a, b, _):
            (link,), (other,) = a._links, b._links
            link._quic.close(
                error_code=QuicErrorCode.STREAM_LIMIT_ERROR,
                frame_type=QuicFrameType.STREAM_BASE,
                reason_phrase="too many",
            )
            link.transmit()
            await until(lambda: other.ended is not None)
            assert other.ended == (Code.LOST, "too many")

    run(test())


def test_a_second_connection_is_used_when_the_first_is_lost_meanwhile(keys: Path) -> None:
    async def test() -> None:
        async with two(keys) as (a, b, _):
            ups: list[str] = []
            a.on_up = ups.append
            (first,) = a._links
            b.peer("a").link = None  # it has forgotten, and dials a, whose own link is the better
            b.send("a", b"2")
            await until(lambda: len(a._links) == 2)
            (second,) = a._links - {first}
            await until(lambda: second.peer is not None)
            first.end(Code.DONE, "lost")
            await until(lambda: a.peer("b").link is second)
            assert ups == ["b"]

    run(test())


def test_a_slow_peer_is_not_waited_for(keys: Path) -> None:
    async def test() -> None:
        async with two(keys) as (a, _, got):
            for _ in range(100):  # in one turn of the loop: nothing can leave meanwhile
                a.send("b", bytes(1 << 17))
            assert 80 < a.counts.dropped < 100
            await until(lambda: len(got) == 101 - a.counts.dropped)

    run(test())


def test_strangers_are_refused(
    keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "braidflow")

    async def test() -> None:
        got: Got = []
        a, b, c = quic(keys, "a", peers=["b"]), quic(keys, "b"), quic(keys, "c")
        make_authority(tmp_path)
        make_node(tmp_path, "b")
        forger = quic(tmp_path, "b")
        await started([a, b, c, forger], got)
        for mesh in (c, forger):
            mesh.learn("a", a.address)
            mesh.send("a", b"let me in")
        b.send("a", b"hello")
        await until(lambda: got == [("a", "b", b"hello")] and a.counts.refused >= 2)
        assert "peer at" in caplog.text
        stranger = f"a at {a.address}: unable to get local issuer certificate"
        await until(lambda: stranger in caplog.text)
        with pytest.raises(ValueError, match="'c' cannot use the certificate of 'a'"):
            QuicMesh("c", "127.0.0.1:0", identity=Identity.load(keys, "a"))
        for mesh in (a, b, c, forger):
            await mesh.stop()

    run(test())


def test_who_dials_says_where_it_listens(keys: Path) -> None:
    async def test() -> None:
        got: Got = []
        a, b = quic(keys, "a"), quic(keys, "b", advertise="10.1.2.3:99")
        listening(a, got)
        await a.start()
        await listening(b, got).start()
        b.learn("a", a.address)
        b.send("a", b"hello", reliable=False)
        await until(lambda: a.address_of("b") == "10.1.2.3:99")
        b.send("a", b"hello", reliable=False)
        await until(lambda: ("a", "b", b"hello") in got)
        assert b.address_of("a") == a.address
        assert b.address_of("c") == ""
        await a.stop()
        await b.stop()

    run(test())


@pytest.mark.parametrize("stream", [2, 6, 0])
def test_bytes_that_are_no_messages_end_the_connection(keys: Path, stream: int) -> None:
    async def test() -> None:
        async with two(keys) as (a, b, got):
            (link,) = a._links
            link._quic.send_stream_data(stream, b"\xff" * 10)
            link.transmit()
            await until(lambda: not a.connected() and not b.connected())
            assert link.ended is not None
            a.send("b", b"2")
            await until(lambda: len(got) == 2)

    run(test())


def test_hostile_datagrams() -> None:
    async def test() -> None:
        got: Got = []
        mesh = listening(UdpMesh("a", "127.0.0.1:0"), got)
        await mesh.start()
        host, _, port = mesh.address.rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for data in (b"", b"\0", b"\x05abc", b"\x02\xff\xfe hello", b"\0hello"):
                stranger.sendto(data, (host, int(port)))
            stranger.sendto(b"\x01zhello", (host, int(port)))
            await until(lambda: bool(got))
            mesh.send("z", b"answer")
            stranger.settimeout(5)
            assert stranger.recv(100) == b"\x01aanswer"
        assert got == [("a", "z", b"hello")]
        assert mesh.counts.refused == 5
        with pytest.raises(ValueError, match="does not fit a datagram"):
            mesh.send("z", bytes(65_507))
        await mesh.stop()

    run(test())


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_names_fit_a_datagram(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 bytes"):
        UdpMesh(name, "127.0.0.1:0")


def test_a_silent_connection_is_closed_until_there_is_something_to_say(keys: Path) -> None:
    async def test() -> None:
        got: Got = []
        meshes = [quic(keys, name, linger=timedelta(seconds=0.1)) for name in "ab"]
        a, b = meshes
        await started([*meshes], got)
        a.send("b", b"one")
        await until(lambda: len(got) == 1)
        await until(lambda: not a.connected() and not b.connected())
        b.send("a", b"two")
        await until(lambda: len(got) == 2)
        assert got == [("b", "a", b"one"), ("a", "b", b"two")]
        for mesh in meshes:
            await mesh.stop()

    run(test())
