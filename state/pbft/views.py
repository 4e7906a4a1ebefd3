"""Views: giving up on a primary, and beginning again with the next one."""

from __future__ import annotations

import msgspec

from state.pbft.authentication import sign, valid
from state.pbft.checkpoints import Checkpoints
from state.pbft.events import Rejected, ViewAbandoned, ViewEntered
from state.pbft.ledger import Ledger
from state.pbft.messages import Accusation, Checkpoint, Claim, NewView, ViewChange
from state.pbft.ordering import Ordering
from state.pbft.port import Port
from state.pbft.records import Entered, Moved
from state.pbft.selection import select, well_formed
from state.pbft.slots import Slots

_NEVER = float("inf")
_PATIENCE = 4
"""How many timeouts a request may wait while others are executed."""


class Views:
    """The view changes of one replica."""

    def __init__(
        self,
        port: Port,
        slots: Slots,
        ledger: Ledger,
        ordering: Ordering,
        checkpoints: Checkpoints,
    ) -> None:
        self._port = port
        self._slots = slots
        self._ledger = ledger
        self._ordering = ordering
        self._checkpoints = checkpoints
        self.changes: dict[str, ViewChange] = {}
        """The newest VIEW-CHANGE of each replica."""
        self.new_view: NewView | None = None
        """What the current view began with; None for view 0."""
        self.deadline = _NEVER
        """When this replica gives up on the current view."""
        self._failures = 0

    @property
    def view(self) -> int:
        """The current view, or the one that this replica wants."""
        return self._ordering.view

    @property
    def active(self) -> bool:
        """Whether the view has begun."""
        return self._ordering.active

    @property
    def own(self) -> ViewChange:
        """This replica's VIEW-CHANGE for the view that it wants."""
        return self.changes[self._port.name]

    # -- time -------------------------------------------------------------------------------------

    def _timeout(self) -> float:
        settings = self._port.settings
        # The exponent is bounded, for a float is.
        return min(settings.timeout * 2.0 ** min(self._failures, 30), settings.longest_timeout)

    def watch(self, outstanding: bool, progress: bool) -> None:
        """Set the deadline: there is one while something waits to be executed.

        Args:
            outstanding: Whether a request or a proposal waits.
            progress: Whether anything has become final since the last call.
        """
        if not self.active:
            # Who has gone further counts, or those who are left would wait for each other for ever.
            wanted = sum(each.view >= self.view for each in self.changes.values())
            if wanted >= self._port.group.quorum and self.deadline == _NEVER:
                self.deadline = self._port.now + self._timeout()
            return
        if progress:
            self._failures = 0
        if not outstanding:
            self.deadline = _NEVER
        elif progress or self.deadline == _NEVER:
            self.deadline = self._port.now + self._timeout()

    def tick(self, since: float) -> None:
        """Give up on the view when its time is over."""
        now = self._port.now
        overdue = self.active and now >= since + _PATIENCE * self._timeout()
        if now >= self.deadline or overdue:
            self._failures += 1
            reason = "a request was not executed in time" if self.active else "no NEW-VIEW came"
            self.start(self.view + 1, reason)

    def wake_at(self, since: float) -> float:
        """Return when `tick` is due."""
        overdue = since + _PATIENCE * self._timeout() if self.active else _NEVER
        return min(self.deadline, overdue)

    # -- giving up --------------------------------------------------------------------------------

    def start(self, view: int, reason: str) -> None:
        """Give up on the current view, for `view`."""
        port = self._port
        self._ordering.leave(view)
        self._ledger.rollback()
        self.deadline = _NEVER
        change = self._change(view)
        change = msgspec.structs.replace(change, signature=sign(port.keys, change))
        port.persist(Moved(change))
        self.changes[port.name] = change
        port.broadcast(change)
        port.emit(ViewAbandoned(view, reason))
        self._begin()

    def _change(self, view: int) -> ViewChange:
        prepared = [slot.prepared for slot in self._slots if slot.prepared is not None]
        accepted = [
            Claim(slot.seq, digest, slot.preprepared[digest])
            for slot in self._slots
            for digest in sorted(slot.preprepared)
        ]
        marks = [
            Checkpoint(each.seq, each.digest)
            for each in self._checkpoints.until(self._ledger.final)
        ]
        low = self._slots.low
        return ViewChange(view, self._port.name, low, marks, prepared, accepted)

    def on_view_change(self, sender: str, change: ViewChange) -> None:
        """Note that a replica wants another view, whoever brings it."""
        port, known = self._port, self.changes.get(change.replica)
        if change.replica == port.name or (known is not None and known.view > change.view):
            return
        if known == change:
            return
        fault = self._fault(change)
        if fault is not None:
            port.emit(Rejected(sender, fault))
            return
        if known is not None and known.view == change.view:
            self._ordering.accusations.append(Accusation(change.replica, known, change))
            return
        self.changes[change.replica] = change
        self._join()
        self._begin()

    def _fault(self, change: ViewChange) -> str | None:
        what = f"the VIEW-CHANGE of {change.replica!r} for view {change.view}"
        if change.replica not in self._port.group.members:
            return f"{what}: it is no replica"
        if not well_formed(change, self._slots.window, self._port.group.n):
            return f"{what} claims what cannot be"
        if not valid(self._port.keys, change.replica, change):
            return f"{what} has no valid signature"
        return None

    def _join(self) -> None:
        """Follow f + 1 others to a later view: at least one of them is correct."""
        others = sorted(
            (each.view for name, each in self.changes.items() if name != self._port.name),
            reverse=True,
        )
        f = self._port.group.f
        if len(others) > f and others[f] > self.view:
            self.start(others[f], f"{f + 1} others want view {others[f]}")

    # -- beginning --------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin the view that this replica leads, when enough others want it."""
        port = self._port
        if self.active or port.group.primary(self.view) != port.name:
            return
        changes = [each for each in self.changes.values() if each.view == self.view]
        found = select(changes, port.group, window=self._slots.window, fast=port.settings.fast)
        if found is not None:
            new_view = NewView(self.view, changes, found.checkpoint, found.slots)
            new_view = msgspec.structs.replace(new_view, signature=sign(port.keys, new_view))
            self._enter(new_view)
            port.broadcast(new_view)

    def on_new_view(self, sender: str, new_view: NewView) -> None:
        """Begin a view, if what its primary says follows from what the others said."""
        port = self._port
        primary = port.group.primary(new_view.view)
        if new_view.view < self.view or primary == port.name:
            return
        if new_view.view == self.view and self.active:
            known = self.new_view
            if known is not None and known != new_view and valid(port.keys, primary, new_view):
                self._ordering.accusations.append(Accusation(primary, known, new_view))
            return
        fault = self._fault_of_new_view(new_view, primary)
        if fault is not None:
            port.emit(Rejected(sender, f"the NEW-VIEW of view {new_view.view}: {fault}"))
            return
        self._enter(new_view)

    def _fault_of_new_view(self, new_view: NewView, primary: str) -> str | None:
        port, changes = self._port, new_view.view_changes
        if not valid(port.keys, primary, new_view):
            return "it has no valid signature"
        if len({each.replica for each in changes}) != len(changes):
            return "a replica counts twice"
        for change in changes:
            if change.view != new_view.view:
                return f"{change.replica!r} wants view {change.view}"
            known = self.changes.get(change.replica)
            if known != change:
                fault = self._fault(change)
                if fault is not None:
                    return fault
                if known is not None and known.view == change.view:
                    self._ordering.accusations.append(Accusation(change.replica, known, change))
        found = select(changes, port.group, window=self._slots.window, fast=port.settings.fast)
        if found != (new_view.checkpoint, new_view.selected):
            return "it does not follow from what the replicas said"
        return None

    def _enter(self, new_view: NewView) -> None:
        port = self._port
        self._ledger.rollback()
        self.new_view = new_view
        self.deadline = _NEVER
        selected = new_view.selected
        last = selected[-1].seq if selected else new_view.checkpoint.seq
        self._ordering.enter(new_view.view, last)
        port.persist(Entered(new_view))
        port.emit(ViewEntered(new_view.view, port.group.primary(new_view.view)))
        for change in new_view.view_changes:
            for each in change.checkpoints:
                self._checkpoints.vote(change.replica, each.seq, each.digest)
        self._ledger.settle()
        self.apply()

    def apply(self) -> None:
        """Take what the current view began with as proposed, where it is between the watermarks."""
        if self.new_view is None or not self.active:
            return
        for seq, digest in ((each.seq, each.digest) for each in self.new_view.selected):
            if self._slots.inside(seq):
                slot = self._slots.slot(seq, self.view)
                if slot.digest is None:
                    slot.digest = digest
        self._ordering.accept_all()

    def resume(self, moved: ViewChange | None, entered: NewView | None) -> None:
        """Go on with what the vote log has."""
        self.new_view = entered
        if moved is not None:
            self.changes[moved.replica] = moved
