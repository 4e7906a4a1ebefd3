"""Two dataflows in one process, linked over loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, run_main

from connectors.quic import Identity, Limits, QuicSink, QuicSource, Received, output
from connectors.quic.certificates import make_authority, make_node
from connectors.testing import UdpRelay

EPOCH = timedelta(milliseconds=20)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    make_authority(directory)
    for name in ("root", "leaf", "other"):
        make_node(directory, name)
    return directory


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def sending(keys: Path, address: str, spool: Path, items: list[Any], **options: Any) -> Dataflow:
    flow = Dataflow("sending")
    stream = op.key_on("key", op.input("items", flow, TestingSource(items)), lambda _: "k")
    name = options.pop("name", "leaf")
    sink = QuicSink(
        address,
        "numbers",
        identity=Identity.load(keys, name),
        peer="root",
        spool=spool,
        linger=timedelta(seconds=20),
        **options,
    )
    output("out", stream, sink)
    return flow


def receiving(
    keys: Path, address: str, out: list[Received], expect: list[str], **options: Any
) -> Dataflow:
    flow = Dataflow("receiving")
    source = QuicSource(
        address,
        "numbers",
        identity=Identity.load(keys, "root"),
        peers=options.pop("peers", ["leaf", "other"]),
        expect=expect,
        **options,
    )
    op.output("out", op.input("in", flow, source), TestingSink(out))
    return flow


class Running:
    """A dataflow in a thread of its own."""

    def __init__(self, flow: Dataflow) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(flow,), daemon=True)
        self._thread.start()

    def _run(self, flow: Dataflow) -> None:
        try:
            run_main(flow, epoch_interval=EPOCH)
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), "the flow did not end"
        if self.error is not None:
            raise self.error


def test_items_of_all_kinds_arrive_in_order(keys: Path, port: int, tmp_path: Path) -> None:
    batch = pa.record_batch({"x": [1, 2, 3], "name": ["a", None, "c"]})
    items = [batch, b"bytes", {"a": [1, 2.5, "text"]}, batch.slice(1), 7]
    out: list[Received] = []
    receiver = Running(receiving(keys, f"127.0.0.1:{port}", out, ["leaf"]))
    run_main(sending(keys, f"127.0.0.1:{port}", tmp_path, items), epoch_interval=EPOCH)
    receiver.join()
    assert [got.item for got in out] == items
    assert {got.sender for got in out} == {"leaf"}
