"""What a new view begins with: a pure function of the VIEW-CHANGE messages that it rests on.

The rules are those of Castro and Liskov (TOCS 2002, section 3.2.4), for quorums of q out of n, with
one added for speculative answers. V is the set of VIEW-CHANGEs; each of replica m names its last
stable checkpoint m.h, checkpoints C, the batch that it last prepared for each slot (P: batch d in
view v) and, for each batch that it accepted for a slot, the last view in which it did (Q).

The checkpoint (s, d) is the one with the highest s such that q messages have h <= s, and f + 1 have
(s, d) in C. For each slot n > s:

    A    (d, v) is in some P, where
         A1  q messages have h < n and, in their P for n, nothing of a view > v, nor another batch
             of view v
         A2  f + 1 messages have d in Q, with a view >= v
    B    q messages have h < n and nothing in P for n
    F    (only if `fast`) d is in Q of f + 1 messages; v is the (f + 1)-th greatest of its views

If neither A nor B holds, more messages are needed; they come, for all correct replicas send one.
Otherwise the batch with the highest v of A and F is chosen, A before F where they are equal, and if
there is none, the null batch. Slots after the last for which anything was found stay free.

Why that is safe. Call a batch *decided* in (v, n) if q replicas prepared it there (clients may have
seen its result as committed or tentative), or, if `fast`, if all correct replicas accepted it there
(clients may have seen n speculative replies). Claim: if d is decided in (v, n), correct replicas
accept only d for n in all later views. Consider the first later view w whose selection is made;
by induction correct replicas accepted nothing but d for n in views between v and w.

  1. Prepared by q. Any q messages include one of a correct replica that prepared d in v or, later,
     d again. So B fails. An entry (d*, v*) that satisfies A1 has v* >= v. If v* > v, A2 says that a
     correct replica accepted d* after v: d* = d. If v* = v, A1 says d* = d. So A chooses d, with a
     view >= v. F beats it only with a higher view > v, which some correct replica vouches for: d.
  2. Accepted by all correct replicas, with `fast`. Then f + 1 messages at least, of correct
     replicas, have d in Q with a view >= v, so F offers d with a view u >= v. Another F (d', u')
     with u' >= u: a correct replica accepted d' in a view >= u' >= v; not in v, where all correct
     ones accepted d; so later: d' = d. An A (d*, v*) with v* >= u: by A2 a correct replica accepted
     d* in a view >= v: d* = d likewise.

In short: F is safe because only what *all* correct replicas accepted was ever answered
speculatively, and a prepared batch of the same view wins against it because then not all did.
Zyzzyva's published view change took the longest history instead, and could drop a decided one when
both kinds of certificates of different views met (Abraham et al. 2017).

Liveness: once V has the messages of all n - f >= q correct replicas, either some (d, v) with the
highest v that a correct replica prepared satisfies A1 and A2, or none prepared and B holds.

Q is bounded, though no entry of it may be forgotten before the next stable checkpoint. A replica
that has accepted :func:`most_fresh` = k batches for a slot refuses any other that a primary
proposes there by itself (not one that a NEW-VIEW chose), but for the null batch; as primary it
proposes that. What a NEW-VIEW chooses is null, or in the Q of f + 1, so a correct replica has
accepted it before; the first that did was offered it by a primary. So the n replicas have
accepted n k + 1 different batches for a slot at most. To refuse a proposal is always safe. Nor does
it stop the slot for good: every time that a correct replica leads, and proposes there in vain, its
own Q grows, so after k times at most it proposes the null batch, which all accept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from state.pbft.group import Group
from state.pbft.messages import (
    MAX_GROUP,
    NULL_DIGEST,
    Checkpoint,
    Claim,
    Selected,
    ViewChange,
)

_FRESH = 4


class Selection(NamedTuple):
    """What a new view begins with."""

    checkpoint: Checkpoint
    slots: list[Selected]


def select(
    changes: Sequence[ViewChange], group: Group, *, window: int, fast: bool
) -> Selection | None:
    """Return what follows from these VIEW-CHANGEs, or None if more are needed.

    Args:
        changes: Of distinct replicas, all for one view.
        group: Who they are of.
        window: Slots between the low and the high watermark.
        fast: Whether speculative answers may have been given.
    """
    if len(changes) < group.quorum:
        return None
    checkpoint = _checkpoint(changes, group)
    if checkpoint is None:
        return None
    prepared: defaultdict[int, dict[str, Claim]] = defaultdict(dict)
    accepted: defaultdict[int, defaultdict[bytes, list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    top = checkpoint.seq + window
    for change in changes:
        for claim in change.prepared:
            if checkpoint.seq < claim.seq <= top:
                prepared[claim.seq][change.replica] = claim
        for claim in change.preprepared:
            accepted[claim.seq][claim.digest].append(claim.view)
    last = max(prepared, default=0)
    if fast:
        last = max(last, *(seq for seq in (0, *accepted) if seq <= top))
    slots: list[Selected] = []
    used = 0
    for seq in range(checkpoint.seq + 1, last + 1):
        below = [change.replica for change in changes if change.stable < seq]
        claims = [prepared[seq].get(replica) for replica in below]
        found = _found(claims, accepted[seq], group)
        if not found and sum(claim is None for claim in claims) < group.quorum:
            return None
        if fast:
            found += _fast(accepted[seq], group)
        if found:
            used = len(slots) + 1
        slots.append(Selected(seq, max(found)[2] if found else NULL_DIGEST))
    return Selection(checkpoint, slots[:used])


def most_fresh(n: int) -> int:
    """Return after how many batches for a slot one of `n` replicas refuses to accept another."""
    return min(_FRESH, MAX_GROUP // n)


def most_claims(n: int, window: int) -> int:
    """Return how many batches a correct one of `n` replicas may have accepted in a window."""
    return window * (n * most_fresh(n) + 1)


def well_formed(change: ViewChange, window: int, n: int) -> bool:
    """Return whether a VIEW-CHANGE can be what a correct one of `n` replicas says."""
    low, high = change.stable, change.stable + window
    marks = [each.seq for each in change.checkpoints]
    prepared = [claim.seq for claim in change.prepared]
    accepted = [(claim.seq, claim.digest) for claim in change.preprepared]
    return (
        bool(marks)
        and marks[0] == low
        and len(change.preprepared) <= most_claims(n, window)
        and all(a < b for a, b in pairwise(marks))
        and all(a < b for a, b in pairwise(prepared))
        and all(a < b for a, b in pairwise(accepted))
        and all(low < seq <= high for seq in prepared)
        and all(low < seq <= high for seq, _ in accepted)
        and all(claim.view < change.view for claim in (*change.prepared, *change.preprepared))
    )


def _checkpoint(changes: Sequence[ViewChange], group: Group) -> Checkpoint | None:
    votes: defaultdict[tuple[int, bytes], set[str]] = defaultdict(set)
    for change in changes:
        for each in change.checkpoints:
            votes[each.seq, each.digest].add(change.replica)
    for seq, digest in sorted(votes, reverse=True):
        behind = sum(change.stable <= seq for change in changes)
        if len(votes[seq, digest]) > group.f and behind >= group.quorum:
            return Checkpoint(seq, digest)
    return None


# (view, 1 for A or 0 for F, digest)
_Found = tuple[int, int, bytes]


def _found(
    claims: Sequence[Claim | None], accepted: Mapping[bytes, list[int]], group: Group
) -> list[_Found]:
    """Return what A allows for a slot."""
    found: list[_Found] = []
    for digest, view in {(c.digest, c.view) for c in claims if c is not None}:
        agreeing = sum(
            c is None or c.view < view or (c.view == view and c.digest == digest) for c in claims
        )
        vouching = sum(each >= view for each in accepted.get(digest, ()))
        if agreeing >= group.quorum and vouching > group.f:
            found.append((view, 1, digest))
    return found


def _fast(accepted: Mapping[bytes, list[int]], group: Group) -> list[_Found]:
    """Return what F allows for a slot."""
    return [
        (sorted(views, reverse=True)[group.f], 0, digest)
        for digest, views in accepted.items()
        if len(views) > group.f
    ]
