"""The sending end of a link: connect, send what the spool holds, connect again.

Runs in the event loop's thread. The worker appends to the spool and calls :meth:`Dialer.wake`,
which sends a little from the worker's own thread if the link was quiet: the loop would take longer
to wake up than to send. The worker waits for room or for the end with :meth:`Dialer.wait`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from aioquic.asyncio.client import connect

from connectors.quic.connection import ALPN, Code, Connection, Limits
from connectors.quic.identity import Identity
from connectors.quic.loop import loop, run
from connectors.quic.verification import PeerCertificate
from state.delivery import LinkError, Outbox
from state.frames import Frame

log = logging.getLogger("braidflow.quic")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_HANDSHAKE = 5.0
_QUIET = 0.001
"""Seconds since the last frames; more often, the loop sends more of them together."""


class _Link(Connection):
    dialer: Dialer

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.settled = asyncio.Event()
        """The peer is verified, or the connection has ended."""

    def verified(self, peer: PeerCertificate) -> None:
        self.settled.set()
        self.dialer.up(self)

    def terminated(self, code: int, reason: str) -> None:
        self.settled.set()

    def frame_received(self, frame: Frame) -> None:
        self.dialer.received(self, frame)


class Dialer:
    """Keep one link to a receiver up until it is closed.

    Args:
        host: The receiver's host.
        port: Its UDP port.
        peer: The name in its certificate.
        identity: Who this node is.
        outbox: What is to be sent; from here on used under the dialer's lock, but for `release`.
        limits: Sizes and times.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        peer: str,
        identity: Identity,
        outbox: Outbox,
        limits: Limits,
    ) -> None:
        self.host, self.port, self.peer = host, port, peer
        self.outbox = outbox
        self.connections = 0
        self.frames = 0
        self.bytes = 0
        self.link: _Link | None = None
        self._identity = identity
        self._limits = limits
        self._error: LinkError | None = None
        self._lock = threading.RLock()
        """Guards the outbox and the connection. Never taken while `_moved` is held."""
        self._sent_at = 0.0
        self._moved = threading.Condition()
        self._woken = False
        self._task: asyncio.Task[None] | None = None
        run(self._start())

    # Called by the worker

    def wake(self, *, small: bool = False) -> None:
        """Send what has become ready: a small part at once if the link was quiet."""
        if (
            small
            and not self._woken
            and time.monotonic() - self._sent_at > _QUIET
            and self._lock.acquire(blocking=False)
        ):
            try:
                self._pump()
            finally:
                self._lock.release()
        elif not self._woken:
            self._woken = True
            loop().call_soon_threadsafe(self._pump_or_fail)

    def wait(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `ready`, looking again whenever the receiver has acknowledged something.

        Raises:
            LinkError: the link cannot go on.
        """
        with self._moved:
            done = self._moved.wait_for(lambda: self._error is not None or ready(), timeout)
        self.check()
        return done

    def check(self) -> None:
        """Raise the error that ended the link, if one did."""
        if self._error is not None:
            raise LinkError(str(self._error)) from self._error

    def finish(self, count: int) -> None:
        """Tell the receiver that no frame follows the first `count`."""
        with self._lock:
            self.outbox.finish(count)
        loop().call_soon_threadsafe(self._pump_or_fail)

    def close(self) -> None:
        """Close the connection; what was not sent stays in the spool."""
        run(self._close())

    # In the loop's thread

    async def _start(self) -> None:
        self._task = asyncio.create_task(self._keep_up())

    async def _close(self) -> None:
        assert self._task is not None
        if self.link is not None:
            self.link.end(Code.DONE, "the sender is done")
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_HANDSHAKE)

    async def _keep_up(self) -> None:
        pause = _FIRST_PAUSE
        while self._error is None:
            try:
                welcomed = await self._connect_once()
            except (OSError, ValueError, TimeoutError) as error:
                welcomed = False
                why = str(error) or "timeout"
                log.info("%s:%d cannot be reached: %s", self.host, self.port, why)
            except Exception as error:
                # Where this task ends, nothing is sent any more: the worker must not wait for it.
                log.exception("the link to %s at %s:%d ends", self.peer, self.host, self.port)
                failure = LinkError(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
                self._fail(failure)
                return
            if welcomed:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _connect_once(self) -> bool:
        """Connect and stay until the connection ends; return whether the link was up."""
        configuration = self._limits.apply(
            self._identity.client_configuration(server_name=self.peer, alpn=ALPN)
        )

        def create(quic: Any, **rest: Any) -> _Link:
            link = _Link(
                quic, identity=self._identity, allowed=[self.peer], limits=self._limits, **rest
            )
            link.dialer = self
            link.lock = self._lock
            return link

        connecting = connect(
            self.host,
            self.port,
            configuration=configuration,
            create_protocol=create,
            wait_connected=False,
        )
        async with connecting as protocol:
            assert isinstance(protocol, _Link)
            protocol.transmit()
            try:
                async with asyncio.timeout(_HANDSHAKE):
                    await protocol.settled.wait()
            except TimeoutError:
                log.info("%s:%d does not answer", self.host, self.port)
                return False
            await protocol.wait_closed()
            welcomed = self.outbox.connected
            with self._lock:
                self.link = None
                self.outbox.disconnect()
            self._report(protocol)
            return welcomed

    def _report(self, link: Connection) -> None:
        code, reason = link.ended or (Code.DONE, "connection lost")
        log.warning("link to %s at %s:%d ended: %s", self.peer, self.host, self.port, reason)
        if code in (Code.FRAME, Code.STATE):
            self._fail(LinkError(f"{self.peer} at {self.host}:{self.port}: {reason}"))

    def _fail(self, error: LinkError) -> None:
        with self._moved:
            self._error = error
            self._moved.notify_all()

    def up(self, link: _Link) -> None:
        """Begin the exchange: the receiver is who it should be."""
        self.link = link
        self.connections += 1
        link.send([self.outbox.connect()])

    def received(self, link: _Link, frame: Frame) -> None:
        """Take in a frame of the receiver; called by the connection."""
        if link is self.link:
            self.outbox.receive(frame)
            self._pump_or_fail()
            with self._moved:
                self._moved.notify_all()

    def _pump_or_fail(self) -> None:
        try:
            self._pump()
        except (OSError, ValueError) as error:
            # Raised here, it would reach nobody: the worker would wait for what cannot be sent.
            failure = LinkError(str(error))
            failure.__cause__ = error
            self._fail(failure)
            if self.link is not None:
                self.link.end(Code.STATE, "the sender's spool cannot be read")

    # In either thread

    def _pump(self) -> None:
        self._woken = False
        with self._lock:
            if self.link is not None and self.link.ended is None:
                frames = self.outbox.to_send()
                if frames:
                    self._sent_at = time.monotonic()
                    self.bytes += self.link.send(frames)
                    self.frames += len(frames)
