"""Deliberate bugs in the protocol, and the proof that the tests catch each.

`python -m tests.simulation.mutants` puts one bug after the other into a copy of the code and runs
tests on it until one fails: those of the module that has the bug, then the simulations (or with
`--simulations` these alone). `NAME...` only those, `--list` lists them. What no test catches is
named at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TESTS = (
    # The first hundred schedules catch most; no need to wait for the rest.
    "tests/simulation/test_pbft_schedules.py::test_nothing_goes_wrong_in_a_thousand_schedules[0]",
    "tests/simulation/test_pbft_schedules.py::test_nothing_goes_wrong_in_a_thousand_schedules[1]",
    "tests/simulation/test_pbft_evidence.py",
    "tests/simulation/test_pbft_fast.py",
    "tests/simulation/test_pbft_liveness.py",
    "tests/simulation/test_pbft_shipped_bugs.py",
    "tests/simulation/test_pbft_transfer.py",
    "tests/simulation/test_pbft_schedules.py",
    "tests/simulation/test_pbft_twins.py",
)


class Edit(NamedTuple):
    """A passage of a file, which must be there exactly once, and what is put in its place."""

    file: str
    old: str
    new: str


class Mutant(NamedTuple):
    """A bug."""

    name: str
    what: str
    edits: tuple[Edit, ...]


def one(name: str, what: str, file: str, old: str, new: str) -> Mutant:
    """Return a bug that is one edit of a file of `state/pbft`."""
    return Mutant(name, what, (Edit(file, old, new),))


MUTANTS = (
    # -- ordering ---------------------------------------------------------------------------------
    Mutant(
        "digest",
        "the batch of a proposal is not compared with its digest",
        (
            Edit(
                "ordering.py",
                'if digest("batch", message.batch) != message.digest:',
                "if False:",
            ),
            Edit(
                "ordering.py",
                "            self.take_batch(sender, message.batch)\n",
                "            self._slots._batches[message.digest] = (\n"
                "                message.batch, decode_batch(message.batch))\n"
                "            self.accept_all()\n",
            ),
        ),
    ),
    one(
        "prepared-f",
        "f prepares are enough",
        "ordering.py",
        "for each in slot.prepares.values()) >= quorum - 1",
        "for each in slot.prepares.values()) >= port.group.f",
    ),
    one(
        "prepared-at-once",
        "commits are sent for what is not prepared",
        "ordering.py",
        ">= quorum - 1",
        ">= 0",
    ),
    one(
        "prepared-any",
        "prepares for other digests count",
        "ordering.py",
        "sum(each == slot.digest for each in slot.prepares.values())",
        "len(slot.prepares)",
    ),
    one(
        "committed-f",
        "f + 1 commits are enough",
        "ordering.py",
        "if len(names) >= self._port.group.quorum:",
        "if len(names) > self._port.group.f:",
    ),
    one(
        "committed-any",
        "commits for other digests count",
        "ordering.py",
        "names = {name for name, each in slot.commits.items() if each == vote}",
        "names = {*slot.commits}",
    ),
    one(
        "primary-prepares",
        "a prepare of the primary counts besides its proposal",
        "ordering.py",
        "            or sender == self._port.group.primary(self.view)\n",
        "",
    ),
    Mutant(
        "duplicate-votes",
        "a prepare that comes twice counts twice",
        (
            Edit(
                "ordering.py",
                "slot, slot.prepares.get(sender)):",
                "slot, None):",
            ),
            Edit(
                "ordering.py",
                "        slot.prepares[sender] = message.digest\n",
                '        slot.prepares[f"{sender} {len(slot.prepares)}"] = message.digest\n',
            ),
        ),
    ),
    one(
        "prepare-of-another-view",
        "prepares of any view count",
        "ordering.py",
        "            message.view != self.view\n"
        "            or not self.active\n"
        "            or not self._slots.inside(message.seq)\n"
        "            or sender ==",
        "            not self.active\n"
        "            or not self._slots.inside(message.seq)\n"
        "            or sender ==",
    ),
    one(
        "proposal-of-another-view",
        "proposals of any view are accepted",
        "ordering.py",
        "            message.view != self.view\n"
        "            or not self.active\n"
        "            or not self._slots.inside(message.seq)\n"
        "            or primary ==",
        "            not self.active\n"
        "            or not self._slots.inside(message.seq)\n"
        "            or primary ==",
    ),
    one(
        "proposal-unsigned",
        "the signature of a proposal is not checked",
        "ordering.py",
        "            if not valid(port.keys, primary, message):\n",
        "            if False:\n",
    ),
    one(
        "requests-unsigned",
        "the signatures of requests are not checked",
        "requests.py",
        "if not valid(self._keys, request.client, request):",
        "if False:",
    ),
    one(
        "macs-unchecked",
        "the sender of a bundle is whoever it says",
        "authentication.py",
        "    if not keys.mac_valid(sender, data, bundle[:MAC_BYTES]):\n",
        "    if False:\n",
    ),
    one(
        "watermarks",
        "slots above the high watermark are accepted",
        "slots.py",
        "return self.low < seq <= self.low + self.window",
        "return self.low < seq",
    ),
    one(
        "decided-by-one",
        "one replica is believed that a batch is committed",
        "ordering.py",
        "if slot.committed is None and len(views) > self._port.group.f:",
        "if slot.committed is None and views:",
    ),
    one(
        "decided-is-no-commit",
        "who knows that a batch is committed does not count as one who has prepared it",
        "ordering.py",
        "if known == vote[1]}",
        "if known == vote[1] and not name}",
    ),
    one(
        "decided-untold",
        "who left a view is not told what was committed in it",
        "repair.py",
        "            if slot.committed is not None and slot.seq <= self._ledger.final:\n",
        "            if False:\n",
    ),
    one(
        "claims-without-bound",
        "as many batches are accepted for a slot as views fail",
        "ordering.py",
        "        return len(slot.preprepared) >= most_fresh(self._port.group.n)\n",
        "        return False\n",
    ),
    one(
        "blind-to-equivocation",
        "two proposals for a slot are no evidence",
        "ordering.py",
        "        if slot.signature and other != slot.digest and valid(",
        "        if False and valid(",
    ),
    one(
        "checked-by-number",
        "a request is not checked if another one with its number was",
        "requests.py",
        "        if checked is not None and checked[0] == request:\n",
        "        if checked is not None:\n",
    ),
    one(
        "far-ahead",
        "a client may ask for any number, and fill the primary's room with others than a backup's",
        "requests.py",
        "        if request.number >= request.low + self._settings.max_waiting:\n",
        "        if False:\n",
    ),
    one(
        "not-reminded",
        "a primary is not told again of a request that was lost on its way",
        "replica.py",
        "        if not self.active or self._ordering.leads:\n            return\n        primary,",
        "        if True:\n            return\n        primary,",
    ),
    one(
        "rests",
        "who is kept from what others have prepared waits for nothing",
        "replica.py",
        "            or self._vouched(slot)\n",
        "",
    ),
    # -- execution --------------------------------------------------------------------------------
    Mutant(
        "out-of-order",
        "batches are executed as they are committed",
        (
            Edit(
                "ledger.py",
                "        slot = self._slots.get(seq)\n"
                "        if slot is None or slot.committed is None:\n"
                "            return False\n"
                "        view, digest = slot.committed\n",
                "        ready = [s for s in self._slots if s.seq > self.final and s.committed\n"
                "                 and self._slots.batch(s.committed[1])]\n"
                "        if not ready:\n"
                "            return False\n"
                "        slot, seq = ready[0], ready[0].seq\n"
                "        view, digest = slot.committed\n",
            ),
            Edit("execution.py", "        assert seq == self.seq + 1\n", ""),
        ),
    ),
    one(
        "no-sessions",
        "a request is executed as often as it is proposed",
        "sessions.py",
        "return not self.over(request.client, request.number) and (",
        "return (",
    ),
    one(
        "no-rollback",
        "what was executed too early is not undone",
        "ledger.py",
        "        if self.executed == self.final:\n            return\n",
        "        if True:\n            return\n",
    ),
    one(
        "speculative-unasked",
        "proposals are executed before they are prepared, and answered as if they were",
        "ledger.py",
        "return fast or (tentative and self.executed == self.final and slot.is_prepared())",
        "return fast or tentative",
    ),
    # -- clients ----------------------------------------------------------------------------------
    one(
        "client-f",
        "a client believes f replicas",
        "client.py",
        "if committed > group.f:",
        "if committed >= group.f:",
    ),
    one(
        "client-tentative-f",
        "a client believes f + 1 tentative replies",
        "client.py",
        "for each in here) >= group.quorum:",
        "for each in here) > group.f:",
    ),
    one(
        "client-mixes-views",
        "tentative and speculative replies of different views count together",
        "client.py",
        "here = [each for each in equal if each.view == view or each.phase == Phase.COMMITTED]",
        "here = equal",
    ),
    one(
        "client-mixes-histories",
        "replies after different histories count together",
        "client.py",
        "alike[reply.seq, reply.history, reply.digest]",
        'alike[0, b"", reply.digest]',
    ),
    one(
        "client-speculative-quorum",
        "a client believes a quorum of speculative replies (fast)",
        "client.py",
        "if fast and len(here) == group.n:",
        "if fast and len(here) >= group.quorum:",
    ),
    one(
        "client-asks-once",
        "a client asks nobody but the primary",
        "client.py",
        "for replica in self.group.replicas:",
        "for replica in self.group.replicas[:1]:",
    ),
    # -- views ------------------------------------------------------------------------------------
    one(
        "lowest-view",
        "a new view begins with the batch of the lowest view",
        "selection.py",
        "max(found)[2]",
        "min(found)[2]",
    ),
    one(
        "selection-ignores-P",
        "a batch is chosen though others have prepared something else later (A1)",
        "selection.py",
        "if agreeing >= group.quorum and vouching > group.f:",
        "if vouching > group.f:",
    ),
    one(
        "selection-ignores-Q",
        "a batch is chosen that only one claims to know (A2)",
        "selection.py",
        "if agreeing >= group.quorum and vouching > group.f:",
        "if agreeing >= group.quorum:",
    ),
    one(
        "selection-impatient",
        "a slot is filled with nothing although something may be decided there (B)",
        "selection.py",
        "        if not found and sum(claim is None for claim in claims) < group.quorum:\n",
        "        if False:\n",
    ),
    Mutant(
        "selection-of-few",
        "f + 1 view changes are enough",
        tuple(
            Edit("selection.py", f"{what} {sign} group.quorum", f"{what} {instead} group.f")
            for what, sign, instead in (
                ("len(changes)", "<", "<="),
                ("behind", ">=", ">"),
                ("agreeing", ">=", ">"),
                ("for claim in claims)", "<", "<="),
            )
        ),
    ),
    one(
        "selection-empty",
        "a new view begins with nothing",
        "selection.py",
        "return Selection(checkpoint, slots[:used])",
        "return Selection(checkpoint, [])",
    ),
    one(
        "fast-forgotten",
        "a view change knows nothing of speculative answers (fast)",
        "selection.py",
        "            found += _fast(accepted[seq], group)\n",
        "            pass\n",
    ),
    one(
        "fast-tie",
        "what was only accepted wins against what was prepared in the same view (fast)",
        "selection.py",
        "found.append((view, 1, digest))",
        "found.append((view, -1, digest))",
    ),
    one(
        "fast-believes-one",
        "one is believed in which view a batch was accepted (fast)",
        "selection.py",
        "(sorted(views, reverse=True)[group.f], 0, digest)",
        "(max(views), 0, digest)",
    ),
    one(
        "timer",
        "timeouts do not double",
        "views.py",
        "settings.timeout * 2.0 ** min(self._failures, 30)",
        "settings.timeout",
    ),
    one(
        "waits-for-its-own-view",
        "those who went on to a later view do not count for giving up on one",
        "views.py",
        "wanted = sum(each.view >= self.view for",
        "wanted = sum(each.view == self.view for",
    ),
    one(
        "no-join",
        "f + 1 others who want a later view are not followed",
        "views.py",
        "        if len(others) > f and others[f] > self.view:\n",
        "        if False:\n",
    ),
    one(
        "new-view-unverified",
        "a NEW-VIEW is not compared with what it must follow from",
        "views.py",
        "if found != (new_view.checkpoint, new_view.selected):",
        "if found is None:",
    ),
    Mutant(
        "new-view-twice",
        "a view that has begun begins again with another NEW-VIEW",
        (
            Edit(
                "views.py",
                "        if new_view.view == self.view and self.active:\n",
                "        if new_view == self.new_view:\n",
            ),
            Edit(
                "views.py",
                "                if slot.digest is None:\n",
                "                if slot.digest != digest:\n"
                "                    slot.begin(self.view)\n",
            ),
        ),
    ),
    one(
        "blind-to-two-beginnings",
        "two NEW-VIEWs for a view are no evidence",
        "views.py",
        "            if known is not None and known != new_view and valid(",
        "            if False and valid(",
    ),
    one(
        "new-view-unsigned",
        "anybody may begin a view",
        "views.py",
        "        if not valid(port.keys, primary, new_view):\n",
        "        if False:\n",
    ),
    one(
        "view-change-unsigned",
        "anybody may want a view for others",
        "views.py",
        "        if not valid(self._port.keys, change.replica, change):\n",
        "        if False:\n",
    ),
    Mutant(
        "accuses-of-moving-on",
        "two view changes of different views are taken for evidence",
        (
            Edit(
                "views.py",
                "            return\n"
                "        if known is not None and known.view == change.view:\n"
                "            self._ordering.accusations.append("
                "Accusation(change.replica, known, change))\n"
                "            return\n",
                "            return\n"
                "        if known is not None:\n"
                "            self._ordering.accusations.append("
                "Accusation(change.replica, known, change))\n",
            ),
            Edit(
                "evidence.py",
                "if type(first) is not type(second) or first.view != second.view:",
                "if type(first) is not type(second):",
            ),
        ),
    ),
    # -- the vote log, checkpoints and transfers --------------------------------------------------
    one(
        "amnesia",
        "a replica begins anew when it is started again",
        "restart.py",
        "    for data in log:\n",
        "    for data in ():\n",
    ),
    one(
        "forgets-acceptance",
        "what was accepted is not in the vote log",
        "ordering.py",
        "        self._port.persist(Accepted(self.view, slot.seq, slot.digest, slot.signature))\n",
        "",
    ),
    one(
        "forgets-preparation",
        "what was prepared is not in the vote log",
        "ordering.py",
        "            port.persist(Prepared(self.view, slot.seq, slot.digest))\n",
        "",
    ),
    one(
        "forgets-views",
        "that a view was abandoned is not in the vote log",
        "views.py",
        "        port.persist(Moved(change))\n",
        "",
    ),
    one(
        "forgets-checkpoints",
        "a CHECKPOINT is sent before what it stands for is in the vote log",
        "ledger.py",
        "            self._port.persist_notes()\n",
        "",
    ),
    one(
        "forgets-learnt-batches",
        "a batch that was committed and never accepted is not in the vote log",
        "ledger.py",
        "            self._port.note_batch(digest, data)\n",
        "",
    ),
    one(
        "adopted-is-stable",
        "a state that f + 1 vouch for is taken as one that a quorum has",
        "ledger.py",
        "        self._vouch(snapshot)\n        self.settle()\n",
        "        self._vouch(snapshot)\n        self._checkpoints.settle(snapshot)\n"
        "        self._slots.advance(snapshot.seq)\n",
    ),
    one(
        "forgets-adopted",
        "a state that came from others and is not stable yet is not in the vote log",
        "restart.py",
        "        records.append(Adopted(adopted.seq, adopted.digest, adopted.data))\n",
        "        pass\n",
    ),
    one(
        "new-view-is-stable",
        "the checkpoint that a view begins with is taken as one that a quorum has",
        "views.py",
        "        self._ledger.settle()\n        self.apply()\n",
        "        if new_view.checkpoint.seq <= self._ledger.final:\n"
        "            self._ledger.settle_at(new_view.checkpoint)\n        self.apply()\n",
    ),
    one(
        "forgets-at-checkpoints",
        "votes above a checkpoint are lost when the log is written anew",
        "restart.py",
        "        if slot.prepared is not None or claims:\n",
        "        if False:\n",
    ),
    Mutant(
        "sends-first",
        "votes are sent before they are written",
        (
            Edit(
                "port.py",
                "        effects += self._effects\n        self._effects = []\n        return",
                "        effects.sort(key=lambda effect: not isinstance(effect, Send))\n"
                "        effects += self._effects\n        self._effects = []\n        return",
            ),
        ),
    ),
    one(
        "transfer-unverified",
        "parts of a state are not compared with their hashes",
        "checkpoints.py",
        "        if sha256(part.data).digest() != hashes[part.index]:\n",
        "        if False:\n",
    ),
    one(
        "transfer-anew",
        "what has come of a state does not count for a later one",
        "repair.py",
        "| (known.by_hash() if known is not None else {})",
        "",
    ),
    one(
        "transfer-from-one",
        "one replica is believed what the state is",
        "repair.py",
        "self._checkpoints.agreed(port.group.f + 1)",
        "self._checkpoints.agreed(1)",
    ),
    one(
        "transfer-goes-back",
        "a state is taken over though the replica is past it",
        "repair.py",
        "        return target.seq <= self._ledger.final and not self._differs(target)\n",
        "        return False\n",
    ),
)


class Outcome(NamedTuple):
    """What became of a mutant."""

    caught: bool
    by: str
    seconds: float


def edited(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """Return the files of `state/pbft` with a bug in them, by name.

    Raises:
        ValueError: a passage that is to be changed is not there, or more than once.
    """
    files: dict[str, str] = {}
    for edit in mutant.edits:
        text = files.get(edit.file) or (root / "state" / "pbft" / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise ValueError(
                f"{mutant.name}: {text.count(edit.old)} times in {edit.file}, not once:\n{edit.old}"
            )
        files[edit.file] = text.replace(edit.old, edit.new)
        compile(files[edit.file], edit.file, "exec")
    return files


def copy(directory: Path, mutant: Mutant | None, root: Path = ROOT) -> None:
    """Copy the code from `root` into a directory, with a bug in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("state", "tests/simulation", "tests/state/pbft"):
        shutil.copytree(root / part, directory / part, ignore=ignored)
    shutil.copy(root / "pyproject.toml", directory)
    if mutant is not None:
        for file, text in edited(mutant, root).items():
            (directory / "state" / "pbft" / file).write_text(text)


def hunt(mutant: Mutant | None, root: Path = ROOT, *, simulations: bool = False) -> Outcome:
    """Run the tests on a copy with a bug in it until one fails.

    Args:
        mutant: The bug; none for the code as it is.
        root: Where that is.
        simulations: Whether to leave out the tests of the module that has the bug.

    Raises:
        RuntimeError: they could not be run.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        copy(directory, mutant, root)
        edits = mutant.edits if mutant is not None and not simulations else ()
        files = (edit.file.replace("authentication", "keys") for edit in edits)
        own = {f"tests/state/pbft/test_{file}": None for file in files}
        tests = [*(each for each in own if (directory / each).exists()), *TESTS]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode not in (0, 1) or (done.returncode == 1 and " error" in done.stdout[-80:]):
        raise RuntimeError(f"{mutant and mutant.name}: {done.stdout[-3000:]}{done.stderr[-2000:]}")
    seconds = time.perf_counter() - begun
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    why = re.search(r"^E +(?:\w+\.)*(\w+): (.{0,110})", done.stdout, re.MULTILINE)
    by = f"{failed.group(1).split('::')[1]}: " if failed else ""
    return Outcome(done.returncode == 1, by + (why.group(2) if why else ""), seconds)


def main() -> None:
    """Hunt mutants as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--simulations", action="store_true", help="by simulations alone")
    args = parser.parse_args()
    chosen = [each for each in MUTANTS if not args.names or each.name in args.names]
    if args.list:
        for each in MUTANTS:
            print(f"{each.name:28} {each.what}")
        return
    with tempfile.TemporaryDirectory() as name:
        # All are made of the same code, whatever happens to it meanwhile.
        copy(Path(name), None)
        if not args.names and not _plain(Path(name)):
            sys.exit(1)
        sys.exit(not _hunt_all(chosen, Path(name), simulations=args.simulations))


def _plain(root: Path) -> bool:
    """Return whether all tests pass without any bug."""
    plain = hunt(None, root)
    print(f"{'(no bug)':28} {plain.seconds:6.1f} s  {plain.by or 'all tests pass'}", flush=True)
    return not plain.caught


def _hunt_all(mutants: list[Mutant], root: Path, *, simulations: bool) -> bool:
    survived = []
    for each in mutants:
        outcome = hunt(each, root, simulations=simulations)
        said = f"caught by {outcome.by}" if outcome.caught else "NOT CAUGHT"
        print(f"{each.name:28} {outcome.seconds:6.1f} s  {said}", flush=True)
        if not outcome.caught:
            survived.append(each.name)
    print(
        f"{len(mutants) - len(survived)} of {len(mutants)} caught; not caught: {survived or 'none'}"
    )
    return not survived


if __name__ == "__main__":
    main()
