"""The event loop of all QUIC links of a process, in a thread of its own.

Bytewax's workers block; sockets must not wait for them. Worker threads hand work over with
``loop().call_soon_threadsafe``; what they send themselves they send under a connection's lock
(:mod:`connectors.quic.datagrams`).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

_lock = threading.Lock()
_running: tuple[int, asyncio.AbstractEventLoop] | None = None


def loop() -> asyncio.AbstractEventLoop:
    """Return the loop, and start its thread at the first call in a process."""
    global _running
    with _lock:
        if _running is None or _running[0] != os.getpid():
            made = uvloop.new_event_loop()
            threading.Thread(target=made.run_forever, name="quic", daemon=True).start()
            _running = os.getpid(), made
        return _running[1]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine` in the loop's thread and wait for its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop()).result()
