"""A group of replicas, its clients and a network that are not there: seeded and repeatable.

For tests of :class:`~state.pbft.Replica` and :class:`~state.pbft.Client`, and to see how a group
bears what may happen to it: loss, delay, duplication, reordering, changed bytes, partitions both
ways or one way, pauses, clocks that are wrong or jump, crashes between any two effects, and
replicas and clients that lie (:mod:`state.pbft.byzantine`). Everything follows from the seed. All
the while :class:`~state.pbft.invariants.Invariants` judges what correct replicas and clients do.

    >>> world = Simulator(seed=1, loss=0.2)
    >>> world.start()
    >>> world.clients["c0"].submit([b"hello"])
    >>> world.run_until(lambda: world.idle(), limit=60.0)
    True
    >>> sorted(world.judge.answers)
    [('c0', 1)]
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from state.pbft.authentication import MAC_BYTES, Authenticator
from state.pbft.byzantine import Actor
from state.pbft.events import Effect, Rejected, Send, Settings
from state.pbft.group import Group
from state.pbft.hash_chain import HashChain
from state.pbft.invariants import Invariants
from state.pbft.machine import StateMachine
from state.pbft.messages import decode
from state.pbft.replica import Replica
from state.pbft.simulated_keys import SimulatedKeys
from state.pbft.simulated_nodes import ClientNode, LiarNode, Node, ReplicaNode
from state.simulated_time import SimulatedTime

__all__ = ["ClientNode", "HashChain", "LiarNode", "Node", "ReplicaNode", "Simulator"]


class Simulator(SimulatedTime):
    """Replicas and clients, and a network between them that is as bad as it is told to be.

    Args:
        seed: Of all chance in the run.
        n: Replicas, called r0, r1, ...
        f: How many may be faulty; as many as `n` allows if not given.
        clients: How many, called c0, c1, ...
        liars: How many clients that lie, called l0, l1, ...; they do when they are told to.
        faulty: Replicas that misbehave, and what makes each of them do so, called with the replica
            in it, its keys and a source of chance.
        twins: Replicas that run twice under one name; they are faulty, too.
        leaders: See :class:`~state.pbft.Group`.
        keys: Makes everybody's keys; :class:`SimulatedKeys` if not given.
        machine: Makes a machine; a :class:`HashChain` if not given.
        settings: Of all.
        loss: The share of messages that are lost.
        latency: The least and the greatest delay of a message, in seconds.
        duplicated: The share of messages that arrive twice.
        straggling: The share that takes up to 50 times as long.
        tampered: The share of which a changed copy, or one in another's name, arrives as well.
        watch: Whether to read all that correct replicas send: votes must not contradict each other.
    """

    def __init__(
        self,
        seed: int,
        *,
        n: int = 4,
        f: int | None = None,
        clients: int = 1,
        liars: int = 0,
        faulty: Mapping[str, Callable[[Replica, Authenticator, random.Random], Actor]]
        | None = None,
        twins: Collection[str] = (),
        leaders: Sequence[str] | None = None,
        keys: Callable[[list[str], int], Mapping[str, Authenticator]] = SimulatedKeys.of,
        machine: Callable[[], StateMachine] = HashChain,
        settings: Settings | None = None,
        loss: float = 0.0,
        latency: tuple[float, float] = (0.001, 0.008),
        duplicated: float = 0.0,
        straggling: float = 0.0,
        tampered: float = 0.0,
        watch: bool = False,
    ) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.seed = seed
        self.loss = loss
        self.latency = latency
        self.duplicated = duplicated
        self.straggling = straggling
        self.tampered = tampered
        self.watch = watch
        self.settings = settings if settings is not None else Settings()
        self.machine = machine
        faulty = faulty if faulty is not None else {}
        names = [f"r{i}" for i in range(n)]
        self.client_names = [f"c{i}" for i in range(clients)]
        self.group = Group("simulated", names, f, leaders=leaders)
        liar_names = [f"l{i}" for i in range(liars)]
        self.known_clients = [*self.client_names, *liar_names]
        self.keys = keys([*names, *self.known_clients], seed)
        self.judge = Invariants(
            self.group, machine, self.keys[names[0]], faulty={*faulty, *twins}, liars=liar_names
        )
        self.happened: Counter[str] = Counter()
        self.grain = 0.001
        self.filter: Callable[[Node, Node, bytes], bool] | None = None
        """If given: whether a bundle from a node to another gets through."""
        self._mail: dict[tuple[int, str], list[tuple[str, bytes]]] = {}
        self._cut: set[tuple[str, str]] = set()
        self.replicas: dict[str, ReplicaNode] = {}
        for name in names:
            ids = [name, name + "'"] if name in twins else [name]
            for each in ids:
                self.replicas[each] = ReplicaNode(self, each, name, faulty.get(name))
                self.replicas[each].correct &= name not in twins
        self.clients = {name: ClientNode(self, name) for name in self.client_names}
        self.liars = {name: LiarNode(self, name) for name in liar_names}
        self._nodes: dict[str, list[Node]] = {}
        for node in (*self.replicas.values(), *self.clients.values(), *self.liars.values()):
            self._nodes.setdefault(node.name, []).append(node)

    # -- replicas ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all replicas that do not run."""
        for node in self.replicas.values():
            if not node.up:
                node.start()

    def correct(self) -> list[ReplicaNode]:
        """Return the correct replicas, whether they run or not."""
        return [node for node in self.replicas.values() if node.correct]

    def observe(self, node: ReplicaNode, effect: Effect) -> None:
        """Judge what a correct replica did."""
        if isinstance(effect, Rejected):
            self.happened["rejected"] += 1
            return
        self.happened[type(effect).__name__] += 1
        self.judge.observe(node.id, effect)

    # -- the network ------------------------------------------------------------------------------

    def split(self, *sides: Iterable[str]) -> None:
        """Cut the network: nodes reach those of their own side only.

        Those that are on no side reach all.
        """
        self.heal()
        for side, other in itertools.permutations([list(side) for side in sides], 2):
            self.cut(side, other)

    def cut(self, sources: Iterable[str], targets: Iterable[str]) -> None:
        """Cut one way: nothing gets from `sources` to `targets`."""
        self._cut |= set(itertools.product(sources, targets))

    def heal(self) -> None:
        """Undo all cuts."""
        self._cut.clear()

    def send(self, source: Node, effect: Send) -> None:
        """Put a message on its way."""
        if self.watch and isinstance(source, ReplicaNode) and source.correct:
            self.judge.sent(source.id, decode(effect.data[MAC_BYTES:]))
        self.happened["sent"] += 1
        chance = self.random.random
        for node in self._nodes.get(effect.to, ()):
            if (source.id, node.id) in self._cut or (
                self.filter is not None and not self.filter(source, node, effect.data)
            ):
                continue
            if self.tampered and chance() < self.tampered:
                self._tamper(source, node, effect.data)
            if self.loss and chance() < self.loss:
                continue
            self._post(source.name, node, effect.data)
            if self.duplicated and chance() < self.duplicated:
                self._post(source.name, node, effect.data)

    def _post(self, sender: str, node: Node, data: bytes) -> None:
        least, most = self.latency
        delay = least + (most - least) * self.random.random()
        if self.straggling and self.random.random() < self.straggling:
            delay *= 50 * self.random.random()
        at = math.ceil((self.now + delay) / self.grain)
        # What arrives in the same millisecond is taken in together.
        mail = self._mail.get((at, node.id))
        if mail is None:
            self._mail[at, node.id] = [(sender, data)]
            self.schedule(at * self.grain, lambda: self._arrive(at, node))
        else:
            mail.insert(self.random.randint(0, len(mail)), (sender, data))

    def _arrive(self, at: int, node: Node) -> None:
        node.receive(self._mail.pop((at, node.id)))

    def _tamper(self, source: Node, node: Node, data: bytes) -> None:
        self.happened["tampered"] += 1
        sender = source.name
        which = self.random.randrange(4)
        if which == 0 or not data:  # who forges sends nothing at all, too
            sender = self.random.choice(self.group.replicas)
        elif which == 1:
            data = data[: self.random.randrange(len(data))]
        else:
            at = self.random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ (1 << self.random.randrange(8))]) + data[at + 1 :]
        self._post(sender, node, data)

    # -- the end ----------------------------------------------------------------------------------

    def idle(self) -> bool:
        """Return whether every client that does not lie has its answers."""
        return all(not node.client.in_flight for node in self.clients.values())

    def level(self) -> bool:
        """Return whether all correct replicas run, and have committed all that was answered.

        They have committed the same, and executed nothing else. They need not be in one view:
        fewer than f + 1 that gave up on it may wait for the others.
        """
        standings = [
            node.replica.standing()
            for node in self.correct()
            if node.up and node.replica is not None
        ]
        reached = {slot for each in standings for slot in (each.final, each.executed)}
        # What was answered before it was committed may have to wait for the next view.
        answered = max((answer.seq for answer in self.judge.answers.values()), default=0)
        return (
            len(standings) == len(self.correct()) and len(reached) == 1 and max(reached) >= answered
        )
