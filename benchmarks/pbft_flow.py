"""A replica as users run it: in a dataflow, whose edges are the mesh."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from benchmarks.pbft_orders import Told
from connectors.mesh import Meshes, Outgoing, QuicMesh
from connectors.quic.loop import loop
from connectors.vote_log import VoteLog
from jobs.watch import Once, Watch
from operators.pbft import Begin, pbft_replica
from state.pbft import Committed, Replica, Stable, Standing, Transferred
from state.pbft.machines.store import Store


class ReplicaFlow:
    """A replica in a dataflow, in threads of its own.

    Args:
        mesh: Its end of the mesh, which starts at once.
        failed: Called with what the flow failed of, in a thread of its own.
    """

    def __init__(self, mesh: QuicMesh, failed: Callable[[BaseException], None]) -> None:
        self._mesh = mesh
        self._failed = failed
        self._meshes = Meshes([mesh])
        self._meshes.start()
        self._notes: Counter[str] = Counter()
        self._history = hashlib.sha256()
        self._thread: threading.Thread | None = None
        self._store: Store

    def learn(self, addresses: dict[str, str]) -> None:
        """Note where peers are."""
        for name, address in addresses.items():
            if name != self._mesh.name:
                loop().call_soon_threadsafe(self._mesh.learn, name, address)

    def start(self, replica: Replica, store: Store, log: VoteLog) -> None:
        """Run the flow."""
        self._replica, self._store = replica, store
        name = self._mesh.name

        def make(name: str, records: Sequence[bytes]) -> Replica:
            return replica

        flow = Dataflow("replica")
        begin = op.input("begin", flow, Once([(name, Begin(name))]))
        received = op.input("received", flow, self._meshes.source())
        inputs = op.merge("inputs", begin, received)
        out = pbft_replica("pbft", inputs, make, lambda name: log, outgoing=Outgoing)
        op.output("send", out.say, self._meshes.sink())
        op.output("committed", out.committed, Watch(self._committed))
        op.output("events", out.events, Watch(self._happened))
        self._thread = threading.Thread(target=self._run, args=(flow,), name="dataflow")
        self._thread.start()

    def _run(self, flow: Dataflow) -> None:
        try:
            run_main(flow)
        except Exception as error:
            self._failed(error)

    def _committed(self, item: tuple[str, Committed]) -> None:
        self._history.update(item[1].digest)

    def _happened(self, item: tuple[str, Any]) -> None:
        event = item[1]
        if not isinstance(event, Stable | Standing):
            self._notes[type(event).__name__] += 1

    def tell(self, told: Told) -> None:
        """Say how it is doing."""
        standing = self._replica.standing()
        told.final = standing.final if standing.final == standing.executed else -1
        told.state = hashlib.sha256(self._store.snapshot()).hexdigest()
        told.log = "" if self._notes[Transferred.__name__] else self._history.hexdigest()
        told.notes = {name: count for name, count in self._notes.items() if name != "ViewEntered"}

    def close(self) -> None:
        """End the flow."""
        self._meshes.finish()
        if self._thread is not None:
            self._thread.join()
        self._meshes.stop()
