"""Say on standard error what becomes of a process' QUIC links."""

from __future__ import annotations

import logging
import sys

from typing_extensions import override

_LINKS = "braidflow"
"""Over `braidflow.quic` and `braidflow.mesh`."""
_QUIET = 60.0
"""Seconds for which what was said is not said again: a link that fails is tried every second."""


class _Repeats(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage(), record.created
        self._said = {said: at for said, at in self._said.items() if now - at < _QUIET}
        return self._said.setdefault(text, now) == now


class _Lines(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        # Looked up each time: a live table puts its own stream there, to write above itself.
        print(self.format(record), file=sys.stderr, flush=True)


def show_links(job: str) -> None:
    """Print what links say as lines that begin with the job's name, each at most once a minute.

    That is: peers that cannot be reached, are refused or refuse us, links that end, certificates
    that were renewed. Calling it again changes nothing.
    """
    links = logging.getLogger(_LINKS)
    # aioquic reports a refused handshake itself as well, without saying whose.
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    links.setLevel(logging.INFO)
    links.propagate = False
    for handler in [h for h in links.handlers if isinstance(h, _Lines)]:
        links.removeHandler(handler)
    lines = _Lines()
    lines.addFilter(_Repeats())
    lines.setFormatter(logging.Formatter(f"{job}: %(message)s"))
    links.addHandler(lines)
