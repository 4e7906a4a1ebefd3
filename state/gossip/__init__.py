"""Gossip: updates that reach every member of a group with no centre, sans I/O.

A :class:`Peer` is a state machine, `step(event) -> list[effect]`. It replicates immutable
*updates*, numbered (origin, seq), by set union: each is delivered to the application exactly once
per life of a peer, in any order, so payloads are mostly deltas of CRDTs. Who calls whom:

    application -> Peer        Publish, SnapshotTaken, Leave, Expel
    transport   -> Peer        Start, Received, Tick (due at `wake_at`), Unreachable
    Peer -> application        Deliver, Published, TakeSnapshot, Restore, StableAdvanced, Member...
    Peer -> transport          Send, NeighbourUp, NeighbourDown

    peer = Peer("a", "10.0.0.1:7000", incarnation=1, rng=random.Random(), now=clock())
    effects = peer.step(Start(clock(), bootstrap=("10.0.0.2:7000",)))

How an update spreads:

    rumour         a peer that learns an update sends it to 2 neighbours and its number to more of
                   them, 3 a round; who lacks it asks one of those that have it. A peer stops
                   after a few rounds: a rumour alone promises nothing.
    anti-entropy   each round a peer compares fingerprints with one neighbour. If they differ:
                   rows of version vectors when these are few, an invertible Bloom lookup table
                   of 30 cells and more when they are many, sums over spans of a key space (a
                   Merkle tree with no fixed shape) when the difference is large.
    snapshot       what the bounded log no longer has comes as the application's whole state

Who is in the group: every peer keeps a table of all members, agreed on by the same anti-entropy,
and about 5 links (HyParView's active view), which alone carry gossip; a passive view of about 30
addresses replaces those that break. A failure detector (SWIM with Lifeguard) probes.

The laws, for any loss, delay, duplication and order of messages:

    exactly once   an update is delivered at most once in the life of a Peer, and, as long as it
                   is connected to someone that has it, at last once. Except: one that a snapshot
                   stands for is in that snapshot instead.
    no harm        bytes that are no message change nothing and are counted
    bounds         log, rumours, requests, members and origins have limits (:class:`Settings`)
    stable cut     what lies below :meth:`Peer.stable` is known at every member that has not left
                   or been expelled, so that an application may forget deletions there. A member
                   that comes back from before the cut is told to replace its state.

What callers promise: an `incarnation` greater than any earlier one of this name, whenever state
may have been lost (a clock's seconds do); a transport that authenticates who sends; that a
snapshot contains what was delivered before it.

Sources: Demers et al., "Epidemic algorithms for replicated database maintenance", 1987; Karp et
al., "Randomized rumor spreading", 2000; Leitao, Pereira and Rodrigues, "HyParView", 2007, and
"Epidemic broadcast trees", 2007; Das, Gupta and Motivala, "SWIM", 2002; Dadgar, Phillips and
Currey, "Lifeguard", 2017; Eppstein et al., "What's the difference?", 2011; Meyer, "Range-based
set reconciliation", 2022.
"""

from state.gossip.events import (
    Deliver,
    Effect,
    Event,
    Expel,
    Leave,
    Member,
    MemberDown,
    MemberLeft,
    MemberSuspected,
    MemberUp,
    NeighbourDown,
    NeighbourUp,
    Publish,
    Published,
    Received,
    Rejected,
    Restore,
    Send,
    Settings,
    SnapshotTaken,
    StableAdvanced,
    Start,
    Status,
    Stopped,
    Superseded,
    TakeSnapshot,
    Tick,
    Unreachable,
    Update,
)
from state.gossip.messages import Fact, MessageError, Range
from state.gossip.peer import Peer
from state.gossip.statistics import Statistics

__all__ = [
    "Deliver",
    "Effect",
    "Event",
    "Expel",
    "Fact",
    "Leave",
    "Member",
    "MemberDown",
    "MemberLeft",
    "MemberSuspected",
    "MemberUp",
    "MessageError",
    "NeighbourDown",
    "NeighbourUp",
    "Peer",
    "Publish",
    "Published",
    "Range",
    "Received",
    "Rejected",
    "Restore",
    "Send",
    "Settings",
    "SnapshotTaken",
    "StableAdvanced",
    "Start",
    "Statistics",
    "Status",
    "Stopped",
    "Superseded",
    "TakeSnapshot",
    "Tick",
    "Unreachable",
    "Update",
]
