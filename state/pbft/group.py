"""Who takes part: the replicas in their order, how many may be faulty, who leads which view."""

from __future__ import annotations

from collections.abc import Sequence

from state.pbft.messages import MAX_GROUP
from state.thresholds import max_faults, quorum_size


class Group:
    """The replicas of a cluster, and how many make a quorum (:mod:`state.thresholds`).

    Args:
        cluster: A name that no other group of these identities has: signatures are bound to it.
        replicas: Their names, in the order in which they lead.
        f: How many may be faulty; as many as n allows if not given.
        leaders: Who leads view 0, 1, ... (and again from the start), for tests of schedules; the
            replicas in turn if not given.

    Raises:
        ValueError: n < 3f + 1 or n > 256, a name is given twice, or a leader is no replica.

    >>> group = Group("demo", ["a", "b", "c", "d"])
    >>> group.f, group.quorum, group.primary(5)
    (1, 3, 'b')
    >>> Group("demo", ["a", "b", "c", "d", "e"], f=1).quorum
    4
    """

    def __init__(
        self,
        cluster: str,
        replicas: Sequence[str],
        f: int | None = None,
        *,
        leaders: Sequence[str] | None = None,
    ) -> None:
        self.cluster = cluster
        self.replicas = tuple(replicas)
        self.members = frozenset(replicas)
        self.n = len(self.replicas)
        self.f = max_faults(self.n) if f is None else f
        self.quorum = quorum_size(self.n, self.f)
        self._leaders = tuple(leaders) if leaders is not None else self.replicas
        if self.n > MAX_GROUP:
            raise ValueError(f"{self.n} replicas: a group has {MAX_GROUP} at most")
        if len(self.members) != self.n:
            raise ValueError("two replicas have the same name")
        if not self._leaders or not self.members.issuperset(self._leaders):
            raise ValueError("a leader is no replica of the group")

    def primary(self, view: int) -> str:
        """Return who leads `view`."""
        return self._leaders[view % len(self._leaders)]

    def others(self, name: str) -> tuple[str, ...]:
        """Return all replicas but `name`."""
        return tuple(each for each in self.replicas if each != name)
