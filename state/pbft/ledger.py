"""What was executed, what of it is final, and what clients are told of it."""

from __future__ import annotations

from state.pbft.checkpoints import Checkpoints, Snapshot
from state.pbft.events import (
    Committed,
    CommittedRequest,
    Diverged,
    Phase,
    Stable,
    Transferred,
)
from state.pbft.execution import Execution
from state.pbft.messages import Checkpoint, Reply
from state.pbft.port import Port
from state.pbft.records import Final
from state.pbft.requests import Requests
from state.pbft.sessions import Result
from state.pbft.slots import Slots

_SMALL = 256
"""Bytes of results that every replica sends in full."""


class Ledger:
    """Executes batches as soon as the settings allow, and again where it was too soon."""

    def __init__(
        self,
        port: Port,
        slots: Slots,
        execution: Execution,
        checkpoints: Checkpoints,
        requests: Requests,
    ) -> None:
        self._port = port
        self._slots = slots
        self._execution = execution
        self._checkpoints = checkpoints
        self._requests = requests
        self.view = 0
        """The current view."""
        self.final = execution.seq
        """Everything up to here is committed and executed."""
        self.logged = execution.seq
        """Up to which slot the vote log has it that it is final."""
        self.adopted = 0
        """The last slot whose state came from others, for all up to there."""
        self._results: dict[int, tuple[int, list[list[bytes] | None]]] = {}
        """Of batches that were executed and are not final: the agreed time and the results."""

    @property
    def executed(self) -> int:
        """The last slot executed, final or not."""
        return self._execution.seq

    @property
    def time_ms(self) -> int:
        """The agreed time."""
        return self._execution.time_ms

    def advance(self, active: bool) -> bool:
        """Execute what can be executed; return whether more is final than before."""
        before = self.final
        while self._finish_next():
            pass
        settings = self._port.settings
        while active and self._ready(settings.fast, settings.tentative):
            self._execute(
                self.executed + 1, Phase.SPECULATIVE if settings.fast else Phase.TENTATIVE
            )
        if self.final > before:
            self.settle()
        return self.final > before

    def _ready(self, fast: bool, tentative: bool) -> bool:
        """Return whether the next batch may be executed before it is final."""
        slot = self._slots.get(self.executed + 1)
        if slot is None or slot.view != self.view or not slot.accepted:
            return False
        return fast or (tentative and self.executed == self.final and slot.is_prepared())

    def _finish_next(self) -> bool:
        """Make the next slot final if it is committed and its batch is here."""
        seq = self.final + 1
        slot = self._slots.get(seq)
        if slot is None or slot.committed is None:
            return False
        view, digest = slot.committed
        batch = self._slots.batch(digest)
        if batch is None:
            return False
        if self.executed >= seq and slot.digest != digest:
            self.rollback()
        if self.executed < seq:
            self._execute(seq, Phase.COMMITTED)
        self.final = seq
        if seq > self.logged:
            self.logged = seq
            data = self._slots.batch_bytes(digest)
            assert data is not None
            self._port.note_batch(digest, data)
            self._port.note(Final(view, seq, digest))
        time_ms, results = self._results.pop(seq)
        self._port.emit(
            Committed(
                seq,
                view,
                digest,
                time_ms,
                [
                    CommittedRequest(each.client, each.number, each.operations, result)
                    for each, result in zip(batch.requests, results, strict=True)
                ],
            )
        )
        self._requests.executed(batch)
        snapshot = self._checkpoints.own(seq)
        if snapshot is not None:
            # Others forget what is before a checkpoint because a quorum says that it has it: who
            # said so must have it still after a restart, and say so when the view changes.
            self._port.persist_notes()
            self._vouch(snapshot)
        return True

    def _vouch(self, snapshot: Snapshot) -> None:
        """Say that this replica has a state, and has it on its disk."""
        self._checkpoints.vote(self._port.name, snapshot.seq, snapshot.digest)
        said = Checkpoint(snapshot.seq, snapshot.digest)
        self._port.broadcast_lazily(said, self._port.settings.lazy)

    def _execute(self, seq: int, phase: Phase) -> None:
        """Execute the next batch, and answer its clients."""
        slot = self._slots.get(seq)
        assert slot is not None
        digest = slot.committed[1] if phase is Phase.COMMITTED and slot.committed else slot.digest
        assert digest is not None
        batch = self._slots.batch(digest)
        assert batch is not None
        results = self._execution.execute(seq, digest, batch)
        self._results[seq] = (self._execution.time_ms, results)
        if seq % self._port.settings.checkpoint == 0:
            data = self._execution.snapshot()
            self._checkpoints.add(Snapshot(seq, data, self._port.settings.chunk))
        for request in batch.requests:
            self._answer(request.client, request.number, phase, everything=False)

    def rollback(self) -> None:
        """Undo what is not final."""
        if self.executed == self.final:
            return
        self._checkpoints.undo(self.final)
        self._results.clear()
        base = self._checkpoints.until(self.final)[-1]
        self._execution.restore(base.seq, base.data)
        for seq in range(base.seq + 1, self.final + 1):
            slot = self._slots.get(seq)
            assert slot is not None
            assert slot.committed is not None
            batch = self._slots.batch(slot.committed[1])
            assert batch is not None
            self._execution.execute(seq, slot.committed[1], batch)

    def answer(self, client: str, number: int) -> bool:
        """Answer a request, in full, if it was executed; return whether it was."""
        result = self._execution.sessions.result(client, number)
        if result is not None:
            self._answer(client, number, self._phase(result.seq), everything=True)
        return self._execution.sessions.over(client, number)

    def over(self, client: str, number: int) -> bool:
        """Return whether it is final that a request was executed, or never will be."""
        result = self._execution.sessions.result(client, number)
        if result is not None:
            return result.seq <= self.final
        return self._execution.sessions.over(client, number)

    def _phase(self, seq: int) -> Phase:
        if seq <= self.final:
            return Phase.COMMITTED
        slot = self._slots.get(seq)
        if seq == self.final + 1 and slot is not None and slot.is_prepared():
            return Phase.TENTATIVE
        return Phase.SPECULATIVE

    def _answer(self, client: str, number: int, phase: Phase, *, everything: bool) -> None:
        """Tell a client a result; in full, or for all replicas but one its digest."""
        result = self._execution.sessions.result(client, number)
        if result is None:
            return
        group = self._port.group
        full = (
            everything
            or group.replicas[number % group.n] == self._port.name
            or sum(map(len, result.results)) <= _SMALL
        )
        self._port.send(client, _reply(number, self.view, phase, result, full))

    # -- checkpoints ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Take the last checkpoint that a quorum has as the stable one."""
        for agreed in reversed(self._checkpoints.agreed(self._port.group.quorum)):
            if agreed.seq <= self.final:
                self.settle_at(agreed)
                return

    def settle_at(self, agreed: Checkpoint) -> None:
        """Take a checkpoint as stable, if this replica has the same state there."""
        own = self._checkpoints.own(agreed.seq)
        if own is None or agreed.seq <= self._slots.low:
            return
        if own.digest != agreed.digest:
            self._port.emit(Diverged(agreed.seq))
            return
        self._checkpoints.settle(own)
        self._slots.advance(own.seq)
        self._port.emit(Stable(own.seq, own.digest))
        self._port.rewrite = True

    def adopt(self, snapshot: Snapshot) -> None:
        """Take over the state at a checkpoint from others.

        That f + 1 vouch for it makes it true, and not stable: who forgot the slots before it, and
        said so in a VIEW-CHANGE, might leave the others without a quorum that can begin a view.

        Raises:
            ValueError: it is no state.
        """
        self._execution.restore(snapshot.seq, snapshot.data)
        self._results.clear()
        self._checkpoints.undo(min(self.final, snapshot.seq - 1))
        self._checkpoints.add(snapshot)
        self.final = self.logged = self.adopted = snapshot.seq
        self._requests.clear(self._execution.sessions)
        self._port.emit(Transferred(snapshot.seq, snapshot.digest))
        self._port.rewrite = True
        self._vouch(snapshot)
        self.settle()


def _reply(number: int, view: int, phase: Phase, result: Result, full: bool) -> Reply:
    return Reply(
        number,
        view,
        phase,
        result.seq,
        result.history,
        result.digest,
        result.results if full else None,
    )
