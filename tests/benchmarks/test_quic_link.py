import json
from contextlib import ExitStack

import msgspec
import numpy as np
import pytest

from benchmarks import link_ends, lossy_loopback, quic_link
from benchmarks.json_process import ProcessFailed
from benchmarks.link_ends import Arrivals, Job
from benchmarks.lossy_loopback import CannotLose


@pytest.fixture(scope="module")
def bench():
    with ExitStack() as stack:
        yield quic_link._ends(stack)


@pytest.mark.parametrize("transport", ["braidflow", "aioquic", "tcp", "http"])
@pytest.mark.parametrize("what", [{"gap": 0.001}, {}, {"large": True}], ids=str)
def test_every_transport_moves_every_frame(bench, transport, what):
    result = bench.transfer((transport, 16_000), count=6, **what)
    assert result.in_order
    assert result.last > result.begin > 0
    latencies = np.array(result.latencies)
    assert len(latencies) <= (6 if "gap" in what else 0)  # those made after the first arrived
    assert (latencies > 0).all()
    assert len(result.round_trips) == (6 if transport == "aioquic" and "gap" in what else 0)


def test_a_lossy_relay_stands_between(bench):
    result = bench.transfer(("braidflow", 1200), count=40, gap=0.001, loss=0.2)
    assert result.in_order
    assert 0.02 < bench.lost < 0.5


def test_every_transport_is_measured_where_the_kernel_loses_packets(bench):
    found = quic_link.at_loss(bench, 0.01, 0.01)
    if found.reason:
        pytest.skip(f"`make nftables` as root lets it run: {found.reason}")
    assert set(found.failed.values()) <= {quic_link.TOO_LATE}  # of three frames
    assert {name: len(figures.bulk) for name, figures in found.table.items()} == dict.fromkeys(
        ("braidflow 1200", "aioquic 1200", "tcp", "http"), 1
    )


def test_a_latency_that_could_not_be_measured_is_told(bench, monkeypatch):
    table = {"tcp": quic_link.Figures(p50=[1.0]), "http": quic_link.Figures(rate=[1.0])}
    said = msgspec.json.encode(quic_link.UnderLoss(lost=0.3, table=table)).decode()
    monkeypatch.setattr(lossy_loopback, "run", lambda *args, **rest: said)
    assert quic_link.at_loss(bench, 0.3, 1.0).failed == {"http, latency": quic_link.TOO_LATE}


def test_an_end_that_fails_says_why(bench):
    with pytest.raises(ProcessFailed, match="KeyError"):
        bench.transfer(("pigeon", 0), count=1)
    assert bench.transfer(("tcp", 0), count=1).in_order


@pytest.mark.parametrize("large", [False, True])
def test_a_frame_that_is_missing_or_out_of_order_is_noticed(large):
    job = Job(transport="tcp", keys="", spool="", count=2, large=large)
    for numbers, good in (([0, 1, 2], True), ([0, 2, 1], False), ([0, 1], False), ([1, 2], False)):
        arrivals = Arrivals(job)
        for number in numbers:
            arrivals.take(job.read(job.body(number)))
        assert arrivals.finish().in_order is good


def test_the_last_line_is_json(monkeypatch, capsys):
    monkeypatch.setattr(quic_link, "RATE", {("braidflow", 16_000): 5})
    bulk = {("braidflow", 16_000): 4, ("braidflow", 1200): 4}
    monkeypatch.setattr(quic_link, "BULK", bulk)
    monkeypatch.setattr(quic_link, "LATENCY", quic_link.LATENCY[:2])
    monkeypatch.setattr(quic_link, "LOSSES", (0.01,))

    def cannot(*_: object, **__: object) -> str:
        raise CannotLose("no nft")

    monkeypatch.setattr(lossy_loopback, "run", cannot)
    quic_link.main(["--quick"])
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["name"] == "quic_link"
    assert line["equal"] is True
    assert line["added_to_round_trip_ms"] == pytest.approx(line["ours"] - line["theirs"])
    [found] = line["under_loss"].values()
    assert found["reason"] == "no nft"
    assert list(found["figures"]) == ["braidflow 1200"]
    assert link_ends.ROWS * 8 == 1 << 20
