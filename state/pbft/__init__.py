"""Practical Byzantine fault tolerance: n replicas execute the same requests in the same order.

A :class:`Replica` is a state machine, `step(event) -> list[effect]`, with no sockets, no clock and
no files. At most f of n >= 3f + 1 replicas may lie, forge, fall silent or collude; the others agree
all the same, and clients learn only what is true. Who calls whom:

    transport   -> Replica     Start, Received, Tick (due at `wake_at`)
    Replica     -> disk        Persist (before any Send of the same step leaves), Rewrite
    Replica     -> transport   Send
    Replica     -> application Committed, Evidence, ViewEntered, ViewAbandoned, Stable, Transferred,
                               Diverged, Rejected
    application -> Client      Submit;   transport -> Client: Received, Tick
    Client      -> transport   Send;     Client -> application: Answer, Rejected

Within a replica, `Ordering` deals with proposals and votes, `Ledger` executes what they decide,
`Checkpoints` counts who has which state, `Views` replaces a primary, `Repair` gets what was lost,
and all say what they have to say through one `Port`.

The normal case, with its quorum q = ceil((n + f + 1) / 2), which is 2f + 1 of 3f + 1:

    client   ----REQUEST---->  primary of view v (replica v mod n)
    primary  --PRE-PREPARE-->  all: batch of requests, its digest, view, sequence number
    backups  ----PREPARE---->  all            prepared: pre-prepare and q - 1 prepares of backups
    all      ----COMMIT----->  all            committed: q commits
    all      -----REPLY----->  client         which wants f + 1 equal ones

Three ways to answer, each with its rule at the client (:class:`Client`):

    committed     after q commits; f + 1 equal replies
    tentative     after it is prepared and everything before is committed; q equal replies of one
                  view. Commits then travel with later messages. Undone if the view changes first.
    speculative   (`Settings.fast`) on the pre-prepare; all n equal replies of one view and one
                  history. Votes follow later, so that one silent replica costs time, not safety.

Authentication, by class of message:

    REQUEST, PRE-PREPARE, VIEW-CHANGE, NEW-VIEW   signed: others relay them, or must be able to show
                                                  them as evidence
    PREPARE, COMMIT, CHECKPOINT, REPLY            one MAC for all that one step sends to one peer;
                                                  with `Settings.votes = "signature"` PREPARE and
                                                  COMMIT are signed too, so that double votes are
                                                  evidence
    STATUS, FETCH and what answers them           MAC; contents are checked against digests

View changes carry no proofs, only claims: what a replica prepared (P), what it pre-prepared (Q),
its checkpoints (C). The new primary may choose a batch only if f + 1 claim to have pre-prepared it
and q claim nothing that contradicts it (:mod:`state.pbft.selection`, with the argument why that
is safe, for `fast` too, and why P and Q stay bounded however many views fail).

Every message may be lost: a replica that waits says how far it is (STATUS), and the others send
what it lacks (:mod:`state.pbft.repair`). For a slot that is final with them that is DECIDED instead
of votes, whatever view either is in: f + 1 equal ones make it committed there as well, for one of
them comes from a correct replica, which has seen q commits; and each counts as a commit, since
whoever was to send the last one may have fallen silent. When to ask follows the usual time from
one commit to the next, a running median (:class:`~state.pbft.pace.Pace`) within bounds, so that
where machines are busy nobody asks for what is under way; a client does the same for its answers.
Who cannot get on so gets the state at a checkpoint that f + 1 vouch for, in parts, each with its
hash, but for those that it has (:mod:`state.pbft.checkpoints`); a state beyond `Settings.max_state`
is refused, and that is told. A checkpoint is *stable*, and what is before it forgotten, when q say
that they have it, on their disks: then f + 1 correct ones do, and every later view change finds
them. One that f + 1 vouch for is true and no more than that, whoever begins with it.

What holds, for any schedule of loss, delay, duplication and reordering:

    agreement     no two correct replicas commit different batches under one sequence number
    validity      only requests that a client signed are executed
    exactly once  each (client, number) is executed once, whoever resends it
    durability    a replica that is killed remembers its votes: it persists before it sends
    liveness      once messages among q correct replicas arrive in time, requests are executed
                  within a bounded number of views; timers double with every failed one

Sources: Castro and Liskov, "Practical Byzantine Fault Tolerance", OSDI 1999, and "Practical
Byzantine Fault Tolerance and Proactive Recovery", ACM TOCS 20(4), 2002 (view change without
signatures on votes, tentative execution); Castro's thesis, MIT 2001; Kotla et al., "Zyzzyva", SOSP
2007, and Abraham et al., "Revisiting Fast Practical Byzantine Fault Tolerance", 2017 (what its view
change got wrong); Clement et al., "Making Byzantine Fault Tolerant Systems Tolerate Byzantine
Faults", NSDI 2009 (signed requests).
"""

from state.pbft.authentication import Authenticator
from state.pbft.client import Client
from state.pbft.events import (
    Answer,
    ClientEffect,
    ClientEvent,
    Committed,
    CommittedRequest,
    Diverged,
    Effect,
    Event,
    Evidence,
    Persist,
    Phase,
    Received,
    Rejected,
    Rewrite,
    Send,
    Settings,
    Stable,
    Start,
    Submit,
    Tick,
    Transferred,
    ViewAbandoned,
    ViewEntered,
)
from state.pbft.evidence import proves
from state.pbft.group import Group
from state.pbft.machine import MachineError, Operation, StateMachine
from state.pbft.messages import Accusation, MessageError
from state.pbft.replica import Replica, Standing

__all__ = [
    "Accusation",
    "Answer",
    "Authenticator",
    "Client",
    "ClientEffect",
    "ClientEvent",
    "Committed",
    "CommittedRequest",
    "Diverged",
    "Effect",
    "Event",
    "Evidence",
    "Group",
    "MachineError",
    "MessageError",
    "Operation",
    "Persist",
    "Phase",
    "Received",
    "Rejected",
    "Replica",
    "Rewrite",
    "Send",
    "Settings",
    "Stable",
    "Standing",
    "Start",
    "StateMachine",
    "Submit",
    "Tick",
    "Transferred",
    "ViewAbandoned",
    "ViewEntered",
    "proves",
]
