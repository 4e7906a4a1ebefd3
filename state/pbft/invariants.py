"""What must hold in a group of replicas, checked while it runs, against a machine of its own.

:class:`Invariants` watches what correct replicas and clients say they did. It knows nothing of how
they work: it executes the committed history itself, one request after the other, and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from state.pbft.authentication import Authenticator, valid
from state.pbft.events import (
    Answer,
    Committed,
    CommittedRequest,
    Diverged,
    Effect,
    Evidence,
    Stable,
    Transferred,
    ViewEntered,
)
from state.pbft.group import Group
from state.pbft.machine import Operation, StateMachine
from state.pbft.messages import (
    Accusation,
    AnyMessage,
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    ViewChange,
    encode,
)


class Violation(AssertionError):
    """Something happened that must never happen."""


class _Life(msgspec.Struct):
    """What a correct replica has said since it was started."""

    last: int | None = None
    final: int = 0
    view: int = -1
    signed: dict[tuple[str, int, int], bytes] = {}
    checkpoints: dict[int, bytes] = {}


class Invariants:
    """The judge of one group.

    Checked are: agreement (one batch in a slot), order without gaps, validity (requests that a
    client did sign), exactly-once, also for clients that lie, results and answers that equal those
    of a fresh machine, equal digests at equal checkpoints, views that only grow and have their
    leader, votes that never contradict each other, also across restarts, checkpoints that are not
    forgotten, and that evidence is true and names no one correct.

    Args:
        group: Who takes part.
        machine: Makes a machine in its first state.
        keys: Any peer's, to verify evidence.
        faulty: Replicas that are not correct; what they say is not looked at.
        liars: Clients that are not correct: they may sign two requests with one number.

    All methods raise :class:`Violation`.
    """

    def __init__(
        self,
        group: Group,
        machine: Callable[[], StateMachine],
        keys: Authenticator,
        *,
        faulty: Collection[str] = (),
        liars: Collection[str] = (),
    ) -> None:
        self.group = group
        self.faulty = frozenset(faulty)
        self.liars = frozenset(liars)
        self.machine = machine()
        self.history: dict[int, tuple[Committed, str]] = {}
        """What was committed first in each slot, and by whom."""
        self.executed = 0
        """Slots that the machine has been through, without a gap."""
        self.time_ms = 0
        self.results: dict[tuple[str, int], tuple[int, list[bytes]]] = {}
        self.answers: dict[tuple[str, int], Answer] = {}
        self.accused: set[str] = set()
        self.accusations: list[Accusation] = []
        self.views = 0
        """The greatest view that any correct replica has entered."""
        self._keys = keys
        self._submitted: dict[tuple[str, int], list[list[bytes]]] = {}
        self._stable: dict[int, tuple[bytes, str]] = {}
        self._lives: dict[str, _Life] = {}

    # -- clients ----------------------------------------------------------------------------------

    def requested(self, request: Request) -> None:
        """Take note of a request that its client has signed and sent."""
        key = (request.client, request.number)
        submitted = self._submitted.setdefault(key, [])
        if request.operations not in submitted:
            submitted.append(request.operations)
        if len(submitted) > 1 and request.client not in self.liars:
            raise Violation(f"{key}: the client gave two requests one number")

    def answered(self, client: str, answer: Answer) -> None:
        """Take note of what a client takes for certain; it is compared once it is committed."""
        key = (client, answer.number)
        if key in self.answers:
            raise Violation(f"{key} was answered twice")
        self.answers[key] = answer
        if answer.seq <= self.executed:
            self._compare(key)

    def _compare(self, key: tuple[str, int]) -> None:
        answer = self.answers[key]
        if self.results.get(key) != (answer.seq, answer.results):
            raise Violation(
                f"{key} was answered {answer}, but the history has {self.results.get(key)}"
            )

    # -- replicas ---------------------------------------------------------------------------------

    def started(self, node: str) -> None:
        """Take note that a replica was started, or started again."""
        life = self._lives.setdefault(node, _Life(signed={}, checkpoints={}))
        life.last = None
        life.view = -1

    def observe(self, node: str, effect: Effect) -> None:
        """Take note of what a correct replica did, in order."""
        if isinstance(effect, Committed):
            self._committed(node, effect)
        elif isinstance(effect, Stable):
            self._checkpoint(node, effect.seq, effect.digest)
        elif isinstance(effect, Transferred):
            self._checkpoint(node, effect.seq, effect.digest)
            life = self._lives[node]
            # In a new life some of what was told in the last one may come again.
            if life.last is not None and effect.seq < life.last:
                raise Violation(f"{node} went back from slot {life.last} to {effect.seq}")
            life.last = effect.seq
            life.final = max(life.final, effect.seq)
        elif isinstance(effect, ViewEntered):
            life = self._lives[node]
            if effect.view < life.view or effect.primary != self.group.primary(effect.view):
                raise Violation(f"{node} entered {effect} after view {life.view}")
            life.view = effect.view
            self.views = max(self.views, effect.view)
        elif isinstance(effect, Evidence):
            self._accused(node, effect.accusation)
        elif isinstance(effect, Diverged):
            raise Violation(f"{node} has another state than a quorum after slot {effect.seq}")

    def sent(self, node: str, messages: list[AnyMessage]) -> None:
        """Take note of what a correct replica sends: it must not contradict what it said before."""
        signed = self._lives[node].signed
        for message in messages:
            if isinstance(message, Checkpoint):
                self._lives[node].checkpoints[message.seq] = message.digest
            if isinstance(message, PrePrepare | Prepare | Commit):
                if isinstance(message, PrePrepare):
                    if self.group.primary(message.view) != node:
                        continue  # relayed
                    # What a primary proposes it accepts, so its own vote must be for the same.
                    kinds = ["PrePrepare", "Prepare"]
                else:
                    kinds = [type(message).__name__]
                place, what = (message.view, message.seq), message.digest
            elif isinstance(message, ViewChange | NewView):
                if isinstance(message, ViewChange):
                    if message.replica != node:
                        continue
                    if ("ViewChange", message.view, 0) not in signed:
                        self._names_checkpoints(node, message)
                kinds, place, what = [type(message).__name__], (message.view, 0), message.signature
            else:
                continue
            for kind in kinds:
                if signed.setdefault((kind, *place), what) != what:
                    raise Violation(f"{node} contradicts itself: {kind} in view, slot {place}")

    def _names_checkpoints(self, node: str, change: ViewChange) -> None:
        """Check that a VIEW-CHANGE has all checkpoints that its replica has spoken of."""
        said = self._lives[node].checkpoints
        for seq in [seq for seq in said if seq < change.stable]:
            del said[seq]
        missing = said.items() - {(each.seq, each.digest) for each in change.checkpoints}
        if missing:
            raise Violation(f"{node} forgot its checkpoints {sorted(missing)}: {change}")

    def _committed(self, node: str, committed: Committed) -> None:
        seq = committed.seq
        life = self._lives[node]
        # A new life begins after a stable checkpoint, with what was told in the last one.
        if seq != life.last + 1 if life.last is not None else seq > life.final + 1:
            raise Violation(f"{node} committed slot {seq} after {life.last} ({life.final})")
        life.last = seq
        life.final = max(life.final, seq)
        known = self.history.get(seq)
        if known is None:
            self.history[seq] = committed, node
            self._execute()
        elif not _same(known[0], committed):
            raise Violation(
                f"slot {seq}: {known[1]} committed {known[0]}, but {node} committed {committed}"
            )

    def _execute(self) -> None:
        while (entry := self.history.get(self.executed + 1)) is not None:
            committed, node = entry
            self.executed += 1
            self.time_ms = max(self.time_ms, committed.time_ms)
            for request in committed.requests:
                self._execute_one(committed, request, node)
            done = [key for key, answer in self.answers.items() if answer.seq == self.executed]
            for key in done:
                self._compare(key)

    def _execute_one(self, committed: Committed, request: CommittedRequest, node: str) -> None:
        key = (request.client, request.number)
        where = f"{node}, slot {committed.seq}, request {key}"
        if request.operations not in self._submitted.get(key, ()):
            raise Violation(f"{where}: {request.operations} were never requested")
        if request.results is None and key not in self.results and key[0] not in self.liars:
            raise Violation(f"{where}: not executed, though it never was")
        if request.results is None:
            return
        if key in self.results:
            raise Violation(f"{where}: executed again")
        results = self.machine.apply(
            [
                Operation(request.client, data, self.time_ms, committed.seq)
                for data in request.operations
            ]
        )
        if results != request.results:
            raise Violation(f"{where}: the results are {request.results}, not {results}")
        self.results[key] = committed.seq, results

    def _checkpoint(self, node: str, seq: int, digest: bytes) -> None:
        known = self._stable.setdefault(seq, (digest, node))
        if known[0] != digest:
            raise Violation(f"{node} and {known[1]} have other states after slot {seq}")

    # -- evidence and the end ---------------------------------------------------------------------

    def _accused(self, node: str, accusation: Accusation) -> None:
        if accusation.accused not in self.faulty:
            raise Violation(f"{node} accuses {accusation.accused}, which is correct: {accusation}")
        if not proves(self._keys, accusation):
            raise Violation(f"{node} has an accusation that proves nothing: {accusation}")
        self.accused.add(accusation.accused)
        self.accusations.append(accusation)

    def settled(self) -> None:
        """Check, when all is done, that every answer became part of the history."""
        missing = [key for key, answer in self.answers.items() if answer.seq > self.executed]
        if missing:
            raise Violation(f"answered, but never committed: {missing}, {self.executed} slots")
        for key in self.answers:
            self._compare(key)


def _same(first: Committed, second: Committed) -> bool:
    return (
        first.digest == second.digest
        and first.time_ms == second.time_ms
        and first.requests == second.requests
    )


def proves(keys: Authenticator, accusation: Accusation) -> bool:
    """Return whether an accusation proves to anyone that the accused is not correct.

    It does if the accused has signed both messages, which are of one kind and for one view (and
    slot) and yet differ.
    """
    first, second = accusation.first, accusation.second
    if type(first) is not type(second) or first.view != second.view:
        return False
    if not all(valid(keys, accusation.accused, each) for each in (first, second)):
        return False
    if isinstance(first, PrePrepare | Prepare | Commit):
        assert isinstance(second, PrePrepare | Prepare | Commit)
        return first.seq == second.seq and first.digest != second.digest
    plain = (msgspec.structs.replace(each, signature=b"") for each in (first, second))
    one, other = (encode([each]) for each in plain)
    return one != other
