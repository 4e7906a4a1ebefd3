"""A queue from other threads to the main one, whose waits end although signals come.

`queue.SimpleQueue.get(timeout=...)` may wait for ever (seen in CPython 3.11): when a handler of
signals takes longer than what is left of the timeout, the C code goes on with a negative one, which
means none. A dataflow's worker is the main thread, where handlers run.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Items that any thread puts and one thread takes, in order.

    >>> box = Mailbox()
    >>> box.put("a")
    >>> box.get(0.0), len(box)
    ('a', 0)
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item, and wake who waits for it."""
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # it has rung, and nobody has looked since
            self._bell.release()

    def get(self, timeout: float) -> T:
        """Return the next item; wait for it at most `timeout` seconds.

        Raises:
            queue.Empty: none came.
        """
        if timeout > 0 and not self._items:
            end = time.monotonic() + timeout
            # The bell may have rung for what was taken without waiting.
            while not self._items and self._bell.acquire(timeout=max(end - time.monotonic(), 0)):
                pass
        try:
            return self._items.popleft()
        except IndexError:
            raise queue.Empty from None
