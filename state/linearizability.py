"""Could a concurrent history have happened one call after the other?

A history is linearizable if every call can be given a moment between its start and its end at
which it takes effect, such that each answer is the one that a sequential object gives (Herlihy and
Wing, "Linearizability: a correctness condition for concurrent objects", TOPLAS 1990). A call that
was never answered may have taken effect at any moment after its start, or not at all.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", JPDC 1993): take
any call that no other precedes, see whether its answer fits, go on; step back where nothing fits.
Pairs of calls taken and states reached are remembered (Lowe, "Testing for linearizability", CCPE
2017), and parts of a history that have nothing to do with each other are judged one by one
(Horn and Kroening, "Faster linearizability checking via P-compositionality", FORTE 2015).

A read that fits and tells nothing new is taken at once, and nothing else is tried in its place:
any order that has it later is still one with it moved here, as it changes nothing there either.
So what many clients read while few others are under way does not multiply the orders.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Call:
    """What a client asked for, when, and what it was told."""

    client: str
    asked: Any
    start: float
    answer: Any = None
    """None: it was never answered."""
    end: float = math.inf


class Specification(Protocol[S]):
    """A sequential object, which may leave something to chance."""

    initial: S

    def step(self, state: S, call: Call) -> Iterable[S]:
        """Return the states that `call` may lead to if its answer is the one it has.

        There are none if it cannot be. What was not answered is taken to have had its effect.
        """

    def reads(self, call: Call) -> bool:
        """Return whether a call that was answered so changes nothing, whatever the state was.

        Its states may say more of the object than those before it, but nothing that these exclude.
        """

    def parts(self, calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
        """Split a history into parts of which none tells anything about another."""


class NotLinearizable(AssertionError):
    """There is no order in which the answers are right.

    Attributes:
        prefix: the longest order of calls that was found.
        stuck: those of which one would have to be next.
    """

    def __init__(self, prefix: list[Call], stuck: list[Call]) -> None:
        self.prefix = prefix
        self.stuck = stuck
        shown = "\n".join(f"  {call}" for call in prefix[-10:])
        next_ones = "\n".join(f"  {call}" for call in stuck)
        super().__init__(
            f"no order explains the answers: after {len(prefix)} calls, the last of them\n{shown}\n"
            f"none of these can be next:\n{next_ones}"
        )


class Undecided(Exception):
    """The search has taken as many steps as it may."""


def linearize(
    specification: Specification[S], calls: Sequence[Call], *, steps: int = 2_000_000
) -> list[list[Call]]:
    """Return an order of the calls that explains all answers, for each part of the history.

    Calls of which one ends when another starts are concurrent. Unanswered calls that explain
    nothing are left out. The time this takes may grow exponentially with the number of calls that
    are under way at a time, those never answered included; histories of a few hundred calls of
    some ten clients take milliseconds to seconds.

    Raises:
        NotLinearizable: there is none.
        Undecided: `steps` calls of :meth:`Specification.step` have not found out.

    >>> class Register:
    ...     initial = 0
    ...     def step(self, state, call):
    ...         if isinstance(call.asked, int):
    ...             return [call.asked]
    ...         return [state] if call.answer == state else []
    ...     def reads(self, call):
    ...         return call.asked == "read"
    ...     def parts(self, calls):
    ...         return [calls]
    >>> write = Call("a", 1, 0, "written", 9)
    >>> old, new = Call("b", "read", 1, 0, 2), Call("b", "read", 3, 1, 4)
    >>> [[call.start for call in part] for part in linearize(Register(), [write, old, new])]
    [[1, 0, 3]]
    >>> linearize(Register(), [write, Call("b", "read", 1, 1, 2), Call("b", "read", 3, 0, 4)])
    Traceback (most recent call last):
        ...
    state.linearizability.NotLinearizable: no order explains the answers...
    """
    return [_Search(specification, part, steps).run() for part in specification.parts(calls)]


class _Search:
    """The calls of one part that have not been taken, in the order of their starts and ends."""

    def __init__(
        self, specification: Specification[Any], calls: Sequence[Call], steps: int
    ) -> None:
        self._specification = specification
        self._steps = steps
        self._calls = sorted(calls, key=lambda call: call.start)
        events = []
        for index, call in enumerate(self._calls):
            if call.answer is not None:
                events += [(call.start, 0, index), (call.end, 1, index)]
        events.sort()
        self._answered = len(events) // 2
        self._events = [None, *events, None]
        self._next = list(range(1, len(self._events) + 1))  # linked lists of those that are left
        self._last = list(range(-1, len(self._events) - 1))
        self._places: dict[int, list[int]] = {}
        for place, (_, _, index) in enumerate(events, 1):
            self._places.setdefault(index, []).append(place)
        self._open = [i for i, call in enumerate(self._calls) if call.answer is None]
        self._reads = [
            call.answer is not None and specification.reads(call) for call in self._calls
        ]

    def run(self) -> list[Call]:
        calls = self._calls
        states = frozenset([self._specification.initial])
        taken, left = 0, self._answered
        seen: set[tuple[int, frozenset[Any]]] = set()
        path: list[tuple[int, frozenset[Any], Iterator[int]]] = []
        order: list[Call] = []
        longest, stuck = order, self._candidates(taken)
        candidates = iter(self._told(states, stuck) or stuck)
        while left:
            index = next(candidates, None)
            if index is None:
                if not path:
                    raise NotLinearizable(longest, [calls[i] for i in stuck])
                index, states, candidates = path.pop()
                taken ^= 1 << index
                left += self._put_back(index)
                continue
            if self._steps <= 0:
                raise Undecided(f"{len(calls)} calls, {len(seen)} states seen")
            call = calls[index]
            after = frozenset(each for state in states for each in self._step(state, call))
            if not after or (call.answer is None and after == states):
                continue
            reached = (taken | 1 << index, after)
            if reached in seen:
                continue
            seen.add(reached)
            path.append((index, states, candidates))
            taken, states = reached
            left -= self._take(index)
            following = self._candidates(taken)
            if len(path) > len(longest):
                longest, stuck = [calls[i] for i, _, _ in path], following
            candidates = iter(self._told(states, following) or following)
        return [calls[i] for i, _, _ in path]

    def _step(self, state: Any, call: Call) -> Iterable[Any]:
        self._steps -= 1
        return self._specification.step(state, call)

    def _candidates(self, taken: int) -> list[int]:
        """Return the calls that no other one that is left precedes, answered ones first."""
        found = []
        place = self._next[0]
        while (event := self._events[place]) is not None and event[1] == 0:
            found.append(event[2])
            place = self._next[place]
        if event is not None:
            first_end = event[0]
            for index in self._open:
                if self._calls[index].start > first_end:
                    break
                if not taken >> index & 1:
                    found.append(index)
        return found

    def _told(self, states: frozenset[Any], candidates: list[int]) -> list[int]:
        """Return a read among the candidates that tells nothing new, if there is one."""
        for index in candidates:
            call = self._calls[index]
            if self._reads[index] and all(
                [*self._step(state, call)] == [state] for state in states
            ):
                return [index]
        return []

    def _take(self, index: int) -> int:
        places = self._places.get(index, ())
        for place in places:
            self._next[self._last[place]] = self._next[place]
            self._last[self._next[place]] = self._last[place]
        return 1 if places else 0

    def _put_back(self, index: int) -> int:
        places = self._places.get(index, ())
        for place in reversed(places):
            self._next[self._last[place]] = place
            self._last[self._next[place]] = place
        return 1 if places else 0
