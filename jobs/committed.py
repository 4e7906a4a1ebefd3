"""The log of batches that a replica has committed, and whether the logs of several agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

Row = dict[str, Any]
_BLOCK = 1 << 16

Request = tuple[str, int]
"""A client's name and its request's number."""


class CommittedFile:
    """Batches as lines of JSON, each once and in the order of their numbers, also over restarts.

    A replica that is started again commits anew what came after its last checkpoint: what the file
    has is skipped. A line that a crash has torn is cut off. Numbers are left out only where the
    replica was sent the state by others.

    Raises:
        ValueError: the file is no such log.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        line, whole = _last_line(path)
        self._last: int = _decode(line, path)["seq"] if line else 0
        self._file = path.open("ab")
        self._file.truncate(whole)

    @property
    def last(self) -> int:
        """The number of the last batch; 0 if there is none."""
        return self._last

    def write(self, row: Row) -> None:
        """Add a batch, unless it is there."""
        if row["seq"] > self._last:
            self._file.write(msgspec.json.encode(row) + b"\n")
            self._file.flush()
            self._last = row["seq"]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _last_line(path: Path) -> tuple[bytes, int]:
    """Return the last whole line of a file, if there is one, and where it ends."""
    end = path.stat().st_size if path.exists() else 0
    if not end:
        return b"", 0
    with path.open("rb") as file:
        start, data = end, b""
        # The end of the line before it, and its own.
        while start and data.count(b"\n") < 2:
            block = min(start, _BLOCK)
            start -= block
            file.seek(start)
            data = file.read(block) + data
    whole = data.rfind(b"\n") + 1
    return data[:whole].splitlines()[-1] if whole else b"", start + whole


def read(path: Path) -> Iterator[Row]:
    """Yield the batches of a file, but for a last line that is not whole.

    Raises:
        ValueError: it is no such log.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield _decode(line, path)


def _decode(line: bytes, path: Path) -> Row:
    try:
        row: Row = msgspec.json.decode(line)
        if not isinstance(row["seq"], int):
            raise KeyError("seq")
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {line[:80]!r} is no committed batch: {error}") from None
    return row


@dataclass(slots=True)
class Audit:
    """What the logs of replicas say together."""

    batches: int = 0
    """Up to which number any replica has committed."""
    last: dict[str, int] = field(default_factory=dict)
    """For each replica."""
    left_out: dict[str, int] = field(default_factory=dict)
    """For each replica, how many batches it was sent as part of a state."""
    executed: dict[Request, tuple[int, list[Any]]] = field(default_factory=dict)
    """In which batch each request was executed, and its results."""
    faults: list[str] = field(default_factory=list)
    """Where replicas disagree, and what was executed twice or answered and not executed."""


def audit(
    logs: Mapping[str, Iterable[Row]],
    answers: Mapping[Request, tuple[int, list[Any]]] | None = None,
    transfers: Mapping[str, Collection[int]] | None = None,
) -> Audit:
    """Compare the logs of correct replicas with one another, and with what clients were told.

    Logs agree when the batches of one number are the same wherever they are, with the same results:
    then each is a prefix of the longest, but for what it was sent as a state.

    Args:
        logs: For each replica its batches, as `read` yields them.
        answers: What clients were told: the batch and the results, for each request. There may be
            requests that were executed and not answered.
        transfers: For each replica, after which batches it was sent the state: whatever else its
            log lacks was lost. None if that is not known.

    >>> row = {"seq": 1, "digest": "aa", "view": 0, "requests": []}
    >>> audit({"r1": [row], "r2": [{**row, "digest": "bb"}]}).faults
    ['batch 1: r2 has bb, r1 aa']
    """
    found = Audit()
    batches: dict[int, tuple[str, Row]] = {}
    for name, rows in logs.items():
        last = 0
        for row in rows:
            seq = row["seq"]
            if seq <= last:
                found.faults.append(f"{name} has batch {seq} after {last}")
            left_out = seq - last - 1
            found.left_out[name] = found.left_out.get(name, 0) + left_out
            if left_out > 0 and transfers is not None and seq - 1 not in transfers.get(name, ()):
                found.faults.append(f"{name} lacks the batches {last + 1} to {seq - 1}")
            last = seq
            first, known = batches.setdefault(seq, (name, row))
            if known["digest"] != row["digest"]:
                found.faults.append(
                    f"batch {seq}: {name} has {row['digest']}, {first} {known['digest']}"
                )
            elif known["requests"] != row["requests"]:
                found.faults.append(f"batch {seq}: {name} and {first} have other results")
        found.last[name] = last
        found.batches = max(found.batches, last)
    for seq, (_, row) in sorted(batches.items()):
        for request in row["requests"]:
            key = request["client"], request["number"]
            if request["results"] is None:
                continue
            earlier = found.executed.setdefault(key, (seq, request["results"]))
            if earlier[0] != seq:
                found.faults.append(f"{key} was executed in batches {earlier[0]} and {seq}")
    for key, answer in (answers or {}).items():
        if found.executed.get(key) != answer:
            found.faults.append(f"{key} was answered {answer}, executed {found.executed.get(key)}")
    return found
