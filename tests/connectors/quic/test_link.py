"""Dataflows in one process, linked over loopback."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import msgspec
import pyarrow as pa
import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main
from prometheus_client import REGISTRY

from connectors.quic import Identity, Limits, QuicSink, QuicSource, Received, listener, loop, send
from connectors.quic.certificates import make_authority, make_node
from connectors.quic.connection import ALPN, Code
from connectors.testing.relay import UdpRelay
from state.frames import Data, End, Frame, Hello, Kind, encode

EPOCH = timedelta(milliseconds=20)
QUICK = Limits(idle=timedelta(seconds=1))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory)
    for name in ("root", "leaf", "other"):
        make_node(directory, name)
    return directory


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Link:
    """Makes the flows of both ends."""

    def __init__(self, keys: Path, port: int, spools: Path) -> None:
        self.keys, self.port, self.spools = keys, port, spools
        self.got: list[Received] = []

    def sender(
        self,
        items: Iterable[Any] | DynamicSource[Any],
        *,
        name: str = "leaf",
        port: int | None = None,
        keys: Path | None = None,
        linger: float = 20.0,
        **options: Any,
    ) -> Dataflow:
        flow = Dataflow("sender")
        source = items if isinstance(items, DynamicSource) else TestingSource(items)
        stream = op.key_on("key", op.input("items", flow, source), lambda _: "k")
        sink = QuicSink(
            f"127.0.0.1:{port or self.port}",
            options.pop("channel", "numbers"),
            identity=Identity.load(keys or self.keys, name),
            peer=options.pop("peer", "root"),
            spool=self.spools / options.pop("spool", name),
            linger=timedelta(seconds=linger),
            **options,
        )
        send("out", stream, sink)
        return flow

    def receiver(self, *expect: str, **options: Any) -> Dataflow:
        flow = Dataflow("receiver")
        sink = options.pop("sink", None) or TestingSink(self.got)
        source = QuicSource(
            f"127.0.0.1:{self.port}",
            "numbers",
            identity=Identity.load(self.keys, "root"),
            peers=options.pop("peers", ["leaf", "other"]),
            expect=expect,
            **options,
        )
        op.output("out", op.input("in", flow, source), sink)
        return flow

    def items(self, sender: str = "leaf") -> list[Any]:
        return [got.item for got in self.got if got.sender == sender]


@pytest.fixture
def link(keys: Path, port: int, tmp_path: Path) -> Link:
    return Link(keys, port, tmp_path)


class Running:
    """A dataflow in a thread of its own."""

    def __init__(
        self, flow: Dataflow, epoch: timedelta = EPOCH, recovery: RecoveryConfig | None = None
    ) -> None:
        self.error: BaseException | None = None
        arguments = (flow, epoch, recovery)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def _run(self, flow: Dataflow, epoch: timedelta, recovery: RecoveryConfig | None) -> None:
        try:
            run_main(flow, epoch_interval=epoch, recovery_config=recovery)
        except BaseException as error:
            self.error = error

    def join(self, timeout: float = 60.0) -> None:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the flow did not end"
        if self.error is not None:
            raise self.error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()


def run(flow: Dataflow) -> None:
    run_main(flow, epoch_interval=EPOCH)


def failure(flow: Dataflow) -> str:
    """Run a flow that must fail; return the error that it failed with."""
    with pytest.raises(Exception) as raised:
        run(flow)
    return cause(raised.value)


def cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < end, "it did not happen in 30 s"
        time.sleep(0.01)


class Paced(DynamicSource[int]):
    """Numbers, one every few milliseconds."""

    def __init__(self, count: int, gap: float = 0.002) -> None:
        self.count, self.gap, self.made = count, gap, 0

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _PacedPart:
        return _PacedPart(self)


class _PacedPart(StatelessSourcePartition[int]):
    def __init__(self, paced: Paced) -> None:
        self._paced = paced

    def next_batch(self) -> list[int]:
        if self._paced.made >= self._paced.count:
            raise StopIteration
        self._paced.made += 1
        return [self._paced.made - 1]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._paced.gap)


# What arrives


def test_items_of_all_kinds_arrive_in_order(link: Link) -> None:
    batch = pa.record_batch({"x": [1, 2, 3], "name": ["a", None, "c"]})
    words = pa.record_batch({"word": pa.array(["a", "b", "a"]).dictionary_encode()})
    items = [batch, b"bytes", {"a": [1, 2.5, "text"]}, batch.slice(1), words, 7, "text"]
    receiver = Running(link.receiver("leaf"))
    run(link.sender(items))
    receiver.join()
    assert link.items() == items


def test_an_empty_stream_ends_its_receiver(link: Link) -> None:
    receiver = Running(link.receiver("leaf"))
    run(link.sender([]))
    receiver.join()
    assert link.got == []


def test_a_sender_waits_for_its_receiver(link: Link) -> None:
    sender = Running(link.sender(range(10)))
    time.sleep(0.3)
    run(link.receiver("leaf"))
    sender.join()
    assert link.items() == list(range(10))


def test_senders_and_parts_are_told_apart(link: Link) -> None:
    receiver = Running(link.receiver("leaf", "leaf/b", "other"))
    senders = [
        Running(link.sender(range(50))),
        Running(link.sender(range(50, 100), part="b", spool="b")),
        Running(link.sender(range(100, 150), name="other")),
    ]
    for running in (*senders, receiver):
        running.join()
    assert link.items("leaf") == list(range(50))
    assert link.items("leaf/b") == list(range(50, 100))
    assert link.items("other") == list(range(100, 150))


def test_a_node_has_so_many_parts_and_no_more(link: Link) -> None:
    receiver = Running(link.receiver("leaf", "other", limits=Limits(parts=1)))
    run(link.sender(range(50)))
    refused = failure(link.sender(range(50), part="b", spool="b"))
    assert "leaf sends 1 parts already" in refused
    run(link.sender(range(100, 150), name="other"))
    receiver.join()
    assert link.items() == list(range(50))


def test_the_parts_of_a_node_are_counted_over_restarts(link: Link, tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)
    recovery = RecoveryConfig(tmp_path)
    receiver = Running(link.receiver("leaf/a"), recovery=recovery)
    run(link.sender(range(50), part="a"))
    receiver.join()
    flow = link.receiver("leaf/a", "other", limits=Limits(parts=1))
    receiver = Running(flow, recovery=recovery)
    refused = failure(link.sender(range(50), part="b", spool="b"))
    assert "leaf sends 1 parts already" in refused
    run(link.sender(range(100, 150), name="other"))
    receiver.join()
    assert link.items("leaf/a") == list(range(50))


def test_messages_take_the_type_that_is_asked_for(link: Link) -> None:
    class Vote(msgspec.Struct):
        choice: str

    receiver = Running(link.receiver("leaf", message=Vote))
    run(link.sender([Vote("yes")]))
    receiver.join()
    assert link.items() == [Vote("yes")]


def test_held_frames_arrive_too(link: Link) -> None:
    receiver = Running(link.receiver("leaf"))
    run(link.sender(Paced(100), hold=True))
    receiver.join()
    assert link.items() == list(range(100))


# Who may connect


def test_strangers_are_refused_and_harm_nobody(
    link: Link, keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "foreign"
    make_authority(foreign)
    make_node(foreign, "leaf")
    (foreign / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
    stranger = raw_client(foreign, link.port)
    receiver = Running(link.receiver("leaf"))
    with caplog.at_level(logging.WARNING):
        code, reason = stranger([Hello(1, "numbers", "", 1, 0, 0)])
    assert code == Code.PEER
    assert "no valid path" in reason
    assert any("refused" in record.message for record in caplog.records)
    run(link.sender([1]))
    receiver.join()
    assert link.items() == [1]


def test_a_node_that_is_no_peer_of_the_channel_is_refused(link: Link) -> None:
    receiver = Running(link.receiver("leaf", peers=["leaf"]))
    code, reason = raw_client(link.keys, link.port, "other")([Hello(1, "numbers", "", 1, 0, 0)])
    assert (code, reason) == (Code.PEER, "other may not use channel 'numbers'")
    run(link.sender([1]))
    receiver.join()


def test_a_receiver_with_another_name_gets_nothing(link: Link) -> None:
    receiver = Running(link.receiver("leaf"))
    error = failure(link.sender([1], peer="impostor", linger=1.0))
    assert re.match(r"LinkError: impostor .* has not acknowledged 1 frames in 1 s", error)
    run(link.sender([1], spool="second"))
    receiver.join()
    assert link.items() == [1]


def test_a_renewed_certificate_is_used_without_a_restart(link: Link, tmp_path: Path) -> None:
    own = tmp_path / "own"
    make_authority(own)
    for name in ("root", "leaf"):
        # A certificate begins five minutes before it is made; this one has four seconds left.
        past = datetime.now(UTC) - timedelta(minutes=5, seconds=-4)
        made = make_node(own, name, lifetime=timedelta(minutes=10), now=past)
    link.keys = own
    receiver = Running(link.receiver("leaf", limits=QUICK))
    paced = Paced(100_000)
    sender = Running(link.sender(paced, limits=QUICK))
    until(lambda: len(link.got) > 10)
    place = {"channel": "numbers", "address": f"127.0.0.1:{link.port}"}

    def connections() -> float:
        labels = {**place, "peer": "root", "direction": "out"}
        return REGISTRY.get_sample_value("braidflow_link_connections_total", labels) or 0

    for name in ("root", "leaf"):
        make_node(own, name)
    until(lambda: datetime.now(UTC) > made.not_after)
    seen = len(link.got)
    until(lambda: len(link.got) > seen + 10)
    assert connections() >= 2
    paced.count = paced.made
    sender.join()
    receiver.join()
    assert link.items() == list(range(paced.made))


# What hostile or broken ends may do


class _Raw(QuicConnectionProtocol):
    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.ended: asyncio.Future[tuple[int, str]] = self._loop.create_future()

    def quic_event_received(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.ConnectionTerminated) and not self.ended.done():
            self.ended.set_result((event.error_code, event.reason_phrase))


def raw_client(
    keys: Path, port: int, name: str = "leaf"
) -> Callable[[list[Frame | bytes]], tuple[int, str]]:
    """Return what sends frames or bytes on a new connection and tells how it was ended."""
    identity = Identity.load(keys, name) if keys.name != "foreign" else None

    async def send(frames: list[Frame | bytes]) -> tuple[int, str]:
        if identity is not None:
            configuration = identity.client_configuration(server_name="root", alpn=ALPN)
        else:
            from aioquic.quic.configuration import QuicConfiguration

            configuration = QuicConfiguration(
                alpn_protocols=[ALPN], server_name="root", cafile=str(keys / "ca.crt")
            )
            configuration.load_cert_chain(keys / "leaf.pem", keys / "leaf.pem")
        for _ in range(100):
            connecting = connect(
                "127.0.0.1",
                port,
                configuration=configuration,
                create_protocol=_Raw,
                wait_connected=False,
            )
            async with connecting as protocol:
                assert isinstance(protocol, _Raw)
                protocol.transmit()
                try:
                    await asyncio.wait_for(protocol.wait_connected(), 0.3)
                except TimeoutError:
                    continue
                data = b"".join(f if isinstance(f, bytes) else encode(f) for f in frames)
                protocol._quic.send_stream_data(0, data)
                protocol.transmit()
                return await asyncio.wait_for(protocol.ended, 10)
        raise AssertionError("no answer")

    return lambda frames: asyncio.run(send(frames))


HELLO = Hello(1, "numbers", "", 1, 0, 0)


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], Code.FRAME, "kind"),
        ([HELLO, (1 << 31).to_bytes(4, "little") + b"\x05"], Code.FRAME, "at most"),
        ([HELLO, Data(0, Kind.MESSAGE, 0, b"\xc1")], Code.FRAME, "item 0"),
        ([HELLO, Data(0, Kind.BATCH, 9, b"x")], Code.FRAME, "schema 9"),
        ([HELLO, Data(5, Kind.BYTES, 0, b"x")], Code.STATE, "frame 5 where 0 was due"),
        ([HELLO, End(3)], Code.STATE, "ends at 3"),
        ([Data(0, Kind.BYTES, 0, b"x")], Code.STATE, "begins with Hello"),
        ([HELLO, HELLO], Code.STATE, "sent a Hello"),
        ([Hello(2, "numbers", "", 1, 0, 0)], Code.STATE, "version 2"),
        ([Hello(1, "letters", "", 1, 0, 0)], Code.CHANNEL, "no channel 'letters'"),
        ([Hello(1, "numbers", "", 1, 7, 9)], Code.STATE, "the receiver lost its state"),
    ],
)
def test_a_connection_that_misbehaves_is_closed_and_harms_no_other(
    link: Link, frames: list[Frame | bytes], code: Code, reason: str
) -> None:
    receiver = Running(link.receiver("other"))
    got = raw_client(link.keys, link.port)(frames)
    assert got[0] == code
    assert reason in got[1]
    run(link.sender([1, 2], name="other"))
    receiver.join()
    assert link.items("other") == [1, 2]
    assert link.items("leaf") == []


def test_an_item_beyond_the_receivers_limit_is_an_error_of_the_sender(link: Link) -> None:
    receiver = Running(link.receiver("other", limits=Limits(frame=10_000)))
    assert "at most 10000" in failure(link.sender([b"x" * 20_000]))
    run(link.sender([b"small"], name="other"))
    receiver.join()


def test_a_batch_of_another_schema_is_an_error_of_the_sender(link: Link) -> None:
    receiver = Running(link.receiver("other", schema=pa.schema({"x": pa.int64()})))
    assert "column 0 is 'y'" in failure(link.sender([pa.record_batch({"y": [1]})]))
    run(link.sender([], name="other"))
    receiver.join()


def test_an_item_that_cannot_be_sent_is_an_error(link: Link) -> None:
    assert failure(link.sender([object()])).startswith("TypeError")


def test_a_plain_output_is_refused(link: Link) -> None:
    flow = Dataflow("plain")
    stream = op.key_on("key", op.input("items", flow, TestingSource([1])), lambda _: "k")
    identity = Identity.load(link.keys, "leaf")
    sink = QuicSink("127.0.0.1:1", "c", identity=identity, peer="root", spool=link.spools)
    op.output("out", stream, sink)
    assert "connectors.marks.output" in failure(flow)


# Restarts


def leave_in_the_spool(link: Link, items: list[int]) -> None:
    """Run a sender whose receiver is away."""
    assert "has not acknowledged" in failure(link.sender(items, port=1, linger=0.1))


def test_a_spool_whose_flow_does_not_repeat_itself_is_refused(link: Link) -> None:
    leave_in_the_spool(link, [1, 2, 3])
    assert failure(link.sender([1, 5, 3], port=1)).startswith("SpoolConflict")


def test_a_flow_that_ends_early_the_second_time_is_refused(link: Link) -> None:
    leave_in_the_spool(link, [1, 2, 3])
    assert "has now ended after 2" in failure(link.sender([1, 2], port=1))


def test_a_flow_that_repeats_itself_sends_the_rest(link: Link) -> None:
    leave_in_the_spool(link, [1, 2, 3])
    receiver = Running(link.receiver("leaf"))
    run(link.sender([1, 2, 3, 4]))
    receiver.join()
    assert link.items() == [1, 2, 3, 4]


def test_a_receiver_that_lost_its_state_is_refused(link: Link) -> None:
    receiver = Running(link.receiver("leaf"))
    run(link.sender([1, 2, 3]))
    receiver.join()
    again = Running(link.receiver("other"))
    assert "lost its state" in failure(link.sender([1, 2, 3]))
    run(link.sender([], name="other"))
    again.join()


def test_a_spool_that_was_damaged_is_the_senders_error(link: Link) -> None:
    leave_in_the_spool(link, [1, 2, 3])
    sender = Running(link.sender([1, 2, 3]))
    place = {"channel": "numbers", "address": f"127.0.0.1:{link.port}"}
    out = {**place, "peer": "root", "direction": "out"}
    until(lambda: REGISTRY.get_sample_value("braidflow_link_queue_frames", out) == 3)
    (frames,) = (link.spools / "leaf").glob("*.frames")
    frames.write_bytes(bytes(frames.stat().st_size))
    receiver = Running(link.receiver("other"))
    with pytest.raises(Exception) as raised:
        sender.join(30)
    assert cause(raised.value).startswith("SpoolDamaged: ")
    assert f"{frames}: frame 0 is not what was written" in cause(raised.value)
    run(link.sender([], name="other"))
    receiver.join()
    assert link.items() == []


def test_a_fault_of_the_link_itself_is_the_senders_error(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("connectors.quic.dialer.connect", broken)
    assert failure(link.sender([1, 2, 3])) == "RuntimeError: a fault of ours"


# Bad networks


def test_a_transport_error_is_no_end_of_the_link(link: Link) -> None:
    """QUIC's own errors have the numbers of ours: this one that of `Code.STATE`."""
    receiver = Running(link.receiver("leaf"))
    sender = Running(link.sender(Paced(200)))
    until(lambda: len(link.items()) > 20)

    async def break_off() -> None:
        inlet = listener._listening["127.0.0.1", link.port].inlets["numbers"]
        (accepted,) = inlet.links
        accepted._quic.close(
            error_code=QuicErrorCode.STREAM_STATE_ERROR,
            frame_type=QuicFrameType.STREAM_BASE,
            reason_phrase="of the transport",
        )
        accepted.transmit()

    assert Code.STATE == QuicErrorCode.STREAM_STATE_ERROR
    loop.run(break_off())
    sender.join()
    receiver.join()
    assert link.items() == list(range(200))


def test_loss_reordering_and_duplicates(link: Link) -> None:
    with UdpRelay(("127.0.0.1", link.port), loss=0.3, duplicate=0.1, reorder=0.1, seed=5) as relay:
        receiver = Running(link.receiver("leaf"))
        paced = Paced(1_000_000)
        sender = Running(link.sender(paced, port=relay.address[1], linger=60))
        # How many items go in a datagram is up to the load.
        until(lambda: paced.made > 300 and relay.counts.lost > 50)
        paced.count = paced.made
        sender.join()
        receiver.join()
    assert link.items() == list(range(paced.made))


def test_a_client_whose_address_changes(link: Link) -> None:
    with UdpRelay(("127.0.0.1", link.port)) as relay:
        receiver = Running(link.receiver("leaf"))
        paced = Paced(400)
        sender = Running(link.sender(paced, port=relay.address[1]))
        for enough in (50, 150, 250):
            until(lambda enough=enough: len(link.got) > enough)  # type: ignore[misc]
            relay.change_addresses()
        sender.join()
        receiver.join()
    assert link.items() == list(range(400))


def outage(link: Link, seconds: float) -> None:
    with UdpRelay(("127.0.0.1", link.port)) as relay:
        receiver = Running(link.receiver("leaf", limits=QUICK))
        paced = Paced(100_000)
        sender = Running(link.sender(paced, port=relay.address[1], limits=QUICK))
        until(lambda: len(link.got) > 50)
        relay.partition()
        time.sleep(seconds)
        before = len(link.got)
        relay.heal()
        until(lambda: len(link.got) > before)
        paced.count = paced.made
        sender.join()
        receiver.join()
    assert link.items() == list(range(paced.made))


def test_an_outage_beyond_the_idle_time(link: Link) -> None:
    outage(link, 2.5)


@pytest.mark.soak
def test_an_outage_of_a_minute(link: Link) -> None:
    outage(link, 60.0)


# Back-pressure


class _Slow(DynamicSink[Received]):
    def __init__(self, got: list[Received], gate: threading.Event) -> None:
        self.got, self.gate = got, gate

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _SlowPart:
        return _SlowPart(self)


class _SlowPart(StatelessSinkPartition[Received]):
    def __init__(self, slow: _Slow) -> None:
        self._slow = slow

    def write_batch(self, items: list[Received]) -> None:
        self._slow.gate.wait()
        self._slow.got.extend(items)


class Heavy(Paced):
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _HeavyPart:
        return _HeavyPart(self)


class _HeavyPart(_PacedPart):
    def next_batch(self) -> list[Any]:
        return [bytes(100_000) for _ in super().next_batch()]


def test_back_pressure_reaches_the_senders_source(link: Link) -> None:
    gate = threading.Event()
    limits = Limits(window=500_000)
    receiver = Running(link.receiver("leaf", sink=_Slow(link.got, gate), limits=limits))
    heavy = Heavy(100, gap=0.0)
    sender = Running(link.sender(heavy, spool_limit=1_000_000, limits=limits))
    until(lambda: heavy.made >= 10)
    time.sleep(1.0)
    # The spool holds all that is not acknowledged: ten items, and one more that filled it.
    assert heavy.made <= 12
    gate.set()
    sender.join()
    receiver.join()
    assert len(link.got) == 100


# Numbers


def test_links_are_measured(link: Link) -> None:
    receiver = Running(link.receiver("leaf"))
    paced = Paced(100_000)
    sender = Running(link.sender(paced))

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"braidflow_link_{name}", labels) or 0.0

    place = {"channel": "numbers", "address": f"127.0.0.1:{link.port}"}
    out = {**place, "peer": "root", "direction": "out"}
    there = {**place, "peer": "", "direction": "in"}
    until(lambda: value("frames_total", **out) > 50 and value("frames_total", **there) > 50)
    assert value("bytes_total", **out) > 50 * 10
    assert 0 < value("round_trip_seconds", **out) < 5
    assert value("connections_total", **out) == 1
    assert REGISTRY.get_sample_value("braidflow_link_queue_frames", out) is not None
    assert REGISTRY.get_sample_value("braidflow_link_retransmits", out) is not None
    paced.count = paced.made
    sender.join()
    receiver.join()
    assert REGISTRY.get_sample_value("braidflow_link_frames_total", out) is None


@pytest.mark.parametrize("address", ["nowhere", ":1", "host:", "host:99999", "host:x"])
def test_addresses_that_are_none(link: Link, address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        QuicSource(address, "c", identity=Identity.load(link.keys, "root"), peers=None)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "Address already in use"),
        ("203.0.113.1", "Cannot assign requested address"),
        ("no-such-host.invalid", "there is no such host"),
        ("..", "there is no such host"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_named(link: Link, host: str, why: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", link.port))
        identity = Identity.load(link.keys, "root")
        source = QuicSource(f"{host}:{link.port}", "c", identity=identity, peers=None)
        with pytest.raises(OSError, match=f"{re.escape(host)}:{link.port}: {why}"):
            source.build_part("in", "c", None)


def test_an_expected_sender_must_be_a_peer(link: Link) -> None:
    with pytest.raises(ValueError, match=re.escape("['other'] are not among the peers")):
        link.receiver("leaf", "other", peers=["leaf"])


@pytest.mark.parametrize("limits", [{"datagram": 1100}, {"datagram": 17_000}, {"window": 0}])
def test_limits_that_cannot_be(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(**limits)  # type: ignore[arg-type]
