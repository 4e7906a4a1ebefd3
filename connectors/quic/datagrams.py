"""When the datagrams of a connection go out, and from which thread.

aioquic's protocol sends after every datagram that it takes in, and sets its timer anew each time.
Here

- what there is to answer goes out once for all datagrams that one pass of the loop has read, or
  `pause` later: the thread is then free for whoever waits for what they brought;
- a timer that is due early is left alone: it looks again when it is due;
- a worker may send at once, under the connection's lock, which spares it the loop's waking up;
- a timeout sends two probes, as RFC 9002, 6.2.4 allows, one a little after the other. Each timeout
  is twice as long as the one before until an acknowledgement comes: with 30 % of all packets lost,
  half of all single probes stay unanswered, and a link can stand still for seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import Any, cast

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.connection import NetworkAddress, QuicConnection

from connectors.quic.address import widen

_SECOND_PROBE = 0.005
"""Seconds from a probe to the second one: each gets an acknowledgement of its own."""


class Datagrams(QuicConnectionProtocol):
    """A connection that two threads may send on.

    Made in the loop's thread. All that touches aioquic's state holds `lock`.
    """

    lock: threading.RLock
    """Held while the connection is used. Set before there is a second thread, if not its own."""
    pause = 0.0
    """Seconds that answers to what came may wait; less than the 25 ms that peers are told."""

    def __init__(self, quic: QuicConnection, **rest: Any) -> None:
        super().__init__(quic, **rest)
        self.lock = threading.RLock()
        self._thread = threading.get_ident()
        self._end: socket.socket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Widen the buffers of a socket that was dialled with; that of a listener has wide ones."""
        super().connection_made(transport)
        widen(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Close what another thread has sent on."""
        super().connection_lost(exc)
        with self.lock:
            if self._end is not None:
                self._end.close()
                self._end = None

    def datagram_received(self, data: bytes | str, addr: NetworkAddress) -> None:
        """Take in a datagram, and answer soon."""
        with self.lock:
            self._quic.receive_datagram(cast(bytes, data), addr, now=self._loop.time())
            self._process_events()
            if self._transmit_task is None:
                if self.pause:
                    self._transmit_task = self._loop.call_later(self.pause, self.transmit)
                else:
                    self._transmit_task = self._loop.call_soon(self.transmit)

    def close(self, error_code: int = 0, reason_phrase: str = "") -> None:
        """Close the connection."""
        with self.lock:
            super().close(error_code, reason_phrase)

    def transmit(self) -> None:
        """Send what may go now, from whichever thread this is."""
        with self.lock:
            if threading.get_ident() != self._thread:
                self._transmit_elsewhere()
                return
            if self._transmit_task is not None:
                self._transmit_task.cancel()
                self._transmit_task = None
            transport = cast(asyncio.DatagramTransport, self._transport)
            for data, to in self._quic.datagrams_to_send(now=self._loop.time()):
                transport.sendto(data, to)
            self._set_timer()

    def _transmit_elsewhere(self) -> None:
        # The transport and the loop's own clock are for the loop's thread alone.
        transport = cast(asyncio.DatagramTransport, self._transport)
        if self._end is None:
            shared = transport.get_extra_info("socket")
            self._end = socket.socket(fileno=os.dup(shared.fileno()))
            self._end.setblocking(False)
        for data, to in self._quic.datagrams_to_send(now=time.monotonic()):
            try:
                self._end.sendto(data, to)
            except OSError:
                # A full buffer: the transport waits.
                self._loop.call_soon_threadsafe(transport.sendto, data, to)
        due = self._quic.get_timer()
        if due is None or self._timer is None or due < cast(float, self._timer_at):
            self._loop.call_soon_threadsafe(self._set_timer)

    def _set_timer(self) -> None:
        with self.lock:
            due = self._quic.get_timer()
            if self._timer is not None:
                if due is not None and cast(float, self._timer_at) <= due:
                    return
                self._timer.cancel()
                self._timer = self._timer_at = None
            if due is not None:
                self._timer = self._loop.call_at(due, self._handle_timer)
                self._timer_at = due

    def _handle_timer(self) -> None:
        with self.lock:
            due = self._quic.get_timer()
            if due is not None and due > self._loop.time():
                # What it was set for is done.
                self._timer = self._timer_at = None
                self._set_timer()
            else:
                recovery = self._quic._loss
                timeouts = recovery._pto_count
                super()._handle_timer()
                if recovery._pto_count > timeouts and recovery.handshake_confirmed:
                    self._loop.call_later(_SECOND_PROBE, self._probe_again)

    def _probe_again(self) -> None:
        with self.lock:
            if self._quic._loss._pto_count:  # no acknowledgement has come so far
                self._quic._send_probe()
                self.transmit()
