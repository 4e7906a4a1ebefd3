import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connectors.files.lock import Busy
from connectors.quic.segment import HEADER
from connectors.quic.spool import Spool, SpoolConflict, SpoolDamaged
from state.frames import Data, Kind


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    """Open spools in one directory, the next one when the last is closed."""
    spools: list[Spool] = []

    def make(**options: Any) -> Spool:
        spools.append(Spool(tmp_path / "spool", **options))
        return spools[-1]

    yield make
    for spool in spools:
        spool.close()


def fill(spool: Spool, count: int, size: int = 10) -> list[bytes]:
    bodies = [str(i).encode().rjust(size, b".") for i in range(count)]
    for body in bodies:
        spool.append(Kind.BYTES, 0, body)
    return bodies


def kept(spool: Spool, limit: int = 1 << 30) -> list[Data]:
    """All frames, read one `limit` at a time."""
    frames: list[Data] = []
    while spool.first + len(frames) < spool.next:
        frames += spool.read(spool.first + len(frames), limit)
    return frames


def bodies(spool: Spool, limit: int = 1 << 30) -> list[bytes]:
    return [frame.body for frame in kept(spool, limit)]


@pytest.mark.parametrize("memory", [0, 1000, 1 << 20])
@pytest.mark.parametrize("segment", [100, 1 << 20])
@pytest.mark.parametrize("limit", [1, 300, 1 << 20])
def test_frames_come_back_from_memory_and_disk(
    opened: Callable[..., Spool], memory: int, segment: int, limit: int
) -> None:
    spool = opened(memory=memory, segment=segment)
    spool.add_schema(7, b"schema")
    frames = [
        Data(0, Kind.BATCH, 7, b"batch"),
        Data(1, Kind.TABLE, 0, b"table" * 100),
        Data(2, Kind.BYTES, 0, b""),
        Data(3, Kind.MESSAGE, 0, b"message"),
    ] + [Data(i, Kind.BYTES, 0, bytes(i)) for i in range(4, 40)]
    for frame in frames:
        assert spool.append(frame.kind, frame.schema, frame.body) == frame.sequence
    assert kept(spool, limit) == frames
    assert spool.held == sum(len(frame.body) + HEADER.size for frame in frames)
    spool.close()
    again = opened(memory=memory, segment=segment)
    assert kept(again, limit) == frames
    assert again.incarnation == spool.incarnation
    assert again.schemas == {7: b"schema"}
    again.prune(35)
    assert again.read(36, limit)[0] == frames[36]
    assert again.held == sum(len(frame.body) + HEADER.size for frame in frames[35:])


def test_a_read_takes_about_its_limit(opened: Callable[..., Spool]) -> None:
    spool = opened(segment=2000, memory=2000)
    fill(spool, 100, size=75)
    for start in range(100):
        taken = spool.read(start, 500)
        assert len(taken) == min(5, 100 - start)
    assert spool.read(100, 500) == []


def test_frames_outside_of_what_is_kept(opened: Callable[..., Spool]) -> None:
    spool = opened()
    fill(spool, 5)
    spool.prune(2)
    for sequence in (1, 6):
        with pytest.raises(ValueError, match=rf"frame {sequence} is not in \[2, 5\)"):
            spool.read(sequence, 100)
    with pytest.raises(ValueError, match="below 6, but only 5 were written"):
        spool.prune(6)
    with pytest.raises(ValueError, match="cannot go back to 6: 5 were written"):
        spool.rewind(6)
    for sequence in (1, 6):
        with pytest.raises(ValueError, match=rf"cut at {sequence}: frames \[2, 5\) are kept"):
            spool.cut(sequence)
    with pytest.raises(ValueError, match="schema 3 is used before it was added"):
        spool.append(Kind.BATCH, 3, b"")
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.append(Kind.BYTES, 0, b"")


def test_pruned_files_are_deleted(opened: Callable[..., Spool], tmp_path: Path) -> None:
    spool = opened(segment=1000)
    fill(spool, 200, size=100)

    def files() -> list[int]:
        return [path.stat().st_size for path in sorted((tmp_path / "spool").glob("*.frames"))]

    assert files() == [1000] * 25
    spool.prune(48)
    assert files() == [1000] * 25
    spool.sync()
    assert files() == [1000] * 19
    spool.prune(57)
    spool.close()
    spool = opened(segment=1000)
    assert (spool.first, spool.held) == (57, 143 * 125)
    spool.prune(150)
    assert files() == [1000] * 7  # too many to wait
    spool.sync()
    spool.prune(200)
    assert spool.held == 0
    assert files() == [1000] * 7
    spool.sync()
    assert files() == [0]
    spool.close()
    again = opened()
    assert (again.first, again.next, again.held) == (200, 200, 0)


def test_the_last_file_is_emptied_when_wholly_pruned(
    opened: Callable[..., Spool], tmp_path: Path
) -> None:
    spool = opened()
    fill(spool, 3, size=1 << 20)
    spool.prune(3)
    spool.sync()
    (last,) = (tmp_path / "spool").glob("*.frames")
    assert (last.name, last.stat().st_size) == (f"{3:020d}.frames", 0)
    assert spool.append(Kind.BYTES, 0, b"more") == 3
    spool.close()
    again = opened()
    assert bodies(again) == [b"more"]
    again.rewind(0)
    assert again.append(Kind.BYTES, 0, b"0".rjust(1 << 20, b".")) == 0


# Starting again


@pytest.mark.parametrize("pruned", [0, 30, 50])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_flow_that_starts_again_is_compared(
    opened: Callable[..., Spool], pruned: int, reopened: bool
) -> None:
    spool = opened(segment=200)
    fill(spool, 50)
    spool.prune(pruned)
    if reopened:
        spool.close()
        spool = opened(segment=200)
    held = spool.held
    for start in (0, 20, 50):
        spool.rewind(start)
        assert spool.cursor == start
        for i in range(start, 50):
            assert spool.append(Kind.BYTES, 0, str(i).encode().rjust(10, b".")) == i
    assert (spool.first, spool.next, spool.held) == (pruned, 50, held)
    assert spool.append(Kind.BYTES, 0, b"new") == 50
    assert bodies(spool)[-1] == b"new"


@pytest.mark.parametrize("wrong", [(Kind.BYTES, 0, b"x"), (Kind.MESSAGE, 0, b"a")])
def test_a_flow_that_changed_its_mind(
    opened: Callable[..., Spool], wrong: tuple[Kind, int, bytes]
) -> None:
    spool = opened()
    spool.append(Kind.BYTES, 0, b"a")
    spool.prune(1)
    spool.rewind(0)
    with pytest.raises(SpoolConflict, match=r"item 0 differs .* use hold=True"):
        spool.append(*wrong)
    assert spool.cursor == 0
    assert spool.append(Kind.BYTES, 0, b"a") == 0


@pytest.mark.parametrize("at", [0, 1, 17, 39, 40])
@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_cutting_drops_what_was_never_sent(
    opened: Callable[..., Spool], at: int, memory: int
) -> None:
    spool = opened(segment=200, memory=memory)
    written = fill(spool, 40)
    spool.sync()
    spool.cut(at)
    assert (spool.next, spool.cursor) == (at, at)
    assert spool.append(Kind.BYTES, 0, b"other") == at
    assert bodies(spool) == [*written[:at], b"other"]
    spool.close()
    again = opened(segment=200)
    assert bodies(again) == [*written[:at], b"other"]
    assert again.held == sum(len(body) + HEADER.size for body in bodies(again))


def test_a_schema_stays_what_it_is(opened: Callable[..., Spool]) -> None:
    spool = opened()
    spool.add_schema(1, b"one")
    spool.add_schema(1, b"one")
    with pytest.raises(ValueError, match="schema 1 is another one already"):
        spool.add_schema(1, b"two")
    assert spool.schemas == {1: b"one"}


# Incarnations and ownership


def test_incarnations_grow_even_when_the_clock_does_not(tmp_path: Path) -> None:
    first = Spool(tmp_path / "s", clock=lambda: 1000)
    first.append(Kind.BYTES, 0, b"a")
    first.close()
    again = Spool(tmp_path / "s", clock=lambda: 9000)
    assert (first.incarnation, again.incarnation, again.next) == (1000, 1000, 1)
    again.close()
    for path in (tmp_path / "s").glob("*.frames"):
        path.unlink()
    for clock, expected in ((5, 1001), (7000, 7000)):
        fresh = Spool(tmp_path / "s", clock=iter([clock]).__next__)
        assert (fresh.incarnation, fresh.first, fresh.next) == (expected, 0, 0)
        fresh.close()
        for path in (tmp_path / "s").glob("*.frames"):
            path.unlink()


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "s", segment=100)
    fill(spool, 20)
    spool.remove()
    assert list((tmp_path / "deep").iterdir()) == []
    other = Spool(tmp_path / "deep" / "s")
    (tmp_path / "deep" / "s" / "mine").touch()
    other.remove()
    assert [path.name for path in (tmp_path / "deep" / "s").iterdir()] == ["mine"]


def test_one_spool_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    code = "import pathlib, sys, connectors.quic.spool as s; s.Spool(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(directory)]
    with_lock = Spool(directory)
    with pytest.raises(Busy, match="another process has this spool open"):
        Spool(directory)
    other = subprocess.run(command, capture_output=True, text=True)
    assert other.returncode == 1
    assert f"another process has this spool open: '{directory}'" in other.stderr
    with_lock.close()
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    ("name", "content"), [("incarnation", None), ("incarnation", b"x"), ("digests", None)]
)
def test_missing_files_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    spool = Spool(tmp_path / "s", segment=100)
    fill(spool, 50)
    spool.prune(30)
    spool.close()
    path = tmp_path / "s" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(SpoolDamaged, match=name):
        Spool(tmp_path / "s")


def test_a_frame_that_changed_on_the_disk_is_not_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", memory=0)
    fill(spool, 10)
    (path,) = (tmp_path / "s").glob("*.frames")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(spool.read(0, 10)) == 1
    with pytest.raises(SpoolDamaged, match="frame 9 is not what was written"):
        spool.read(9, 10)
    spool.close()


# Crashes


def test_a_torn_record_is_cut_off_wherever_it_is_torn(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory)
    written = fill(spool, 3)
    spool.close()
    (path,) = directory.glob("*.frames")
    whole = path.read_bytes()
    record = len(whole) // 3
    for size in range(len(whole) - record, len(whole)):
        path.write_bytes(whole[:size])
        (directory / "digests").write_bytes(bytes(24))
        torn = Spool(directory)
        assert bodies(torn) == written[:2]
        assert torn.append(Kind.BYTES, 0, written[2]) == 2
        torn.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("position", range(35))
def test_a_damaged_last_record_is_cut_off(tmp_path: Path, position: int) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory)
    written = fill(spool, 3)
    spool.close()
    (path,) = directory.glob("*.frames")
    data = bytearray(path.read_bytes())
    data[position - 35] ^= 0x10
    path.write_bytes(data)
    again = Spool(directory)
    assert bodies(again) == written[:2]
    again.close()


@pytest.mark.parametrize("size", range(41))
def test_digests_that_lag_are_made_up_from_the_frames(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory, segment=100)
    written = fill(spool, 5)
    spool.close()
    whole = (directory / "digests").read_bytes()
    (directory / "digests").write_bytes(whole[:size])
    again = Spool(directory)
    assert (directory / "digests").read_bytes() == whole
    again.rewind(0)
    assert [again.append(Kind.BYTES, 0, body) for body in written] == list(range(5))
    again.close()


def test_digests_since_the_last_sync_are_not_trusted(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory, segment=100)
    written = fill(spool, 6)
    spool.sync()
    written += fill(spool, 6)
    spool.close()
    whole = (directory / "digests").read_bytes()
    (directory / "digests").write_bytes(whole[:48] + bytes(48))  # as a power failure may leave it
    again = Spool(directory)
    again.rewind(0)
    assert [again.append(Kind.BYTES, 0, body) for body in written] == list(range(12))
    again.close()


@pytest.mark.parametrize("size", range(44))
def test_torn_schemas_and_marks(tmp_path: Path, size: int) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory, segment=100)
    spool.add_schema(1, b"first")
    spool.add_schema(2, b"second")
    written = fill(spool, 10)
    spool.prune(5)
    spool.close()
    for name in ("schemas", "marks"):
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[:size])
    again = Spool(directory)
    wholes = (size >= 17) + (size >= 35)
    assert again.schemas == dict([(1, b"first"), (2, b"second")][:wholes])
    assert again.first == (5 if size >= 20 else 0)
    assert bodies(again) == written[again.first :]
    again.close()


def test_a_crash_while_the_last_file_is_emptied(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    spool = Spool(directory)
    written = fill(spool, 5)
    spool.prune(5)
    spool.close()
    (path,) = directory.glob("*.frames")
    path.rename(directory / f"{5:020d}.frames")  # and not yet emptied
    again = Spool(directory)
    assert (again.first, again.next, again.held) == (5, 5, 0)
    again.rewind(0)
    assert [again.append(Kind.BYTES, 0, body) for body in [*written, b"new"]] == list(range(6))
    again.close()


WRITER = """
import sys
from pathlib import Path
from connectors.quic.spool import Spool
from state.frames import Kind

spool = Spool(Path(sys.argv[1]), segment=5000, memory=3000)
spool.rewind(0)
while spool.cursor < 1_000_000:
    number = spool.append(Kind.BYTES, 0, b"%d" % spool.cursor * (spool.cursor % 50))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    if number % 97 == 96:
        spool.prune(max(spool.first, number - 300))
    if number % 1501 == 1500:
        spool.sync()
"""


def test_killing_the_writer_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    rng = random.Random(5)
    reached = 0
    incarnations = set()
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        said = -1
        stop = reached + rng.randrange(1, 1500)
        while said < stop:
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines()
        writer.stdout.close()
        writer.wait()
        whole = [int(line) for line in rest[:-1]]
        said = max([said, *whole])
        spool = Spool(directory)
        incarnations.add(spool.incarnation)
        assert spool.next >= max(said + 1, reached)
        assert spool.first <= max(spool.next - 300, 0)
        for frame in kept(spool, 700):
            assert frame.body == b"%d" % frame.sequence * (frame.sequence % 50)
        assert spool.held == sum(len(frame.body) + HEADER.size for frame in kept(spool))
        reached = spool.next
        spool.close()
    assert len(incarnations) == 1


# A full disk


def fill_up(spool: Spool, size: int) -> None:
    while True:
        spool.append(Kind.BYTES, 0, b"%d" % spool.next * size)


@pytest.mark.parametrize("size", [10, 1000, 5000])
@pytest.mark.parametrize("segment", [20_000, 1 << 20])
def test_a_full_disk_stops_and_goes_on(small_disk: Path, size: int, segment: int) -> None:
    directory = small_disk / "s"
    spool = Spool(directory, segment=segment)
    with pytest.raises(OSError, match="cannot keep frames: No space left on device") as caught:
        fill_up(spool, size)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(directory)
    full = spool.next
    assert spool.cursor == full
    assert spool.held == sum(len(body) + HEADER.size for body in bodies(spool))
    spool.prune(full)
    with pytest.raises(OSError, match="cannot keep frames"):
        fill_up(spool, size)
    more = spool.next
    assert more > full + full // 2
    spool.close()
    again = Spool(directory, segment=segment)
    assert again.next == more
    assert bodies(again) == [b"%d" % i * size for i in range(again.first, more)]
    again.close()


def test_a_file_limit_stops_in_the_middle_of_a_record(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(Kind.BYTES, 0, b"a" * 1000)
    (path,) = (tmp_path / "s").glob("*.frames")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(OSError, match="cannot keep frames: File too large"):
            spool.append(Kind.BYTES, 0, b"b" * 1000)
        with pytest.raises(OSError, match="cannot keep frames: File too large"):
            spool.add_schema(1, b"s" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert (spool.next, spool.schemas) == (1, {})
    spool.add_schema(1, b"s" * 2000)
    assert spool.append(Kind.BATCH, 1, b"c") == 1
    assert bodies(spool) == [b"a" * 1000, b"c"]
    spool.close()


# Threads


def test_a_writer_and_a_reader_at_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", memory=2000, segment=4000)
    count = 3000
    found: list[bytes] = []
    failed: list[BaseException] = []

    def reads() -> None:
        try:
            synced = 0
            while len(found) < count:
                found.extend(frame.body for frame in spool.read(len(found), 500))
                spool.prune(max(len(found) - 20, 0))
                if len(found) >= synced + 500:
                    synced = len(found)
                    spool.sync()
        except BaseException as error:
            failed.append(error)

    reader = threading.Thread(target=reads)
    reader.start()
    written = fill(spool, count, size=30)
    reader.join()
    spool.close()
    assert failed == []
    assert found == written


# Any order of calls


class SpoolModel(RuleBasedStateMachine):
    """The spool against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[Kind, int, bytes]] = []
        self.first = self.cursor = 0

    @initialize(
        path=st.integers(0, 2**60),
        memory=st.sampled_from([0, 500, 10_000]),
        segment=st.sampled_from([50, 200, 10_000]),
    )
    def open(self, path: int, memory: int, segment: int) -> None:
        self.options: dict[str, Any] = {"memory": memory, "segment": segment}
        self.directory = Path(os.environ["SPOOL_MODEL"]) / f"{path}-{id(self)}"
        self.spool = Spool(self.directory, **self.options)
        self.spool.add_schema(1, b"schema")
        self.incarnation = self.spool.incarnation

    @rule(
        kind=st.sampled_from([Kind.BATCH, Kind.BYTES]),
        bodies=st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    )
    def append(self, kind: Kind, bodies: list[bytes]) -> None:
        for body in bodies:
            frame = (kind, 1 if kind == Kind.BATCH else 0, body)
            if self.cursor < len(self.frames):
                if self.frames[self.cursor] != frame:
                    with pytest.raises(SpoolConflict):
                        self.spool.append(*frame)
                    return
            else:
                self.frames.append(frame)
            assert self.spool.append(*frame) == self.cursor
            self.cursor += 1

    @precondition(lambda self: self.cursor < len(self.frames))
    @rule(count=st.integers(1, 10))
    def repeat(self, count: int) -> None:
        for frame in self.frames[self.cursor : self.cursor + count]:
            assert self.spool.append(*frame) == self.cursor
            self.cursor += 1

    @rule(share=st.floats(0, 1))
    def prune(self, share: float) -> None:
        to = round(share * len(self.frames))
        self.spool.prune(to)
        self.first = max(self.first, to)

    @rule(share=st.floats(0, 1))
    def rewind(self, share: float) -> None:
        self.cursor = round(share * len(self.frames))
        self.spool.rewind(self.cursor)

    @rule(share=st.floats(0, 1))
    def cut(self, share: float) -> None:
        to = self.first + round(share * (len(self.frames) - self.first))
        self.spool.cut(to)
        del self.frames[to:]
        self.cursor = to

    @rule(share=st.floats(0, 1), limit=st.integers(1, 300))
    def read(self, share: float, limit: int) -> None:
        start = self.first + round(share * (len(self.frames) - self.first))
        frames = self.spool.read(start, limit)
        assert [(f.kind, f.schema, f.body) for f in frames] == self.frames[
            start : start + len(frames)
        ]
        assert bool(frames) == (start < len(self.frames))

    @rule()
    def sync(self) -> None:
        self.spool.sync()

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self._open()

    @precondition(lambda self: len(self.frames) > self.first)
    @rule(share=st.floats(0, 1, exclude_max=True))
    def reopen_torn(self, share: float) -> None:
        """Tear the last record, or all of it, and leave its digest."""
        self.spool.close()
        path = max(self.directory.glob("*.frames"))
        record = HEADER.size + len(self.frames[-1][2])
        if path.stat().st_size >= record:
            os.truncate(path, path.stat().st_size - record + int(share * record))
            self.frames.pop()
        self._open()

    def _open(self) -> None:
        self.spool = Spool(self.directory, **self.options)
        self.cursor = len(self.frames)
        assert self.spool.incarnation == self.incarnation
        assert self.spool.schemas == {1: b"schema"}

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "spool"):
            kept = self.frames[self.first :]
            assert self.spool.first == self.first
            assert self.spool.next == len(self.frames)
            assert self.spool.cursor == self.cursor
            assert self.spool.held == sum(HEADER.size + len(body) for _, _, body in kept)
            digests = (self.directory / "digests").stat().st_size
            assert digests == 8 * len(self.frames)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.remove()
            assert not self.directory.exists()


def test_any_order_of_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPOOL_MODEL", str(tmp_path))
    run_state_machine_as_test(
        SpoolModel, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
