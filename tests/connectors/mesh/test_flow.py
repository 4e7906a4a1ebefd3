"""Meshes at the edges of a dataflow."""

import socket
from datetime import timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main, run_main

from connectors.mesh import Meshes, Outgoing, Received, UdpMesh


def ping_pong(meshes: Meshes, rounds: int, heard: list[tuple[str, Received]]) -> Dataflow:
    """a tells b a number, b tells a the next, and so on."""

    def answer(item: tuple[str, Received]) -> list[tuple[str, Outgoing]]:
        name, (peer, data, _) = item
        if int(data) == rounds:
            meshes.finish()
            return []
        return [(name, Outgoing(peer, b"%d" % (int(data) + 1), reliable=False))]

    flow = Dataflow("ping_pong")
    received = op.input("received", flow, meshes.source())
    op.output("heard", received, TestingSink(heard))
    start = op.input("start", flow, TestingSource([("a", Outgoing("b", b"1"))]))
    answers = op.flat_map("answer", received, answer)
    op.output("send", op.merge("sent", start, answers), meshes.sink())
    return flow


@pytest.mark.parametrize("workers", [1, 2])
def test_two_peers_in_one_flow(workers: int) -> None:
    heard: list[tuple[str, Received]] = []
    meshes = Meshes([UdpMesh("a", "127.0.0.1:0"), UdpMesh("b", "127.0.0.1:0")])
    flow = ping_pong(meshes, 50, heard)
    if workers == 1:
        run_main(flow, epoch_interval=timedelta(0))
    else:
        cluster_main(flow, [], 0, worker_count_per_proc=workers)
    told = [(name, peer, data) for name, (peer, data, _) in heard]
    assert told == [("ba"[n % 2 == 0], "ab"[n % 2 == 0], b"%d" % n) for n in range(1, 51)]
    assert all(got.address.startswith("127.0.0.1:") for _, got in heard)
    assert meshes.by_name["a"].counts.sent == 25


def test_unknown_names_and_doubles() -> None:
    with pytest.raises(ValueError, match="the same name"):
        Meshes([UdpMesh("a", "127.0.0.1:0"), UdpMesh("a", "127.0.0.1:0")])
    with pytest.raises(ValueError, match=r"no mesh of this process is called \['z'\]"):
        Meshes([UdpMesh("a", "127.0.0.1:0")]).send([("z", Outgoing("a", b""))])


def test_an_address_in_use() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        first = UdpMesh("a", "127.0.0.1:0")
        meshes = Meshes([first, UdpMesh("b", f"127.0.0.1:{taken.getsockname()[1]}")])
        with pytest.raises(OSError, match=r"127\.0\.0\.1:\d+: Address already in use"):
            meshes.start()
        assert first._transport is not None
        assert first._transport.is_closing(), "no socket is left open"


@pytest.mark.parametrize(("bound", "at"), [("_WAITING", 10), ("_WAITING_BYTES", 10 * 5)])
def test_what_the_flow_is_too_slow_for_is_counted_and_told(
    bound: str, at: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"connectors.mesh.flow.{bound}", at)
    mesh = UdpMesh("a", "127.0.0.1:0")
    meshes = Meshes([mesh])
    meshes.start()
    for _ in range(3):
        for peer in "bcdef":
            mesh.on_message(peer, b"hello")
    assert meshes.dropped == 5
    assert len(meshes.take()) == 10
    assert meshes.take() == []
    mesh.on_message("b", b"again")
    assert meshes.take() == [("a", Received("b", b"again"))]
    meshes.stop()
    assert caplog.messages == ["5 messages were dropped: the flow did not keep up"]


@pytest.mark.parametrize(("bound", "at"), [("_WAITING", 40), ("_WAITING_BYTES", 40 * 5)])
def test_a_peer_that_floods_keeps_no_other_out(
    bound: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"connectors.mesh.flow.{bound}", at)
    mesh = UdpMesh("a", "127.0.0.1:0")
    meshes = Meshes([mesh])
    meshes.start()
    for _ in range(50):
        mesh.on_message("b", b"again")
    mesh.on_message("c", b"hello")
    taken = [received.peer for _, received in meshes.take()]
    assert taken == ["b"] * 10 + ["c"]
    for _ in range(11):
        mesh.on_message("b", b"again")
    assert len(meshes.take()) == 10, "there is room again"
    meshes.stop()
