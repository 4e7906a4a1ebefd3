"""Request numbers that no life of a client has used, whatever its clock says."""

from __future__ import annotations

from pathlib import Path

from connectors.files.atomic import replacing

NUMBERS = "numbers"
_LIFE = 10**9
"""Numbers that one life may use; by the clock, so many begin in 1,000 seconds."""


def claim(directory: Path, name: str, first: int) -> int:
    """Return the first number of a client's new life, and let no later life begin with its numbers.

    A file says which numbers are used. It is on the disk before this returns, so that neither a
    crash nor a clock that was set back makes a life reuse numbers of an earlier one that had the
    same directory.

    Args:
        directory: Where the file is, or is made.
        name: The client's.
        first: Where the clock would have it begin.

    Raises:
        ValueError: the file is not what was written.
        OSError: it cannot be read or written.
    """
    path = directory / f"{name}.{NUMBERS}"
    if path.exists():
        text = path.read_text(errors="replace").strip()
        if not (text.isascii() and text.isdigit() and len(text) <= 19):
            raise ValueError(f"{path} is no number: {name!r} may reuse numbers of its requests")
        first = max(first, int(text))
    with replacing(path) as file:
        file.write(b"%d\n" % (first + _LIFE))
    return first
