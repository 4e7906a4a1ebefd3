from __future__ import annotations

import errno
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.lock import Busy
from connectors.vote_log import VoteLog, VoteLogDamaged

APPENDS = [[b"one", b""], [b"two" * 10], [b"three", b"four" * 7, b"five"]]


def opened(path: Path, **options: int) -> VoteLog:
    return VoteLog(path, "demo", "a", **options)  # type: ignore[arg-type]


def read(path: Path, **options: int) -> list[bytes]:
    log = opened(path, **options)
    try:
        return log.read()
    finally:
        log.close()


def written(path: Path, *, base: list[bytes] | None = None) -> tuple[bytes, list[int]]:
    """A log of several appends: its bytes, and where its frames end."""
    log = opened(path)
    if base is not None:
        log.append([b"forgotten"])
        log.rewrite(base)
    ends = [log.size]
    for records in APPENDS:
        log.append(records)
        ends.append(log.size)
    log.close()
    return path.read_bytes(), ends


def kept(frames: int, base: list[bytes]) -> list[bytes]:
    return [*base, *(record for records in APPENDS[:frames] for record in records)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["append", "rewrite", "open"]), st.lists(st.binary(max_size=40)))
    )
)
@settings(max_examples=60, deadline=None)
def test_records_come_back(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[bytes]]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "made" / "with parents" / "votes"
    model: list[bytes] = []
    log = opened(path, sync=False)
    for step, records in steps:
        if step == "append":
            log.append(records)
            model += records
        elif step == "rewrite":
            log.rewrite(records)
            model = list(records)
        else:
            log.close()
            log = opened(path, sync=False)
        assert log.read() == model
        assert log.size == path.stat().st_size
    log.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["votes", "votes.lock"]


@pytest.mark.parametrize("base", [[], [b"snapshot" * 5, b"votes"]])
def test_a_tail_torn_at_any_byte_is_dropped(tmp_path: Path, base: list[bytes]) -> None:
    path = tmp_path / "votes"
    data, ends = written(path, base=base)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        if length < ends[0]:
            with pytest.raises(VoteLogDamaged, match=rf"{path}: damaged at byte \d+"):
                opened(path)
            assert path.read_bytes() == data[:length]
            continue
        whole = sum(end <= length for end in ends) - 1
        log = opened(path)
        assert log.read() == kept(whole, base)
        assert path.stat().st_size == log.size == ends[whole]
        log.append([b"next"])
        log.close()
        assert read(path) == [*kept(whole, base), b"next"]


@pytest.mark.parametrize("rest", [b"\0" * 200, random.Random(1).randbytes(200)])
def test_a_tail_of_blocks_never_written_is_dropped(tmp_path: Path, rest: bytes) -> None:
    """A file's length may reach the platter before its bytes: zeros, or what lay there before."""
    path = tmp_path / "votes"
    data, ends = written(path)
    for length in range(ends[-2], len(data)):
        path.write_bytes(data[:length] + rest[: len(data) - length])
        # A byte that happens to be the one written changes nothing.
        expected = 3 if path.read_bytes() == data else 2
        assert read(path) == kept(expected, [])


def test_a_stale_tail_is_not_taken_for_frames(tmp_path: Path) -> None:
    """Frames of another file, or of this one in another place, are not this file's."""
    path, other = tmp_path / "votes", tmp_path / "other"
    data, ends = written(path)
    stale, stale_ends = written(other)
    assert len(stale) == len(data)
    path.write_bytes(data[: ends[1]] + stale[stale_ends[1] :])
    assert read(path) == kept(1, [])
    path.write_bytes(data + data[ends[2] :])
    assert read(path) == kept(3, [])
    path.write_bytes(data[: ends[1]] + data[ends[2] :])
    assert read(path) == kept(1, [])


def test_any_bit_flip_is_found(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    data, ends = written(path, base=[b"snapshot", b"votes"])
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            if position >= ends[-2]:  # cannot be told from a torn append
                assert read(path, sync=False) == kept(2, [b"snapshot", b"votes"])
                continue
            begin = max([0, *(end for end in ends if end <= position)])
            with pytest.raises(VoteLogDamaged) as caught:
                opened(path)
            assert path.read_bytes() == flipped, "a damaged log is left as it is"
            if begin:
                assert f"{path}: damaged at byte {begin}, before whole frames" in str(caught.value)
            else:
                assert f"{path}: damaged at byte " in str(caught.value)


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_no_damage_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    """Whatever becomes of the bytes: what is read, if anything, is what was written first."""
    path = tmp_path_factory.mktemp("log") / "votes"
    data, ends = written(path)
    changed = bytearray(data)
    begin = rng.randrange(len(data))
    end = rng.randint(begin, min(len(data), begin + 60))
    changed[begin:end] = rng.randbytes(rng.choice([0, end - begin, rng.randrange(60)]))
    path.write_bytes(changed)
    try:
        records = read(path, sync=False)
    except VoteLogDamaged:
        return
    whole = next(n for n in range(4) if records == kept(n, []))
    assert data[: ends[whole]] == changed[: ends[whole]]


def test_another_replicas_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    data, _ = written(path)
    for cluster, replica in (("demo", "b"), ("other", "a")):
        with pytest.raises(ValueError, match="the votes of replica 'a' of 'demo', not of"):
            VoteLog(path, cluster, replica)
    assert path.read_bytes() == data
    with pytest.raises(ValueError, match=rf"{len(data)} bytes, and at most 100 are read"):
        opened(path, max_bytes=100)
    for junk in (b"", b"something else entirely" * 10):
        path.write_bytes(junk)
        with pytest.raises(VoteLogDamaged, match="does not begin like a vote log"):
            opened(path)


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    log = opened(path)
    for _ in range(2):
        with pytest.raises(Busy, match="another process has this vote log open"):
            opened(path)
        log.rewrite([b"still held, though the file is another"])
    other = subprocess.run([sys.executable, "-c", WRITER, path], capture_output=True, text=True)
    assert "Busy" in other.stderr
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append([b"x"])
    assert read(path) == [b"still held, though the file is another"]


def test_it_is_bounded(tmp_path: Path) -> None:
    log = opened(tmp_path / "votes", max_bytes=1000)
    log.append([b"x" * 500])
    before = log.size
    for write in (log.append, log.rewrite):
        with pytest.raises(OSError, match="would have") as caught:
            write([b"y" * 990])
        assert caught.value.errno == errno.EFBIG
    assert log.size == before
    log.rewrite([b"z" * 600])
    log.append([b"w" * 200])
    log.close()
    assert read(tmp_path / "votes") == [b"z" * 600, b"w" * 200]


def test_what_is_left_of_a_rewrite_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    _, _ = written(path)
    (tmp_path / "votes.new").write_bytes(b"half of a rewr")
    assert read(path) == kept(3, [])
    assert not (tmp_path / "votes.new").exists()


# A full disk


@pytest.mark.parametrize("size", [10, 1000, 30_000])
def test_a_full_disk_leaves_the_log_as_it_was(small_disk: Path, size: int) -> None:
    path = small_disk / "votes"
    log = opened(path)
    model: list[bytes] = []

    def fill() -> None:
        while True:
            record = b"%d" % len(model) * size
            log.append([record])
            model.append(record)

    with pytest.raises(OSError, match="cannot keep votes: No space left on device") as caught:
        fill()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert log.read() == model
    with pytest.raises(OSError, match="No space left on device"):
        log.rewrite(model)
    assert log.read() == model
    assert not (small_disk / "votes.new").exists()
    log.close()
    log = opened(path)
    assert log.read() == model
    model[:] = [b"short"]
    with pytest.raises(OSError, match="No space left on device"):
        log.rewrite(model * 30_000)
    log.close()
    path.unlink()
    log = opened(path)
    log.rewrite(model)
    with pytest.raises(OSError, match="No space left on device"):
        fill()
    assert len(model) > 2
    log.close()
    assert read(path) == model


def test_a_limit_in_the_middle_of_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    log = opened(path)
    log.append([b"a" * 1000])
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        for write in (log.append, log.rewrite):
            with pytest.raises(OSError, match="cannot keep votes: File too large"):
                write([b"b" * 2000])
            assert path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.append([b"c"])
    log.close()
    assert read(path) == [b"a" * 1000, b"c"]


# Killed writers

WRITER = """
import random, sys
from pathlib import Path
from connectors.vote_log import VoteLog

log = VoteLog(Path(sys.argv[1]), "demo", "a")
records = log.read()
number = int(records[-1].split()[0]) if records else 0
rng = random.Random(number)
print("open", number, flush=True)
while True:
    batch = []
    for _ in range(rng.randrange(1, 5)):
        number += 1
        batch.append(b"%d " % number + b"." * rng.randrange(3000))
    if rng.random() < 0.05:
        log.rewrite([b"%d base" % number])
    else:
        log.append(batch)
    print(number, flush=True)
"""


def test_killing_the_writer_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    rng = random.Random(7)
    reached = 0
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == f"open {reached}\n"
        stop = reached + rng.randrange(1, 800)
        while reached < stop:
            reached = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines(keepends=True)
        writer.stdout.close()
        writer.wait()
        reached = max([reached, *(int(line) for line in rest if line.endswith("\n"))])
        numbers = [int(record.split()[0]) for record in read(path)]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[-1] >= reached
        assert numbers[-1] <= reached + 5, "at most one append was under way"
        reached = numbers[-1]
