"""A group of replicas and a client, each a process of its own, for one measurement."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from benchmarks.json_process import JsonProcess, ProcessFailed
from benchmarks.pbft_load import Load
from benchmarks.pbft_orders import (
    CLIENT,
    FAILED,
    Answered,
    Ask,
    Begin,
    End,
    Order,
    Peers,
    Tell,
    Told,
)
from connectors.quic import Limits
from connectors.quic.certificates import make_authority, make_node
from connectors.testing.relay import UdpRelay
from jobs.processes import free_ports
from state.pbft import Settings

_RUN = "from benchmarks.pbft_node import main; main()"
_PATIENCE = 120.0
_SETTLE = 20.0
_WATCH = 0.1
"""Seconds between two looks at whether all replicas run."""
T = TypeVar("T")


class Process(JsonProcess):
    """A process that carries out orders."""

    def __init__(self) -> None:
        super().__init__("-c", _RUN, patience=_PATIENCE)

    def result(self, kind: type[T]) -> T:
        """Wait for the answer to the oldest order.

        Raises:
            ProcessFailed: there is none; with the reason, if the process said one.
        """
        line = self.answer()
        if line.startswith(FAILED):
            raise ProcessFailed(line[len(FAILED) :].decode().strip())
        return msgspec.json.decode(line, type=kind)


class Pool:
    """Processes that serve one group after the other, and where their files are."""

    def __init__(self, directory: Path, replicas: int) -> None:
        self.directory = directory
        self.names = [f"r{i}" for i in range(replicas)]
        self.keys = directory / "keys"
        make_authority(self.keys)
        for name in (*self.names, CLIENT):
            make_node(self.keys, name)
        self.processes = {name: Process() for name in (*self.names, CLIENT)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.close()


class Running:
    """A group that runs, from entering the context to leaving it.

    Args:
        pool: The processes.
        n: Replicas.
        transport: As in `Begin`.
        settings: Of the protocol.
        limits: Of QUIC.
        sync: Whether vote logs wait for the disk.
        loss: Which part of the UDP datagrams is lost, of each link and direction.
    """

    def __init__(
        self,
        pool: Pool,
        n: int,
        transport: str,
        settings: Settings,
        *,
        limits: Limits,
        sync: bool = True,
        loss: float = 0.0,
    ) -> None:
        self._pool = pool
        self._n = n
        self._transport = transport
        self._settings = settings
        self._limits = limits
        self._sync = sync
        self._loss = loss
        self._relays: list[UdpRelay] = []
        self._stack = ExitStack()
        self.peers = {name: pool.processes[name] for name in (*pool.names[:n], CLIENT)}

    def __enter__(self) -> Self:
        for name, process in self.peers.items():
            process.give(self._begin(name))
        addresses = {name: process.result(str) for name, process in self.peers.items()}
        self._all(Peers(addresses), type(None))
        return self

    def _begin(self, name: str) -> Begin:
        listen, advertise = "127.0.0.1:0", None
        if self._loss:
            (port,) = free_ports(1)
            relay = UdpRelay(("127.0.0.1", port), loss=self._loss, seed=len(self._relays))
            self._relays.append(self._stack.enter_context(relay))
            listen, advertise = f"127.0.0.1:{port}", f"127.0.0.1:{relay.address[1]}"
        return Begin(
            name=name,
            replicas=list(self.peers)[: self._n],
            transport=self._transport,
            keys=str(self._pool.keys),
            logs=str(self._pool.directory / "logs"),
            settings=self._settings,
            limits=self._limits,
            sync=self._sync,
            listen=listen,
            advertise=advertise,
        )

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessFailed, BrokenPipeError):
            self._all(End(), type(None))
        self._stack.close()

    def _all(self, order: Order, kind: type[T]) -> dict[str, T]:
        for process in self.peers.values():
            process.give(order)
        return {name: process.result(kind) for name, process in self.peers.items()}

    def ask(self, load: Load) -> Answered:
        """Have the client make requests.

        Raises:
            ProcessFailed: they were not answered, or a replica failed, which is told at once.
        """
        client = self.peers[CLIENT]
        client.give(Ask(load))
        with self._watched():
            answered = client.result(Answered)
        if answered.error:
            raise ProcessFailed(answered.error)
        return answered

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Do not wait for the client when a replica has failed."""
        done = threading.Event()
        failed: list[str] = []

        def watch() -> None:
            while not failed and not done.wait(_WATCH):
                failed.extend(name for name, peer in self.peers.items() if peer.ended)
            if failed and CLIENT not in failed:
                self.peers[CLIENT].kill()

        watcher = threading.Thread(target=watch, name="watch")
        watcher.start()
        try:
            yield
        except ProcessFailed as error:
            if not failed or failed[0] == CLIENT:
                raise
            raise ProcessFailed(f"{failed[0]} failed: {self._reason(failed[0])}") from error
        finally:
            done.set()
            watcher.join()

    def _reason(self, name: str) -> str:
        try:
            self.peers[name].result(Told)
        except ProcessFailed as error:
            return str(error)
        return "it ended"

    def told(self) -> dict[str, Told]:
        """Return how all are doing."""
        return self._all(Tell(), Told)

    def spent(self) -> tuple[float, int]:
        """Return the processor seconds that all have used, and the messages they have sent."""
        told = self.told().values()
        return sum(each.cpu for each in told), sum(each.sent for each in told)

    @property
    def lost(self) -> float:
        """Which part of the datagrams was lost on purpose."""
        lost = sum(relay.counts.lost for relay in self._relays)
        return lost / max(1, lost + sum(relay.counts.forwarded for relay in self._relays))

    def settled(self) -> dict[str, Told]:
        """Wait until all replicas are equally far; return how all are doing then.

        Raises:
            ProcessFailed: they do not get there.
        """
        end = time.monotonic() + _SETTLE
        while time.monotonic() < end:
            told = self.told()
            finals = {told[name].final for name in list(self.peers)[: self._n]}
            if len(finals) == 1 and -1 not in finals:
                return told
            time.sleep(0.05)
        raise ProcessFailed(f"{self._transport}: after {_SETTLE:g} s replicas are not equally far")


def equal(told: dict[str, Told], replicas: Sequence[str]) -> bool:
    """Return whether all replicas have the same state, by the same batches where that is known."""
    states: set[Any] = {told[name].state for name in replicas}
    logs = {told[name].log for name in replicas} - {""}
    return len(states) == 1 and len(logs) <= 1
