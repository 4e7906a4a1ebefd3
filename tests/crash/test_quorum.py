"""SIGKILL a flow that counts votes: the resumed run has an unbroken run's outcomes."""

from pathlib import Path

from tests.crash.killed_flow import run_until_done

# Writes the outcomes it has.
FLOW = """
import random
from datetime import timedelta
import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Dataflow
from operators.quorum import quorum_vote
from state.identity import PrivateIdentity, Roster, TrustStore, approve
from state.quorum import ABSTAIN, QuorumCertificate, Succession, cast
from tests.crash.killing import Items, keep, run

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

def item(at):
    NOW[0] = (at + 1) / 10
    return ITEMS[at]

SCHEMA = pa.schema([("subject", pa.string()), ("outcome", pa.string())])
def table(name, item):
    subject, outcome = item
    row = {"subject": subject, "outcome": repr(outcome)}
    return name, pa.RecordBatch.from_pylist([row], schema=SCHEMA)

flow = Dataflow("flow")
up = op.input("in", flow, Items(len(ITEMS), item))
out = quorum_vote(
    "votes", up, 4, 1, trust=TrustStore(FIRST), patience=timedelta(seconds=6), shards=3,
    clock=lambda: NOW[0],
)
for name in ("decisions", "undecided", "evidence", "rejected"):
    rows = op.map(name, getattr(out, name), lambda item, name=name: table(name, item))
    keep(name, rows, SCHEMA)
run(flow)
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
