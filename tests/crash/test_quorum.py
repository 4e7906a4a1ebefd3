"""SIGKILL a flow that counts votes: the resumed run has an unbroken run's outcomes."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Kills its own process, once at each of the item numbers in KILL_AT; writes the outcomes it has.
FLOW = """
import os, random, signal
from datetime import timedelta
from pathlib import Path
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main
from connectors.files import NdjsonSink
from connectors.marks import output
from operators.quorum import quorum_vote
from state.identity import PrivateIdentity, Roster, TrustStore, approve
from state.quorum import ABSTAIN, QuorumCertificate, Succession, cast

PLACE = Path(os.environ["PLACE"])
POINTS = [int(p) for p in os.environ["KILL_AT"].split(",") if p]
VOTERS = [PrivateIdentity.generate(f"n{i}", bytes([i] * 32)) for i in range(5)]
FIRST = Roster("demo", 1, tuple(v.public for v in VOTERS[:4]))
SECOND = Roster("demo", 2, tuple(v.public for v in VOTERS[1:]))
YES, NO = bytes([1] * 32), bytes([2] * 32)
# Time is what the source says, 100 ms an item, so that it passes alike in all runs.
NOW = [0.0]

def votes(roster, voters, seed):
    rng = random.Random(seed)
    made = []
    for number in range(12):
        for voter in voters:
            choice = rng.choice([YES] * 8 + [NO, ABSTAIN])
            wanted = rng.choice([1, 1, 1, 2])  # every fourth time it is sent twice, or lies
            for turn in range(wanted):
                if turn and rng.random() < 0.5:
                    choice = YES if choice == NO else NO
                expires = rng.choice([5_000, 60_000])
                made.append(cast(voter, roster, f"s{number}", choice, expires=expires))
    rng.shuffle(made)
    return made

ITEMS = [
    *votes(FIRST, VOTERS[:4], 1),
    Succession(SECOND, {v.name: approve(v, FIRST, SECOND) for v in VOTERS[:3]}),
    *votes(SECOND, VOTERS[1:], 2),
]

class Part(StatefulSourcePartition):
    def __init__(self, at):
        self.at = at
    def next_batch(self):
        if self.at == len(ITEMS):
            raise StopIteration
        done = PLACE / "killed"
        killed = done.read_text().split() if done.exists() else []
        if self.at in POINTS and str(self.at) not in killed:
            with done.open("a") as file:
                file.write(f"{self.at} ")
            os.kill(os.getpid(), signal.SIGKILL)
        self.at += 1
        NOW[0] = self.at / 10
        return [ITEMS[self.at - 1]]
    def snapshot(self):
        return self.at

class Ballots(FixedPartitionedSource):
    def list_parts(self):
        return ["ballots"]
    def build_part(self, step_id, for_part, resume_state):
        return Part(resume_state or 0)

SCHEMA = pa.schema([("subject", pa.string()), ("outcome", pa.string())])
def table(name, item):
    subject, outcome = item
    row = {"subject": subject, "outcome": repr(outcome)}
    return name, pa.RecordBatch.from_pylist([row], schema=SCHEMA)

flow = Dataflow("flow")
up = op.input("in", flow, Ballots())
out = quorum_vote(
    "votes", up, 4, 1, trust=TrustStore(FIRST), patience=timedelta(seconds=6), shards=3,
    clock=lambda: NOW[0],
)
for name in ("decisions", "undecided", "evidence", "rejected"):
    rows = op.map(name, getattr(out, name), lambda item, name=name: table(name, item))
    output(name + "_file", rows, NdjsonSink(PLACE / f"{name}.ndjson", SCHEMA))
recovery = RecoveryConfig(PLACE / "recovery", backup_interval=timedelta(0))
run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)
"""
TABLES = ["decisions", "undecided", "evidence", "rejected"]


def test_killed_at_many_points(tmp_path: Path) -> None:
    """Rows are sorted: which of two shards tells first that time is up is up to the engine."""
    points = [1, 17, 70, 101]
    assert run_until_done(tmp_path / "unbroken", FLOW, []) == 0
    assert run_until_done(tmp_path / "killed", FLOW, points) == len(points)
    for name in TABLES:
        unbroken, killed = (
            sorted((tmp_path / run / f"{name}.ndjson").read_text().splitlines())
            for run in ("unbroken", "killed")
        )
        assert len(unbroken) > 2
        assert killed == unbroken, name
