"""Quorum votes as an operator: decisions that a few liars among the voters cannot split.

    ballots     Ballot, QuorumCertificate, Tally, the bytes of these, or Succession
        |
    quorum_vote
        |
    decisions   QuorumCertificate: a quorum of distinct members chose this; anybody can check it
    undecided   Undecided: time is up, or no choice can win any more
    evidence    Equivocation: two ballots of one voter that differ; Fork: more than f lied
    rejected    Rejected: what was not counted, with the reason and how often it occurred

Voters make ballots with `state.quorum.cast`; rosters and keys are those of `state.identity`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream, StatefulBatchLogic
from typing_extensions import override

from operators.shard import shard_names
from state.identity import TrustStore
from state.quorum import (
    Equivocation,
    Fork,
    Item,
    Outcome,
    Polls,
    QuorumCertificate,
    Rejected,
    Succession,
    Undecided,
    item_from_bytes,
)
from state.thresholds import quorum_size

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class QuorumOut:
    """What `quorum_vote` emits, keyed by subject ("" where there is none)."""

    decisions: KeyedStream[QuorumCertificate]
    undecided: KeyedStream[Undecided]
    evidence: KeyedStream[Equivocation | Fork]
    rejected: KeyedStream[Rejected]


@operator
def quorum_vote(
    step_id: str,
    ballots: Stream[Item | bytes],
    n: int,
    f: int,
    *,
    trust: TrustStore,
    patience: timedelta = timedelta(seconds=10),
    longest: timedelta = timedelta(hours=1),
    crowd: int = 10_000,
    shards: int = 24,
    clock: Callable[[], float] = time.time,
) -> QuorumOut:
    """Count signed ballots; decide a subject when ``ceil((n + f + 1) / 2)`` members agree.

    A subject is decided at most once in an epoch, and nowhere else differently, unless more than
    ``f`` members lie. Partial tallies of other flows add up with ballots, and their certificates
    count as they are.

    - *Abstention* is a choice that decides nothing. When no choice can win any more the subject is
      undecided at once (`abstained`, `split`).
    - *Timeout*: ``patience`` after more than ``f`` members have voted. It is this flow's opinion; a
      certificate that comes later is a decision all the same.
    - *Duplicate*: rejected, and harmless. *Late* (after the decision or the timeout, or expired):
      rejected. One that differs from the voter's earlier ballot is evidence, however late.
    - *Equivocation*: the voter counts for no choice from then on; decisions that were made stay.
    - *Changing roster*: a `Succession` in the stream puts the next roster in force, and
      ``trust.keep`` earlier ones stay accepted. Ballots of different epochs never add up.
    - *End of input*: open subjects are told of (`ended`) and stay open for a flow that is resumed.
    - *Restart*: resumes from a snapshot of all ballots; time goes on meanwhile. Outcomes of an
      epoch that was not finished are emitted again.

    A subject is remembered until its last ballot has expired. A ballot costs about 0.1 ms, mostly
    for its signature.

    Args:
        step_id: unique name of the step.
        ballots: from anywhere; who sent them does not matter, the signatures do.
        n: how many members the roster in force has.
        f: how many members of any roster may be faulty: at most ``(n - 1) // 3``.
        trust: the rosters to begin with.
        patience: how long a subject waits for a quorum.
        longest: how far ahead of the clock a ballot may expire.
        crowd: how many subjects a member may have opened in one shard at a time.
        shards: how many states; part of a flow's life.
        clock: seconds on the clock by which ballots expire, in milliseconds.

    Returns:
        Decisions, subjects without one, evidence, and what was rejected.

    Raises:
        ValueError: ``n`` is less than ``3f + 1`` or not the roster's, or a number is not positive.
        TypeError: when running, an item is of another kind (the flow stops).
    """
    try:
        quorum_size(n, f)
        if n != len(trust.in_force):
            raise ValueError(f"n is {n}, and the roster in force has {len(trust.in_force)} members")
        names = shard_names(shards)

        def make() -> Polls:
            return Polls(
                trust,
                f=f,
                patience=patience // _MILLISECOND,
                longest=longest // _MILLISECOND,
                crowd=crowd,
            )

        make()
    except ValueError as error:
        raise ValueError(f"step {step_id}: {error}") from None

    def spread(item: Item | bytes) -> Iterator[tuple[str, Item | bytes]]:
        if isinstance(item, bytes):
            try:
                item = item_from_bytes(item)
            except ValueError:
                yield names[0], item  # to be rejected there
                return
        if isinstance(item, Succession):
            yield from ((name, item) for name in names)
        elif isinstance(item, Item):
            digest = hashlib.blake2b(item.subject.encode(), digest_size=8).digest()
            yield names[int.from_bytes(digest, "little") % shards], item
        else:
            raise TypeError(f"step {step_id}: {item!r} is no ballot, certificate or tally")

    def resume(saved: bytes | None) -> _Shard:
        polls = make()
        if saved is not None:
            polls.restore(saved)
        return _Shard(polls, clock)

    split = op.flat_map("shard", ballots, spread)
    out = op.map("subject", op.stateful_batch("count", split, resume), _by_subject)

    def only(*kinds: type) -> Callable[[Outcome], Any]:
        return lambda outcome: outcome if isinstance(outcome, kinds) else None

    return QuorumOut(
        op.filter_map_value("decisions", out, only(QuorumCertificate)),
        op.filter_map_value("undecided", out, only(Undecided)),
        op.filter_map_value("evidence", out, only(Equivocation, Fork)),
        op.filter_map_value("rejected", out, only(Rejected)),
    )


def _by_subject(keyed: tuple[str, Outcome]) -> tuple[str, Outcome]:
    _, outcome = keyed
    if isinstance(outcome, Equivocation | Fork):
        return outcome.first.subject, outcome
    if isinstance(outcome, Rejected):
        item = outcome.item
        return ("" if isinstance(item, Succession | bytes) else item.subject), outcome
    return outcome.subject, outcome


class _Shard(StatefulBatchLogic[Item | bytes, Outcome, bytes]):
    """The polls of one shard."""

    def __init__(self, polls: Polls, clock: Callable[[], float]) -> None:
        self._polls, self._clock = polls, clock

    def _now(self) -> int:
        return int(self._clock() * 1000)

    @override
    def on_batch(self, values: list[Item | bytes]) -> tuple[list[Outcome], bool]:
        now = self._now()
        out = [outcome for item in values for outcome in self._polls.receive(item, now)]
        return out, StatefulBatchLogic.RETAIN

    @override
    def on_notify(self) -> tuple[list[Outcome], bool]:
        return self._polls.wake(self._now()), StatefulBatchLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[Outcome], bool]:
        return self._polls.finish(self._now()), StatefulBatchLogic.RETAIN

    @override
    def notify_at(self) -> datetime | None:
        wake_at = self._polls.wake_at
        if wake_at is None:
            return None
        return datetime.now(UTC) + max(wake_at - self._now(), 0) * _MILLISECOND

    @override
    def snapshot(self) -> bytes:
        return self._polls.to_bytes()
