"""A mailbox hands over everything, in order, and never waits longer than it is told."""

import queue
import signal
import threading
import time
from typing import Any

import pytest

from connectors.mailbox import Mailbox


def test_what_another_thread_puts_comes_in_order() -> None:
    box = Mailbox[int]()
    thread = threading.Thread(target=lambda: [box.put(n) for n in range(20_000)])
    thread.start()
    assert [box.get(10.0) for _ in range(20_000)] == list(range(20_000))
    thread.join()
    with pytest.raises(queue.Empty):
        box.get(0.0)
    with pytest.raises(queue.Empty):
        box.get(0.001)


def test_a_wait_ends_though_a_signal_outlasts_it() -> None:
    """`queue.SimpleQueue` waits for ever here."""
    box, handled = Mailbox[int](), []

    def slow(number: int, frame: Any) -> None:
        handled.append(number)
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass

    before = signal.signal(signal.SIGALRM, slow)
    try:
        for _ in range(5):
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            with pytest.raises(queue.Empty):
                box.get(0.01)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled
