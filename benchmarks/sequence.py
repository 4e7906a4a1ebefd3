"""Replicated text against pycrdt (Yjs) and loro: `python -m benchmarks.sequence [--data PATH]`.

PATH is a folder of recordings of real typing in the form of josephg/editing-traces (JSON, also
gzipped). Without it two sessions are generated: one writer, and two who write at the same time and
see each other's edits late. Characters outside ASCII are replaced by "?", since the three libraries
count code points, bytes of UTF-8 and code points.

What is timed: every operation (an insertion or a deletion of a run) is made at one replica, encoded
to bytes on its own, decoded and applied at the other replica. In recordings with several agents
each agent is a replica, and takes in others' operations when the recording says that it had seen
them. So the rate counts editing, encoding, decoding and applying of each operation.

Sizes: `Sequence.to_bytes()`; `pycrdt.Doc.get_update()`, which is Yjs' update encoding version 1;
loro's `ExportMode.Snapshot`, which keeps deleted text. Load: from these bytes to the text.

All three end with the recorded text, or the line says that they do not. Where replicas insert at
one place at the same time, Yjs' rule is another one than that of loro and ours, so its text may
differ; what is asked of it there is that its replicas agree.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import loro

from benchmarks.rivals import Timing, alternate, report
from benchmarks.sequence_rivals import Loro, Ours, Pycrdt, Replica
from state.crdt.sequence import Sequence

TARGET = 50_000
"""Operations a second, each edited, encoded, decoded and applied."""


@dataclass(frozen=True)
class Step:
    """One operation at one replica, after it has taken in others' operations up to a number."""

    agent: int
    pulls: tuple[tuple[int, int, int], ...]
    index: int
    deleted: int
    text: str


@dataclass(frozen=True)
class Recording:
    """Operations in the order they were made, and the text that all replicas end with."""

    name: str
    agents: int
    steps: tuple[Step, ...]
    end: str | None

    @property
    def concurrent(self) -> bool:
        """Whether replicas edit at the same time."""
        return self.agents > 1


def plain(text: str) -> str:
    """Return `text` with "?" for every character outside ASCII."""
    return "".join(c if c < "\x80" else "?" for c in text)


def schedule(name: str, transactions: list[dict[str, Any]], end: str | None) -> Recording:
    """Return what each replica does, from transactions with agents, parents and patches."""
    agents = 1 + max(t.get("agent", 0) for t in transactions)
    known: list[list[int]] = []  # per transaction: how many operations of each agent it builds on
    taken = [[0] * agents for _ in range(agents)]
    steps: list[Step] = []
    for number, transaction in enumerate(transactions):
        agent = transaction.get("agent", 0)
        seen = [0] * agents
        for parent in transaction.get("parents", [number - 1] if number else []):
            seen = [max(pair) for pair in zip(seen, known[parent], strict=True)]
        if any(a > b for a, b in zip(taken[agent], seen, strict=True)):
            raise ValueError(f"{name}: transaction {number} forgets what its agent had seen")
        pulls = tuple(
            (other, taken[agent][other], seen[other])
            for other in range(agents)
            if other != agent and taken[agent][other] < seen[other]
        )
        for index, deleted, text in transaction["patches"]:
            for part in ((deleted, ""), (0, plain(text))):
                if part != (0, ""):
                    steps.append(Step(agent, pulls, index, *part))
                    pulls = ()
                    seen[agent] += 1
        taken[agent] = seen
        known.append(list(seen))
    return Recording(name, agents, tuple(steps), None if end is None else plain(end))


def read(path: Path) -> Recording:
    """Read a recording in the form of josephg/editing-traces."""
    data = path.read_bytes()
    found = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    transactions = found["txns"]
    if found.get("startContent"):
        transactions = [{"patches": [[0, 0, found["startContent"]]]}, *transactions]
    return schedule(path.name.split(".")[0], transactions, found["endContent"])


def generate(agents: int, edits: int, seed: int) -> Recording:
    """Write a session: bursts of typing with slips, jumps of the cursor, pastes and cuts.

    Agents see each other's edits in bursts too. Positions are those of the text an agent saw, which
    loro keeps while the session is written.
    """
    rng = random.Random(seed)
    replicas = [Loro(agent).document for agent in range(agents)]
    cursors = [0] * agents
    heads: list[int | None] = [None] * agents
    transactions: list[dict[str, Any]] = []
    while len(transactions) < edits:
        agent = rng.randrange(agents)
        replica, text = replicas[agent], replicas[agent].get_text("text")
        parents = {heads[agent]}
        if agents > 1 and rng.random() < 0.5:
            other = rng.choice([a for a in range(agents) if a != agent])
            replica.import_(replicas[other].export(loro.ExportMode.Snapshot()))
            parents.add(heads[other])
        length = text.len_unicode
        if rng.random() < 0.3:
            cursors[agent] = rng.randint(0, length)
        cursor = min(cursors[agent], length)
        for _ in range(rng.randint(5, 40)):
            length, draw = text.len_unicode, rng.random()
            if draw < 0.8 or not cursor:
                typed = rng.choice("aeiou tnsrlh") if draw < 0.797 else "pasted words " * 9
                patch = [cursor, 0, typed]
                text.insert(cursor, typed)
                cursor += len(typed)
            elif draw < 0.997:
                cursor -= 1
                patch = [cursor, 1, ""]
                text.delete(cursor, 1)
            else:
                cut = min(cursor, 100)
                cursor -= cut
                patch = [cursor, cut, ""]
                text.delete(cursor, cut)
            known = [p for p in parents if p is not None]
            transactions.append({"agent": agent, "parents": known, "patches": [patch]})
            parents = {len(transactions) - 1}
        heads[agent] = len(transactions) - 1
        cursors[agent] = cursor
        replica.commit()
    kind = "generated, one writer" if agents == 1 else f"generated, {agents} writers"
    for late in replicas[1:]:
        replicas[0].import_(late.export(loro.ExportMode.Snapshot()))
    return schedule(kind, transactions, replicas[0].get_text("text").to_string())


def replay(recording: Recording, make: Callable[[int], Replica]) -> list[Replica]:
    """Replay a recording; the last replicas' states all hold everything."""
    replicas = [make(agent) for agent in range(max(2, recording.agents))]
    sent: list[list[bytes]] = [[] for _ in replicas]
    taken = [[0] * len(replicas) for _ in replicas]
    edits = [replica.edit for replica in replicas]
    applies = [replica.apply for replica in replicas]
    for step in recording.steps:
        agent = step.agent
        for other, start, stop in step.pulls:
            apply = applies[agent]
            for delta in sent[other][start:stop]:
                apply(delta)
            taken[agent][other] = stop
        sent[agent].append(edits[agent](step.index, step.deleted, step.text))
    for agent, apply in enumerate(applies):
        for other, deltas in enumerate(sent):
            if other != agent:
                for delta in deltas[taken[agent][other] :]:
                    apply(delta)
    return replicas


def apply_only(recording: Recording) -> float:
    """Return how many operations a second a third replica decodes and applies."""
    replicas = [Ours(agent) for agent in range(recording.agents)]
    sent: list[list[bytes]] = [[] for _ in replicas]
    order: list[bytes] = []
    for step in recording.steps:
        for other, start, stop in step.pulls:
            for delta in sent[other][start:stop]:
                replicas[step.agent].apply(delta)
        order.append(replicas[step.agent].edit(step.index, step.deleted, step.text))
        sent[step.agent].append(order[-1])
    follower = Sequence()
    start_time = time.perf_counter()
    for delta in order:
        follower.apply(delta)
    return len(order) / (time.perf_counter() - start_time)


def load(make: Callable[[int], Replica], data: bytes) -> str:
    """Return the text of a saved state."""
    replica = make(99)
    replica.apply(data)
    return replica.text()


def milliseconds(action: Callable[[], object], rounds: int) -> float:
    """Return the median time of `action`."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def compare(recording: Recording, rounds: int) -> tuple[Timing, dict[str, Any]]:
    """Replay with all three; return the times against pycrdt and what to print."""
    sides: dict[str, Callable[[int], Replica]] = {"ours": Ours, "pycrdt": Pycrdt, "loro": Loro}
    ends: dict[str, list[str]] = {}

    def run(name: str) -> Callable[[], list[Replica]]:
        return lambda: replay(recording, sides[name])

    def agree(a: list[Replica], b: list[Replica]) -> bool:
        texts = [replica.text() for replica in a], [replica.text() for replica in b]
        if any(len(set(side)) > 1 for side in texts):
            return False
        if recording.end not in (None, texts[0][0]):
            return False
        return recording.concurrent or texts[0][0] == texts[1][0]

    against_pycrdt = alternate(run("ours"), run("pycrdt"), agree, rounds=rounds)
    against_loro = alternate(run("ours"), run("loro"), agree, rounds=rounds)
    saved: dict[str, bytes] = {}
    for name in sides:
        replicas = run(name)()
        ends[name] = [replica.text() for replica in replicas]
        saved[name] = replicas[0].save()
    seconds = {
        "ours": statistics.median(against_pycrdt.ours + against_loro.ours),
        "pycrdt": statistics.median(against_pycrdt.theirs),
        "loro": statistics.median(against_loro.theirs),
    }
    count = len(recording.steps)
    figures: dict[str, Any] = {
        "operations": count,
        "per_second": {name: round(count / seconds[name]) for name in sides},
        "applied_per_second": round(statistics.median(apply_only(recording) for _ in range(3))),
        "bytes": {name: len(saved[name]) for name in sides},
        "load_ms": {
            name: round(milliseconds(lambda n=name: load(sides[n], saved[n]), 3), 1)  # type: ignore[misc]
            for name in sides
        },
        "text_as_recorded": {name: ends[name][0] == recording.end for name in sides},
    }
    equal = against_pycrdt.equal and against_loro.equal
    return Timing(against_pycrdt.ours, against_pycrdt.theirs, equal), figures


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Replicated text against pycrdt and loro.")
    parser.add_argument("--data", type=Path, help="a folder of editing traces (JSON, gzipped)")
    parser.add_argument("--edits", type=int, default=20_000, help="length of generated sessions")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.data is None:
        recordings = [generate(agents, arguments.edits, seed=agents) for agents in (1, 2)]
    else:
        paths = [p for p in arguments.data.iterdir() if p.name.endswith((".json", ".json.gz"))]
        recordings = sorted(map(read, paths), key=lambda r: (r.concurrent, r.name))
        if not recordings:
            parser.error(f"no recordings (*.json or *.json.gz) in {arguments.data}")
    cases: dict[str, Any] = {}
    headline: Timing | None = None
    all_equal = True
    for recording in recordings:
        timing, figures = compare(recording, arguments.rounds)
        headline = headline or timing
        all_equal = all_equal and timing.equal
        cases[recording.name] = figures
        print(f"{recording.name}: {figures['operations']:,} operations")
        print(f"{'':<26}{'ours':>10}{'pycrdt':>10}{'loro':>10}")
        for title, key in (
            ("operations a second", "per_second"),
            ("saved, bytes", "bytes"),
            ("loaded, ms", "load_ms"),
        ):
            row = figures[key]
            print(f"  {title:<24}" + "".join(f"{row[n]:>10,}" for n in ("ours", "pycrdt", "loro")))
        print(f"  decoded and applied only{figures['applied_per_second']:>10,}")
        differing = [n for n, same in figures["text_as_recorded"].items() if not same]
        print(f"  text as recorded: {'not by ' + ', '.join(differing) if differing else 'all'}")
    assert headline is not None
    slowest = min(case["per_second"]["ours"] for case in cases.values())
    report(
        "sequence",
        Timing(headline.ours, headline.theirs, all_equal),
        target=None,
        operations_per_second=slowest,
        operations_per_second_target=TARGET,
        smaller_than_pycrdt=all(c["bytes"]["ours"] < c["bytes"]["pycrdt"] for c in cases.values()),
        cases=cases,
    )


if __name__ == "__main__":
    main()
