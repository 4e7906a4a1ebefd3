"""Quorum votes: signed ballots, and the decision of enough voters that some may lie to.

    voters --Ballot--> Tally (merges with other tallies) --conclude(now)--> QuorumCertificate
                         |
                         +--> Equivocation: two ballots of one voter that choose differently

`Polls` holds many of these, with deadlines, timeouts and reasons for what it does not count.

A subject is decided once for each epoch of the roster. Whoever changes rosters and wants one
decision over both puts the subjects that are open to the vote again under names of the new epoch.
"""

from state.quorum.ballot import ABSTAIN, Ballot, BallotError, Equivocation, cast
from state.quorum.certificate import QuorumCertificate, Vote
from state.quorum.items import Item, Succession, item_from_bytes
from state.quorum.outcomes import Fork, Outcome, Rejected, Undecided
from state.quorum.polls import Polls
from state.quorum.tally import Standing, Tally

__all__ = [
    "ABSTAIN",
    "Ballot",
    "BallotError",
    "Equivocation",
    "Fork",
    "Item",
    "Outcome",
    "Polls",
    "QuorumCertificate",
    "Rejected",
    "Standing",
    "Succession",
    "Tally",
    "Undecided",
    "Vote",
    "cast",
    "item_from_bytes",
]
