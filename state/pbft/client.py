"""The client: signs requests, and sends them until enough replicas say the same of each."""

from __future__ import annotations

from collections import defaultdict, deque

import msgspec

from state.pbft.authentication import Authenticator, close, open_bundle, sign
from state.pbft.events import (
    Answer,
    ClientEffect,
    ClientEvent,
    Phase,
    Received,
    Rejected,
    Send,
    Settings,
    Submit,
    Tick,
)
from state.pbft.group import Group
from state.pbft.messages import MAX_OPERATIONS, MessageError, Reply, Request, digest
from state.pbft.pace import SHARE, Pace

_NEVER = float("inf")
_PATIENCE = 3
"""After so many times the usual time of an answer a request is sent again."""


class Client:
    """A client of a group of replicas.

    A request goes to the primary; if no answer comes in time, to all, again and again: it is
    executed once however often it arrives. An answer is certain, and final, when

    - f + 1 replicas say that it is committed, or
    - a quorum has it at least prepared in one view, or
    - with `Settings.fast`, all n have executed it in one view,

    with the same slot, history and results. Requests are executed in any order unless one is
    submitted after the answer to the other.

    Args:
        group: Who takes part.
        keys: This client's keys, and its name.
        first: The number of its first request, above all of its earlier lives': one that was used
            is not carried out again, and may be answered with what the earlier request came to.
        now: The time.
        settings: The replicas'.

    Raises:
        ValueError: `first` is not positive.
    """

    def __init__(
        self,
        group: Group,
        keys: Authenticator,
        *,
        first: int,
        now: float,
        settings: Settings | None = None,
    ) -> None:
        if first < 1:
            raise ValueError(f"the first request's number is {first}: it must be positive")
        self.name = keys.name
        self.group = group
        self.settings = settings or Settings()
        self._keys = keys
        self._now = now
        self._next = first
        self._pending: dict[int, _Pending] = {}
        self._backlog: deque[tuple[list[bytes], object, float]] = deque()
        self._views: dict[str, int] = {}
        # What is answered only when it is asked for again must not make that wait ever longer.
        self._pace = Pace(self.settings.resend / 2, self.settings.timeout / SHARE)
        self._out: dict[str, list[Request]] = {}
        self._effects: list[ClientEffect] = []

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return len(self._pending) + len(self._backlog)

    @property
    def wake_at(self) -> float:
        """When a `Tick` is due."""
        return min((each.resend_at for each in self._pending.values()), default=_NEVER)

    @property
    def view(self) -> int:
        """The view that f + 1 replicas have reached, as far as their replies tell."""
        views = sorted(self._views.values(), reverse=True)
        return views[self.group.f] if len(views) > self.group.f else 0

    def step(self, event: ClientEvent) -> list[ClientEffect]:
        """Take an event; return its effects.

        Raises:
            ValueError: what is submitted has no operations, or too many or too large ones.
        """
        self._now = max(self._now, event.now)
        if isinstance(event, Submit):
            self._submit(event)
        elif isinstance(event, Received):
            for sender, bundle in event.bundles:
                self._receive(sender, bundle)
        elif isinstance(event, Tick):
            self._resend()
        out, self._out = self._out, {}
        sends = [Send(to, close(self._keys, to, list(said))) for to, said in out.items()]
        effects, self._effects = self._effects, []
        return [*sends, *effects]

    def _submit(self, event: Submit) -> None:
        size = sum(map(len, event.operations))
        if not 0 < len(event.operations) <= MAX_OPERATIONS or size > self.settings.max_request:
            raise ValueError(
                f"a request of {len(event.operations)} operations and {size} bytes: 1 to "
                f"{MAX_OPERATIONS} operations and {self.settings.max_request} bytes are allowed"
            )
        self._backlog.append((event.operations, event.token, self._now))
        self._send_waiting()

    def _send_waiting(self) -> None:
        """Send requests as long as they lie within what a session may have under way."""
        while self._backlog:
            low = next(iter(self._pending), self._next)
            if self._next >= low + self.settings.max_waiting:
                return
            operations, token, at = self._backlog.popleft()
            request = Request(self.name, self._next, low, operations)
            request = msgspec.structs.replace(request, signature=sign(self._keys, request))
            pending = _Pending(request, token, at, self._now + self._patience(0))
            self._pending[self._next] = pending
            self._next += 1
            self._send(self.group.primary(self.view), request)

    def _patience(self, attempt: int) -> float:
        settings = self.settings
        first = max(2 * settings.resend, _PATIENCE * self._pace.median)
        return min(first * 2.0 ** min(attempt, 30), settings.longest_resend)

    def _resend(self) -> None:
        for pending in self._pending.values():
            if self._now >= pending.resend_at:
                pending.attempt += 1
                pending.resend_at = self._now + self._patience(pending.attempt)
                for replica in self.group.replicas:
                    self._send(replica, pending.request)

    def _send(self, to: str, request: Request) -> None:
        self._out.setdefault(to, []).append(request)

    def _receive(self, sender: str, bundle: bytes) -> None:
        try:
            if sender not in self.group.members:
                raise MessageError("it is no replica")
            messages = open_bundle(self._keys, sender, bundle)
        except MessageError as error:
            self._effects.append(Rejected(sender, str(error)))
            return
        for message in messages:
            if isinstance(message, Reply):
                self._on_reply(sender, message)
            else:
                kind = type(message).__name__
                self._effects.append(Rejected(sender, f"{kind} is for replicas"))

    def _on_reply(self, sender: str, reply: Reply) -> None:
        self._views[sender] = max(reply.view, self._views.get(sender, 0))
        pending = self._pending.get(reply.number)
        if pending is None:
            return
        if reply.results is not None:
            found = digest("results", msgspec.msgpack.encode(reply.results))
            if found != reply.digest or len(reply.results) != len(pending.request.operations):
                self._effects.append(Rejected(sender, "the results are not those of its digest"))
                return
            pending.results[sender] = reply.digest, reply.results
        known = pending.replies.get(sender)
        if known is None or known.phase != Phase.COMMITTED:
            pending.replies[sender] = reply
        self._conclude(pending)

    def _conclude(self, pending: _Pending) -> None:
        certain = _certain(pending.replies, self.group, self.settings.fast)
        if certain is None:
            return
        phase, reply = certain
        results = next((r for d, r in pending.results.values() if d == reply.digest), None)
        if results is None:
            return
        seconds = self._now - pending.at
        self._pace.add(seconds)
        del self._pending[pending.request.number]
        self._effects.append(
            Answer(
                pending.request.number,
                pending.token,
                results,
                phase,
                reply.view,
                reply.seq,
                seconds,
            )
        )
        self._send_waiting()


class _Pending:
    """A request that is not answered, and what replicas said of it."""

    def __init__(self, request: Request, token: object, at: float, resend_at: float) -> None:
        self.request = request
        self.token = token
        self.at = at
        self.resend_at = resend_at
        self.attempt = 0
        self.replies: dict[str, Reply] = {}
        self.results: dict[str, tuple[bytes, list[bytes]]] = {}
        """The last that each replica sent in full, and their digest."""


def _certain(replies: dict[str, Reply], group: Group, fast: bool) -> tuple[Phase, Reply] | None:
    """Return by which rule what these replies say is final, and one that says it."""
    alike: defaultdict[tuple[int, bytes, bytes], list[Reply]] = defaultdict(list)
    for reply in replies.values():
        alike[reply.seq, reply.history, reply.digest].append(reply)
    for equal in alike.values():
        committed = sum(each.phase == Phase.COMMITTED for each in equal)
        if committed > group.f:
            return Phase.COMMITTED, equal[0]
        for view in {each.view for each in equal}:
            # What is committed anywhere is so in every view.
            here = [each for each in equal if each.view == view or each.phase == Phase.COMMITTED]
            if sum(each.phase != Phase.SPECULATIVE for each in here) >= group.quorum:
                return Phase.TENTATIVE, here[0]
            if fast and len(here) == group.n:
                return Phase.SPECULATIVE, here[0]
    return None
