"""The two ends of a link as processes, for tests that kill them: ``quic_ends.py ROLE DIRECTORY``.
With CLUSTER=address,address it is process ``quic_ends.py ROLE DIRECTORY INDEX`` of a cluster.

The sender writes what it sends to sent.ndjson, the receiver what it gets to received.ndjson; both
tables are exact after restarts. With HOLD=1 the sender's items differ each time it starts.
"""

import os
import random
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import cluster_main, run_main

from connectors.files import NdjsonSink
from connectors.marks import output
from connectors.quic import Identity, QuicSink, QuicSource, Received, send
from connectors.recovery import forget_unfinished

COUNT = int(os.environ.get("COUNT", "400"))
HOLD = os.environ.get("HOLD") == "1"
EPOCH = timedelta(milliseconds=int(os.environ.get("EPOCH_MS", "25")))
SCHEMA = pa.schema({"id": pa.int64(), "salt": pa.int64()})


class Numbers(FixedPartitionedSource[pa.RecordBatch, int]):
    def list_parts(self) -> list[str]:
        return ["numbers"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "NumbersPart":
        return NumbersPart(resume_state or 0)


class NumbersPart(StatefulSourcePartition[pa.RecordBatch, int]):
    def __init__(self, at: int) -> None:
        self._at = at
        self._salt = random.SystemRandom().randrange(1 << 40) if HOLD else 0

    def next_batch(self) -> Iterable[pa.RecordBatch]:
        if self._at >= COUNT:
            raise StopIteration
        self._at += 1
        return [pa.record_batch([[self._at - 1], [self._salt + self._at]], schema=SCHEMA)]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=2)

    def snapshot(self) -> int:
        return self._at


def sender(directory: Path) -> Dataflow:
    flow = Dataflow("sender")
    numbers = op.key_on("key", op.input("numbers", flow, Numbers()), lambda _: "k")
    output("file", numbers, NdjsonSink(directory / "sent.ndjson", SCHEMA))
    sink = QuicSink(
        os.environ["ADDRESS"],
        "numbers",
        identity=Identity.load(directory / "keys", "leaf"),
        peer="root",
        spool=directory / "spool",
        hold=HOLD,
    )
    send("link", numbers, sink)
    return flow


def receiver(directory: Path) -> Dataflow:
    flow = Dataflow("receiver")
    source = QuicSource(
        os.environ["LISTEN"],
        "numbers",
        identity=Identity.load(directory / "keys", "root"),
        peers=["leaf"],
        expect=["leaf"],
        schema=SCHEMA,
    )

    def row(received: Received) -> tuple[str, pa.RecordBatch]:
        return "k", received.item

    rows = op.map("row", op.input("in", flow, source), row)
    output("file", rows, NdjsonSink(directory / "received.ndjson", SCHEMA))
    return flow


if __name__ == "__main__":
    role, place = sys.argv[1], Path(sys.argv[2])
    forget_unfinished(place / f"recovery-{role}")
    recovery = RecoveryConfig(place / f"recovery-{role}", backup_interval=timedelta(0))
    made = sender(place) if role == "sender" else receiver(place)
    if "CLUSTER" in os.environ:
        addresses = os.environ["CLUSTER"].split(",")
        index = int(sys.argv[3])
        cluster_main(made, addresses, index, epoch_interval=EPOCH, recovery_config=recovery)
    else:
        run_main(made, epoch_interval=EPOCH, recovery_config=recovery)
