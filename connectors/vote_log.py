"""What a replica must not forget: its votes, on disk before they are sent.

A log is one file. A header names its replica; then come frames, each the records of one `append`
(or of a `rewrite`, which is the first frame of a new file):

    header  8 bytes of magic, u16 version, 16 bytes of nonce, u16 length, cluster and replica as a
            msgpack array, 8 bytes of digest of all this
    frame   4 bytes of marker, u32 length, 8 bytes of digest, the records as a msgpack array

Integers are little-endian. The nonce is drawn for every file; marker and digests depend on it and
on the frame's place, so bytes that lay on the disk before, or that a client put into a record, are
never taken for a frame.

A file appears under its name only when its header and first frame are on the platter, and a frame
is synced before the next is written. So only the last of several frames can be torn, by a crash in
the middle of its `append`, which had not returned: it is dropped. Anything else that is not whole
was damaged later, and nothing is skipped: whoever has lost votes must not vote again under its
name. What cannot be told from a torn frame is damage to the last one after it had been synced
(Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018): that replica
forgets one step, and counts as one of the f faulty ones.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from connectors.files.atomic import sync_directory, write_all
from connectors.files.lock import lock

X = TypeVar("X")

MAX_BYTES: Final = 1 << 30
"""Bytes of a log's file."""
_MAGIC = b"BRDVOTES"
_VERSION = 1
_HEAD = struct.Struct("<8sH16sH")
_FRAME = struct.Struct("<4sI8s")
_PLACE = struct.Struct("<QI")
_DIGEST = 8

_encoder = msgspec.msgpack.Encoder()
_records = msgspec.msgpack.Decoder(list[bytes])
_owners = msgspec.msgpack.Decoder(tuple[str, str])


class VoteLogDamaged(ValueError):
    """A vote log is not what was written, other than by a torn end."""


class VoteLog:
    """The vote log of one replica.

    Opening makes the file and its directory if they are missing, holds its lock until `close`,
    drops a torn end and sees to it that what remains is on the platter: a replica acts on it at
    once. Not safe to call from several threads at a time.

    A missing file is an empty log: a replica whose log was deleted has forgotten its votes, and
    must not take part under its old name.

    Args:
        path: the file; `<path>.lock` and, while it is rewritten, `<path>.new` lie beside it.
        cluster: the group's name.
        replica: whose votes they are.
        sync: wait for the disk. Without, a killed process loses nothing, but a power failure may
            lose votes that were sent, or leave a log that is damaged.
        max_bytes: of the file; protocols that take checkpoints keep theirs short.

    Raises:
        Busy: the log is open elsewhere.
        VoteLogDamaged: the file is damaged beyond a torn end, or is no vote log.
        ValueError: it is another replica's, of another version, or larger than `max_bytes`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "votes"
    >>> log = VoteLog(path, "demo", "a")
    >>> log.append([b"prepare 1", b"commit 1"])
    >>> log.append([b"prepare 2"])
    >>> log.close()
    >>> log = VoteLog(path, "demo", "a")
    >>> log.read()
    [b'prepare 1', b'commit 1', b'prepare 2']
    >>> log.rewrite([b"checkpoint 2"])
    >>> log.read()
    [b'checkpoint 2']
    >>> log.close()
    """

    def __init__(
        self,
        path: Path,
        cluster: str,
        replica: str,
        *,
        sync: bool = True,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._path = path
        self._new = path.with_name(f"{path.name}.new")
        self._cluster = cluster
        self._replica = replica
        self._sync = sync
        self._max_bytes = max_bytes
        self._broken = False
        self._fd = -1
        made = [each for each in path.parents if not each.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lock(path.with_name(f"{path.name}.lock"), "vote log", path)
        try:
            self._new.unlink(missing_ok=True)
            for directory in made:
                self._sync_directory(directory.parent)
            if path.exists():
                self._open()
            else:
                self.rewrite([])
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def read(self) -> list[bytes]:
        """Return all records, oldest first.

        Raises:
            VoteLogDamaged: the file was changed by someone else.
        """
        self._check_open()
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            data = file.read()
        records, end = self._form.read(self._path, data)
        if end != self._end or len(data) != end:
            raise VoteLogDamaged(f"{self._path}: changed at byte {end} since it was opened")
        return records

    def append(self, records: Sequence[bytes]) -> None:
        """Add records, all or none; they are on the platter when this returns.

        Raises:
            OSError: they were not written (the disk is full, the log would be larger than
                `max_bytes`), and the log is as before; or the disk failed, and the log takes no
                more until it is opened again, which tells what it has.
        """
        self._check_open()
        if not records:
            return
        frame = self._form.frame(self._end, records)
        self._check_size(self._end + len(frame))
        try:
            write_all(self._fd, frame, self._end)
        except OSError as error:
            raise self._failure(error) from error
        if self._sync:
            self._to_disk(os.fdatasync, self._fd)
        self._end += len(frame)

    def rewrite(self, records: Sequence[bytes]) -> None:
        """Put records in the place of all others, at once or not at all.

        Raises:
            OSError: as in `append`; the disk must have room for the old log and the new.
        """
        if self._fd >= 0:
            self._check_open()
        form = _Form.new(self._cluster, self._replica)
        data = form.head + form.frame(len(form.head), records)
        self._check_size(len(data))
        fd = -1
        try:
            fd = os.open(self._new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            write_all(fd, data, 0)
            if self._sync:
                os.fsync(fd)
            self._new.rename(self._path)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            self._new.unlink(missing_ok=True)
            raise self._failure(error) from error
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._form, self._end = fd, form, len(data)
        self._sync_directory(self._path.parent)

    def close(self) -> None:
        """Close the file and let go of its lock. Twice is once."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR)
        size = os.fstat(self._fd).st_size
        if size > self._max_bytes:
            raise ValueError(f"{self._path}: {size} bytes, and at most {self._max_bytes} are read")
        data = self._path.read_bytes()
        self._form = _Form.of(self._path, data, self._cluster, self._replica)
        _, self._end = self._form.read(self._path, data)
        if self._end < size:
            os.ftruncate(self._fd, self._end)
        # A life that was killed may have left what the kernel has and the disk has not, or a name
        # that its directory has not.
        if self._sync:
            self._to_disk(os.fsync, self._fd)
        self._sync_directory(self._path.parent)

    def _sync_directory(self, directory: Path) -> None:
        if self._sync:
            self._to_disk(sync_directory, directory)

    def _to_disk(self, sync: Callable[[X], None], what: X) -> None:
        try:
            sync(what)
        except OSError as error:
            # What is in the page cache after a failed sync says nothing of the disk (Rebello et
            # al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
            self._broken = True
            raise self._failure(error) from error

    def _check_open(self) -> None:
        if self._fd < 0:
            raise ValueError(f"{self._path}: the vote log is closed")
        if self._broken:
            raise OSError(errno.EIO, "the vote log failed before: open it again", str(self._path))

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise OSError(errno.EFBIG, f"the vote log would have {size} bytes", str(self._path))

    def _failure(self, error: OSError) -> OSError:
        return OSError(error.errno, f"cannot keep votes: {error.strerror}", str(self._path))


class _Form:
    """The bytes of one file: its header, and frames that belong in no other."""

    def __init__(self, head: bytes, nonce: bytes) -> None:
        self.head = head
        self._nonce = nonce
        self._marker = hashlib.sha256(b"marker" + nonce).digest()[:4]

    @classmethod
    def new(cls, cluster: str, replica: str) -> _Form:
        nonce = os.urandom(16)
        owner = _encoder.encode((cluster, replica))
        head = _HEAD.pack(_MAGIC, _VERSION, nonce, len(owner)) + owner
        return cls(head + _digest(head), nonce)

    @classmethod
    def of(cls, path: Path, data: bytes, cluster: str, replica: str) -> _Form:
        """Check the header of a file."""
        if len(data) < _HEAD.size or data[:8] != _MAGIC:
            raise VoteLogDamaged(f"{path}: damaged at byte 0: it does not begin like a vote log")
        _, version, nonce, length = _HEAD.unpack_from(data)
        end = _HEAD.size + length
        head = data[: end + _DIGEST]
        if _digest(data[:end]) != data[end : end + _DIGEST]:
            raise VoteLogDamaged(f"{path}: damaged at byte 0: the header is not whole")
        if version != _VERSION:
            raise ValueError(f"{path}: a vote log of version {version}; this is {_VERSION}")
        found = _owners.decode(data[_HEAD.size : end])
        if found != (cluster, replica):
            raise ValueError(
                f"{path}: the votes of replica {found[1]!r} of {found[0]!r}, "
                f"not of {replica!r} of {cluster!r}"
            )
        return cls(head, nonce)

    def frame(self, position: int, records: Sequence[bytes]) -> bytes:
        """Return a frame that is to lie at `position`."""
        body = _encoder.encode(records)
        return _FRAME.pack(self._marker, len(body), self._seal(position, body)) + body

    def read(self, path: Path, data: bytes) -> tuple[list[bytes], int]:
        """Return the records of a file's whole frames, and where the last of them ends."""
        records: list[bytes] = []
        view = memoryview(data)
        position = first = len(self.head)
        while (end := self._end_of(view, position)) is not None:
            records += _records.decode(view[position + _FRAME.size : end])
            position = end
        if position == first:
            raise VoteLogDamaged(
                f"{path}: damaged at byte {position}: the first frame is not whole"
            )
        later = data.find(self._marker, position + 1)
        while later >= 0:
            if self._end_of(view, later) is not None:
                raise VoteLogDamaged(
                    f"{path}: damaged at byte {position}, before whole frames (at byte {later}): "
                    "votes are lost, so this replica must not go on under its name"
                )
            later = data.find(self._marker, later + 1)
        return records, position

    def _end_of(self, data: memoryview, position: int) -> int | None:
        """Return where the frame at `position` ends, None if there is no whole one."""
        if position + _FRAME.size > len(data):
            return None
        marker, length, seal = _FRAME.unpack_from(data, position)
        end: int = position + _FRAME.size + length
        if marker != self._marker or end > len(data):
            return None
        return end if self._seal(position, data[position + _FRAME.size : end]) == seal else None

    def _seal(self, position: int, body: bytes | memoryview) -> bytes:
        state = hashlib.sha256(self._nonce + _PLACE.pack(position, len(body)))
        state.update(body)
        return state.digest()[:_DIGEST]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST]
