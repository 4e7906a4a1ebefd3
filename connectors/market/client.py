"""A websocket that is kept alive in a thread of its own, and hands over raw messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import process_exception
from websockets.exceptions import ConnectionClosed, InvalidStatus

from connectors.mailbox import Mailbox

_log = logging.getLogger(__name__)

_TOO_BIG = 1009  # RFC 6455, section 7.4.1

Delays = Callable[[], Generator[float]]
Message = tuple[int, bytes]
"""The number of the connection, from 1, and what came over it."""


class FeedError(RuntimeError):
    """The feed cannot work: the exchange refuses the connection or the subscription."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a client connects."""

    url: str
    idle_timeout: float
    max_message: int
    max_messages: int
    delays: Delays


class Client:
    """A thread that connects, subscribes and hands over raw messages, until it is closed.

    At most `max_messages` are handed over and not yet taken; then the socket is not read, and TCP
    holds the exchange back.
    """

    def __init__(self, name: str, greetings: Sequence[str], link: Link) -> None:
        self._messages = Mailbox[Message | Exception]()
        self.connects = self.failures = self.silences = self.oversized = 0
        self._name = name
        self._greetings = greetings
        self._link = link
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"feed-{name}", daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def waiting(self) -> int:
        """How many messages wait to be taken."""
        return len(self._messages)

    def take(self, timeout: float) -> Message | None:
        """Return the next message, or None if none comes in time.

        Raises:
            FeedError: the exchange refuses to be connected to. Any other error is a bug.
        """
        try:
            got = self._messages.get(timeout)
        except queue.Empty:
            return None
        if isinstance(got, Exception):
            self._messages.put(got)
            raise got
        return got

    def taken(self, count: int) -> None:
        """Allow `count` more messages to be read."""
        self._call(self._release, count)

    def close(self) -> None:
        """Disconnect and end the thread."""
        self._call(self._task.cancel)
        self._thread.join(timeout=5)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # The loop is closed once the thread has ended, and then there is nothing left to do.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            return
        except Exception as error:
            # Whatever ends the thread is raised where the flow sees it.
            self._messages.put(error)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._room = asyncio.Semaphore(self._link.max_messages)
        self._ready.set()
        delays = self._link.delays()
        async for connection in connect(
            self._link.url,
            max_size=self._link.max_message,
            reconnect_delays=self._link.delays,
            process_exception=self._failed,
            close_timeout=1,
        ):
            self.connects += 1
            _log.info("%s: connected to %s", self._name, self._link.url)
            began = self._loop.time()
            await self._listen(connection)
            if self._loop.time() - began >= self._link.idle_timeout:
                delays = self._link.delays()
            else:
                # The iterator reconnects at once; a server that hangs up at once needs patience.
                await asyncio.sleep(next(delays))

    async def _listen(self, connection: ClientConnection) -> None:
        try:
            for greeting in self._greetings:
                await connection.send(greeting)
            while True:
                self._messages.put((self.connects, await self._receive(connection)))
        except TimeoutError:
            self.silences += 1
            _log.warning("%s: nothing for %s s, reconnecting", self._name, self._link.idle_timeout)
            # A closing handshake with a peer that is silent would only be waited for.
            connection.transport.abort()
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == _TOO_BIG:
                self.oversized += 1
            _log.warning("%s: disconnected (%s), reconnecting", self._name, closed)

    async def _receive(self, connection: ClientConnection) -> bytes:
        await self._room.acquire()
        try:
            async with asyncio.timeout(self._link.idle_timeout):
                return await connection.recv(decode=False)
        except BaseException:
            self._room.release()
            raise

    def _failed(self, error: Exception) -> Exception | None:
        self.failures += 1
        busy = isinstance(error, InvalidStatus) and error.response.status_code == 429
        fatal = None if busy else process_exception(error)
        if fatal is None:
            _log.warning("%s: cannot connect (%s), trying again", self._name, error)
            return None
        return FeedError(f"{self._name}: {self._link.url} refuses the connection: {error}")

    def _release(self, count: int) -> None:
        for _ in range(count):
            self._room.release()
