"""The replica: takes events, has effects, and joins the parts of the protocol."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

import msgspec

from state.pbft.authentication import Authenticator, open_bundle
from state.pbft.checkpoints import Checkpoints, Snapshot
from state.pbft.events import (
    Effect,
    Event,
    Evidence,
    Received,
    Rejected,
    Settings,
    Start,
    Tick,
    ViewEntered,
)
from state.pbft.evidence import proves
from state.pbft.execution import Execution
from state.pbft.group import Group
from state.pbft.ledger import Ledger
from state.pbft.machine import StateMachine
from state.pbft.messages import (
    Accusation,
    AnyMessage,
    BatchBody,
    Checkpoint,
    Commit,
    Decided,
    FetchBatches,
    FetchState,
    MessageError,
    NewView,
    Prepare,
    PrePrepare,
    Request,
    StatePart,
    Status,
    ViewChange,
)
from state.pbft.ordering import Ordering
from state.pbft.port import Port
from state.pbft.records import Record
from state.pbft.repair import Repair
from state.pbft.requests import Requests
from state.pbft.restart import replay, whole_log
from state.pbft.slots import Slot, Slots
from state.pbft.views import Views

_ACCUSATIONS = 64
"""Pieces of evidence against one replica that are told."""
_REMINDED, _REMINDED_BYTES = 16, 1 << 16
"""Requests that a primary is reminded of at a time, and bytes of their operations, about."""


class Standing(msgspec.Struct, frozen=True):
    """How a replica is doing."""

    view: int
    active: bool
    """Whether the view has begun; if not, it is being changed."""
    primary: str
    stable: int
    """The last checkpoint that a quorum shares."""
    final: int
    """The last batch that is committed and executed."""
    executed: int
    """The last batch that is executed."""
    waiting: int
    """Requests that are not executed."""
    evidence: int
    """Pairs of messages that prove misbehaviour of others."""
    transferring: bool
    """Whether it is getting its state from others."""


class Replica:
    """One of the n replicas; see :mod:`state.pbft` for the protocol and what it promises.

    Args:
        group: Who takes part.
        keys: This replica's keys, and its name.
        machine: What is replicated, in its first state.
        settings: The same at all replicas.
        clients: Who may submit requests; None: whoever `keys` knows.
        log: The records of this replica's earlier lives, in order. Whoever starts it without them,
            though it has voted, makes it one of the f that may misbehave.

    Raises:
        ValueError: the name is no replica's, or the log makes no sense.
    """

    def __init__(
        self,
        group: Group,
        keys: Authenticator,
        machine: StateMachine,
        *,
        settings: Settings | None = None,
        clients: Collection[str] | None = None,
        log: Sequence[bytes] = (),
    ) -> None:
        if keys.name not in group.members:
            raise ValueError(f"{keys.name!r} is no replica of {group.replicas}")
        self.name = keys.name
        self.group = group
        self.settings = settings = settings or Settings()
        self._keys = keys
        self._port = port = Port(group, keys, settings)
        self._slots = slots = Slots(2 * settings.checkpoint)
        self._execution = Execution(machine, settings)
        genesis = Snapshot(0, self._execution.snapshot(), settings.chunk)
        self._checkpoints = checkpoints = Checkpoints(group, settings, genesis)
        self._requests = Requests(keys, settings, clients)
        self._ledger = ledger = Ledger(port, slots, self._execution, checkpoints, self._requests)
        self._ordering = ordering = Ordering(port, slots, ledger, self._requests)
        self._views = views = Views(port, slots, ledger, ordering, checkpoints)
        self._repair = Repair(port, slots, ledger, ordering, checkpoints, views)
        self._asked: set[tuple[str, int]] = set()
        """Requests that came in this step."""
        self._evidence: dict[tuple[str, str, int, int], Accusation] = {}
        replay(log, port, slots, self._execution, checkpoints, ledger, ordering, views)
        self._final = ledger.final
        self._entered = ordering.view if ordering.active else -1
        """The last view that has begun here."""
        self._low = slots.low
        """The low watermark, as it was when the last step ended."""

    @property
    def view(self) -> int:
        """The current view, or the one that this replica wants; also the leader's epoch."""
        return self._ordering.view

    @property
    def active(self) -> bool:
        """Whether the view has begun here."""
        return self._ordering.active

    @property
    def wake_at(self) -> float:
        """When a `Tick` is due."""
        return min(self._port.lazy_at, self._repair.at, self._views.wake_at(self._requests.since()))

    def standing(self) -> Standing:
        """Return how this replica is doing."""
        return Standing(
            self.view,
            self.active,
            self.group.primary(self.view),
            self._slots.low,
            self._ledger.final,
            self._ledger.executed,
            len(self._requests),
            len(self._evidence),
            self._repair.transfer is not None,
        )

    def step(self, event: Event) -> list[Effect]:
        """Take an event; return its effects, to be carried out in their order.

        Whatever peers send, it raises nothing.

        Raises:
            MachineError: the state machine broke its promise; this replica must not go on.
        """
        self._port.time(event.now, event.wall)
        self._asked.clear()
        if isinstance(event, Received):
            for sender, bundle in event.bundles:
                self._receive(sender, bundle)
        elif isinstance(event, Tick):
            self._port.tick()
            self._views.tick(self._requests.since())
            if self._repair.tick():
                self._remind()
        elif isinstance(event, Start):
            self._start()
        return self._finish()

    def _start(self) -> None:
        self._repair.at = self._port.now
        if self.active:
            self._port.emit(ViewEntered(self.view, self.group.primary(self.view)))
            self._views.apply()
        else:
            self._port.broadcast(self._views.own)

    def _finish(self) -> list[Effect]:
        """Do what has become possible; set the timers; return the effects."""
        while self._ordering.accusations:
            self._accuse(self._ordering.accusations.pop())
        if self.active and self.view != self._entered:
            self._entered = self.view
            self._begin_view()
        self._ledger.advance(self.active)
        if self._low != self._slots.low:
            self._low = self._slots.low
            self._views.apply()  # what the view began with and lay above the watermarks
            self._ledger.advance(self.active)
        self._ordering.propose()
        progress, self._final = self._ledger.final > self._final, self._ledger.final
        outstanding = len(self._requests) > 0 or self._unfinished()
        self._views.watch(outstanding, progress)
        self._repair.watch(outstanding, progress)
        return self._port.take(self._log)

    def _unfinished(self) -> bool:
        return any(
            slot.committed is not None
            or (slot.view == self.view and slot.digest is not None)
            or self._vouched(slot)
            for slot in self._slots.after(self._ledger.final)
        )

    def _vouched(self, slot: Slot) -> bool:
        """Return whether a correct replica has prepared what is missing here, or knows it decided.

        So the primary has kept a proposal from this replica, or the last of those who could help it
        have gone on: it must not rest, though no request of a client waits.
        """
        here = {name for name, (view, _) in slot.commits.items() if view == self.view}
        return len((here | slot.decided.keys()) - {self.name}) > self.group.f

    def _log(self) -> list[Record]:
        parts = self._slots, self._checkpoints, self._ledger, self._ordering, self._views
        return whole_log(self._port, *parts)

    # -- what comes in ----------------------------------------------------------------------------

    def _receive(self, sender: str, bundle: bytes) -> None:
        try:
            messages = open_bundle(self._keys, sender, bundle)
        except MessageError as error:
            self._port.emit(Rejected(sender, str(error)))
            return
        for message in messages:
            if isinstance(message, Request):
                self._on_request(sender, message)
            elif sender in self.group.members and sender != self.name:
                self._on_message(sender, message)
            else:
                kind = type(message).__name__
                self._port.emit(Rejected(sender, f"{kind} from who is no other replica"))

    def _on_message(self, sender: str, message: AnyMessage) -> None:
        match message:
            case PrePrepare():
                self._ordering.on_pre_prepare(sender, message)
            case Prepare():
                self._ordering.on_prepare(sender, message)
            case Commit():
                self._ordering.on_commit(sender, message)
            case Decided():
                self._ordering.on_decided(sender, message)
            case Checkpoint():
                self._checkpoints.vote(sender, message.seq, message.digest)
                self._ledger.settle()
            case ViewChange():
                self._views.on_view_change(sender, message)
            case NewView():
                self._views.on_new_view(sender, message)
            case Status():
                self._repair.on_status(sender, message)
            case FetchBatches():
                self._repair.on_fetch_batches(sender, message)
            case BatchBody():
                self._ordering.take_batch(sender, message.batch)
            case FetchState():
                self._repair.on_fetch_state(sender, message)
            case StatePart():
                if self._repair.on_state_part(sender, message):
                    self._views.apply()
            case Accusation():
                if self._new(message):
                    self._ordering.accusations.append(message)
            case _:
                self._port.emit(Rejected(sender, f"{type(message).__name__} is for clients"))

    def _on_request(self, sender: str, request: Request) -> None:
        """Hold a request until it is executed; see that the primary has it."""
        fault = self._requests.fault(request)
        if fault is not None:
            self._port.emit(Rejected(sender, fault))
            return
        key = (request.client, request.number)
        if key in self._asked:
            return  # answered once in a step, however often it is in it
        self._asked.add(key)
        executed = self._ledger.answer(request.client, request.number)
        if self._ledger.over(request.client, request.number):
            return
        if executed or self._requests.held(request):
            # Its client has asked again: nothing of it should wait for other messages now.
            self._port.hurry()
        if not self._requests.held(request):
            if self._requests.answered(request):
                return  # late, or of a client that wants it no more
            if not self._requests.hold(request, self._port.now):
                self._port.emit(Rejected(sender, f"too much of {request.client!r} waits"))
                return
            if self._ordering.leads and not executed:
                self._requests.enqueue(request)
        if self.active and not self._ordering.leads and sender == request.client:
            self._port.send(self.group.primary(self.view), request)

    def _remind(self) -> None:
        """Send the primary again what has waited for long: it may have been lost on its way."""
        if not self.active or self._ordering.leads:
            return
        primary, size = self.group.primary(self.view), 0
        old = self._requests.older(self._port.now - self.settings.timeout / 2)
        for request in islice(old, _REMINDED):
            if size <= _REMINDED_BYTES:
                self._port.send(primary, request)
            size += sum(map(len, request.operations))

    def _begin_view(self) -> None:
        """See that the new primary has all requests that wait, and get what it begins with."""
        self._requests.reset(self._port.now)
        proposed = {
            (request.client, request.number)
            for slot in self._slots
            if slot.view == self.view and slot.digest is not None
            for batch in [self._slots.batch(slot.digest)]
            if batch is not None
            for request in batch.requests
        }
        primary = self.group.primary(self.view)
        for request in self._requests:
            if (request.client, request.number) in proposed:
                continue
            if primary == self.name:
                self._requests.enqueue(request)
            else:
                self._port.send(primary, request)
        self._repair.entered()

    # -- evidence ---------------------------------------------------------------------------------

    def _new(self, accusation: Accusation) -> bool:
        key = _key(accusation)
        told = sum(each[0] == accusation.accused for each in self._evidence)
        return key not in self._evidence and told < _ACCUSATIONS

    def _accuse(self, accusation: Accusation) -> None:
        """Tell of a replica that has signed two messages that contradict each other."""
        if not self._new(accusation) or not proves(accusation, self.group, self._keys):
            return
        self._evidence[_key(accusation)] = accusation
        self._port.emit(Evidence(accusation))
        self._port.broadcast(accusation)
        leads = self.group.primary(self.view) == accusation.accused
        if leads and self.active and isinstance(accusation.first, PrePrepare | NewView):
            self._views.start(self.view + 1, f"{accusation.accused!r} contradicts itself")


def _key(accusation: Accusation) -> tuple[str, str, int, int]:
    first = accusation.first
    seq = 0 if isinstance(first, ViewChange | NewView) else first.seq
    return accusation.accused, type(first).__name__, first.view, seq
