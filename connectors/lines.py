"""Lines of a file or of standard input, as they are.

    op.input("operations", flow, LinesSource(Path("operations.ndjson")))
    op.input("operations", flow, LinesSource(None))        # standard input

A file is read once, from where a snapshot left off; standard input as lines come, without blocking
the worker, and never again. What a line means is not looked at here.
"""

from __future__ import annotations

import os
import select
import sys
from datetime import timedelta
from pathlib import Path
from typing import IO, NamedTuple

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

_MOST = 1000
"""Lines handed to the flow at a time, at most."""
_CHUNK = 1 << 16


class Line(NamedTuple):
    """A line without its end."""

    number: int
    """From 1; for standard input after a restart again from 1."""
    data: bytes


class LinesSource(FixedPartitionedSource[Line, tuple[int, int]]):
    """The lines of a file, or of standard input.

    A last line needs no end. An empty line is a line.

    Args:
        path: The file; None for standard input.
        longest: Bytes that a line may have.
        wait: How long the worker waits for standard input in one go; meanwhile its other steps
            stand still.

    Raises:
        OSError: when the flow begins, if the file cannot be read.
        ValueError: while it runs, at a line that is too long.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        longest: int = 1 << 20,
        wait: timedelta = timedelta(milliseconds=1),
    ) -> None:
        self._path = path
        self._longest = longest
        self._wait = wait.total_seconds()

    def list_parts(self) -> list[str]:
        """Name the one partition."""
        return ["stdin" if self._path is None else str(self._path)]

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[int, int] | None
    ) -> StatefulSourcePartition[Line, tuple[int, int]]:
        """Open the file where it was left off, or standard input."""
        if self._path is None:
            return _Stdin(self._longest, self._wait)
        return _File(self._path, self._longest, resume_state or (0, 0))


class _File(StatefulSourcePartition[Line, tuple[int, int]]):
    def __init__(self, path: Path, longest: int, at: tuple[int, int]) -> None:
        self._path, self._longest = path, longest
        self._number, self._offset = at
        self._file: IO[bytes] = path.open("rb")
        self._file.seek(self._offset)

    def next_batch(self) -> list[Line]:
        lines: list[Line] = []
        while len(lines) < _MOST and (data := self._file.readline(self._longest + 2)):
            self._number += 1
            self._offset += len(data)
            lines.append(_line(str(self._path), self._number, data, self._longest))
        if not lines:
            raise StopIteration
        return lines

    def snapshot(self) -> tuple[int, int]:
        return self._number, self._offset

    def close(self) -> None:
        self._file.close()


class _Stdin(StatefulSourcePartition[Line, tuple[int, int]]):
    def __init__(self, longest: int, wait: float) -> None:
        self._longest, self._wait = longest, wait
        self._number = 0
        self._rest = b""
        self._ended = False

    def next_batch(self) -> list[Line]:
        if self._ended:
            raise StopIteration
        descriptor = sys.stdin.fileno()
        if not select.select([descriptor], [], [], self._wait)[0]:
            return []
        data = os.read(descriptor, _CHUNK)
        self._ended = not data
        # What had no end so far is a line when the input ends.
        *whole, self._rest = (self._rest + data).split(b"\n")
        if self._ended and self._rest:
            whole.append(self._rest)
        if len(self._rest) > self._longest + 1:  # more than a line and half its end
            whole.append(self._rest)
        lines = []
        for line in whole:
            self._number += 1
            lines.append(_line("standard input", self._number, line, self._longest))
        return lines

    def snapshot(self) -> tuple[int, int]:
        return self._number, 0


def _line(source: str, number: int, data: bytes, longest: int) -> Line:
    data = data.removesuffix(b"\n").removesuffix(b"\r")
    if len(data) > longest:
        raise ValueError(f"{source}, line {number}: more than {longest} bytes")
    return Line(number, data)
