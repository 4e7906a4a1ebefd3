"""Host metrics: read from a directory like /proc, and from this machine's own."""

import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from connectors.events import HostSource
from state.schemas import EVENTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


class Machine:
    """A directory like /proc, and a clock, both set by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.set("self", "self", 0, 0, 0)

    def set(self, pid: object, name: str, started: int, waited_ns: int, slices: int) -> None:
        place = self.path / str(pid)
        place.mkdir(exist_ok=True)
        before = " ".join(["S", *["0"] * 18])
        (place / "stat").write_text(f"{pid} ({name}) {before} {started} 0 0\n")
        (place / "schedstat").write_text(f"12345 {waited_ns} {slices}\n")

    def source(self, limit: int | None = None) -> HostSource:
        return HostSource(limit, proc=self.path, clock=lambda: self.now)

    def tick(self) -> None:
        self.now += timedelta(seconds=1)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def start(machine: Machine, limit: int | None = None, taken: int | None = None):
    source = machine.source(limit)
    return source.build_part("s", source.list_parts()[0], taken)


def test_what_ran_since_the_sample_before_is_an_event(machine: Machine) -> None:
    machine.set(7, "web (1) x", 100, 5_000_000, 10)
    machine.set(8, "idle", 50, 1, 1)
    part = start(machine)
    assert part.next_batch() == []
    machine.tick()
    machine.set(7, "web (1) x", 100, 11_000_000, 14)
    machine.set(9, "new", 200, 3_000_000, 2)
    (batch,) = part.next_batch()
    assert batch.schema.equals(EVENTS)
    rows = {row["user"]: row for row in batch.to_pylist()}
    assert set(rows) == {"7@100", "9@200"}
    assert rows["7@100"]["endpoint"] == "web (1) x"
    assert rows["7@100"]["latency_ms"] == pytest.approx(6 / 4)
    assert rows["9@200"]["latency_ms"] == pytest.approx(3 / 2)
    assert {row["time"] for row in rows.values()} == {machine.now}


def test_an_id_used_again_is_another_process(machine: Machine) -> None:
    machine.set(7, "old", 100, 9_000_000, 1000)
    part = start(machine)
    machine.tick()
    machine.set(7, "old", 101, 1_000_000, 1)
    (batch,) = part.next_batch()
    assert batch["user"].to_pylist() == ["7@101"]
    assert batch["latency_ms"].to_pylist() == [1.0]


def test_what_cannot_be_read_is_left_out(machine: Machine) -> None:
    machine.set(7, "gone", 1, 1, 1)
    part = start(machine)
    machine.tick()
    machine.set(7, "gone", 1, 2, 2)
    (machine.path / "7" / "schedstat").unlink()
    assert part.next_batch() == []


def test_it_ends_after_the_limit_and_a_restart_counts_on(machine: Machine) -> None:
    part = start(machine, limit=3)
    machine.tick()
    part.next_batch()
    assert part.snapshot() == 1
    again = start(machine, limit=3, taken=part.snapshot())
    for _ in range(2):
        assert again.next_awake() > machine.now
        machine.tick()
        again.next_batch()
    assert again.next_awake() is None
    with pytest.raises(StopIteration):
        again.next_batch()


def test_missed_samples_are_not_made_up_for(machine: Machine) -> None:
    part = start(machine)
    for _ in range(5):
        machine.tick()
    part.next_batch()
    assert part.next_awake() == machine.now
    part.next_batch()
    assert part.snapshot() == 2
    assert part.next_batch() == []
    assert part.next_awake() == machine.now + timedelta(seconds=1)


def test_this_machine(tmp_path: Path) -> None:
    source = HostSource(None, every=timedelta(milliseconds=1))
    part = source.build_part("s", source.list_parts()[0], None)
    mine: list[dict] = []
    # A process that sleeps and wakes has run, whatever else the machine does.
    for _ in range(200):
        time.sleep(0.002)
        for batch in part.next_batch():
            mine += [r for r in batch.to_pylist() if r["user"].startswith(f"{os.getpid()}@")]
        if mine:
            break
    assert mine
    assert mine[0]["latency_ms"] >= 0


def test_without_statistics_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="host metrics need Linux"):
        HostSource(1, proc=tmp_path)
    with pytest.raises(ValueError, match="must be positive"):
        HostSource(1, every=timedelta())


def test_it_ends_when_it_is_told_to(machine: Machine) -> None:
    stopped: list[bool] = []
    source = HostSource(
        None,
        every=timedelta(hours=1),
        stopped=lambda: bool(stopped),
        proc=machine.path,
        clock=lambda: machine.now,
    )
    part = source.build_part("s", source.list_parts()[0], None)
    assert part.next_batch() == []
    awake = part.next_awake()
    assert awake is not None
    assert awake - machine.now < timedelta(seconds=1)
    stopped.append(True)
    with pytest.raises(StopIteration):
        part.next_batch()
