"""Twins: correct replicas that run twice under one name, which together lie in every possible way.

A scenario gives each of the first views a leader and a partition of the network; afterwards all is
well. Source: Bano et al., "Twins: BFT Systems Made Robust", OPODIS 2021.

`python -m tests.simulation.pbft_twins NUMBER` plays a scenario of those with four replicas.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from state.pbft.authentication import MAC_BYTES
from state.pbft.events import Settings
from state.pbft.invariants import Violation
from state.pbft.messages import Status, ViewChange, decode
from state.pbft.simulator import Node, ReplicaNode, Simulator

REPLAY = ".venv/bin/python -m tests.simulation.pbft_twins"
PERIOD = 0.1
"""Seconds for which a view lasts before its replicas are told apart and have to leave it."""


class Round(NamedTuple):
    """A view: who leads it, and the nodes of one side of the partition (the rest is the other)."""

    leader: str
    side: tuple[str, ...]


def nodes_of(names: Sequence[str], twins: Sequence[str]) -> list[str]:
    """Return the nodes of a group: two for each twin."""
    return [node for name in names for node in ((name, name + "'") if name in twins else (name,))]


def partitions(nodes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return one side of each partition into two, none and all being one of them."""
    first, *rest = nodes
    return [
        (first, *chosen)
        for size in range(len(rest), -1, -1)
        for chosen in itertools.combinations(rest, size)
    ]


def rounds(names: Sequence[str], twins: Sequence[str]) -> list[Round]:
    """Return everything that one view can be."""
    sides = partitions(nodes_of(names, twins))
    return [Round(leader, side) for leader in names for side in sides]


def symmetries(names: Sequence[str], twins: Sequence[str]) -> list[dict[str, str]]:
    """Return the renamings of nodes that change nothing: of correct ones, and of twins' halves."""
    correct = [name for name in names if name not in twins]
    found = []
    for order in itertools.permutations(correct):
        for swaps in itertools.product((False, True), repeat=len(twins)):
            renamed = dict(zip(correct, order, strict=True))
            for twin, swap in zip(twins, swaps, strict=True):
                renamed[twin] = twin + "'" if swap else twin
                renamed[twin + "'"] = twin if swap else twin + "'"
            found.append(renamed)
    return found


def distinct(
    names: Sequence[str], twins: Sequence[str], leaders: Sequence[Collection[str]]
) -> Iterator[tuple[int, ...]]:
    """Return all scenarios that are no renaming of another, as places in :func:`rounds`.

    Args:
        names: The replicas.
        twins: Those that run twice.
        leaders: For each view, who may lead it.
    """
    every = rounds(names, twins)
    nodes = nodes_of(names, twins)
    first = nodes[0]
    place = {each: i for i, each in enumerate(every)}
    order = {node: i for i, node in enumerate(nodes)}

    def renamed(index: int, names: dict[str, str]) -> int:
        leader, side = every[index]
        other = {names[node] for node in side}
        if first not in other:
            other = set(nodes) - other
        return place[Round(names[leader].rstrip("'"), tuple(sorted(other, key=order.__getitem__)))]

    tables = [
        tuple(renamed(i, each) for i in range(len(every)))
        for each in symmetries(names, twins)
        if all({each[name].rstrip("'") for name in able} == set(able) for able in leaders)
    ]

    def extend(prefix: tuple[int, ...], fixing: list[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        if len(prefix) == len(leaders):
            yield prefix
            return
        for index, each in enumerate(every):
            if each.leader not in leaders[len(prefix)]:
                continue
            if all(table[index] >= index for table in fixing):
                still = [table for table in fixing if table[index] == index]
                yield from extend((*prefix, index), still)

    return extend((), tables)


SETTINGS = Settings(
    checkpoint=2,
    batch_operations=2,
    pipeline=4,
    timeout=0.1,
    longest_timeout=0.2,
    resend=0.04,
    longest_resend=0.16,
    lazy=0.003,
    lazy_fast=0.01,
)


class Twins:
    """A scenario as it is played.

    Args:
        seed: Of delays.
        n: Replicas.
        twins: Which run twice.
        scenario: The first views.
        settings: Of all.
    """

    def __init__(
        self,
        seed: int,
        n: int,
        twins: Sequence[str],
        scenario: Sequence[Round],
        settings: Settings = SETTINGS,
    ) -> None:
        names = [f"r{i}" for i in range(n)]
        leaders = [each.leader for each in scenario]
        leaders += [names[i % n] for i in range(len(leaders), 60)]
        self.world = Simulator(
            seed, n=n, clients=2, twins=twins, leaders=leaders, settings=settings,
            latency=(0.001, 0.003), watch=True,
        )  # fmt: skip
        self.world.grain = 0.001
        self.world.filter = self._passes
        for i, node in enumerate(self.world.replicas.values()):
            node.wall = i / 100  # so that twins propose different batches
        self._sides = [frozenset(each.side) for each in scenario]
        self._over = 0
        """Views before this one are over: all that replicas hear is that others leave them, too."""

    def _passes(self, source: Node, target: Node, bundle: bytes) -> bool:
        if not isinstance(source, ReplicaNode) or not isinstance(target, ReplicaNode):
            return True
        assert source.replica is not None
        view = source.replica.view
        if view < self._over:  # nothing but what lets all get to the next view
            kinds = {type(message) for message in decode(bundle[MAC_BYTES:])}
            return ViewChange in kinds or kinds == {Status}
        if view >= len(self._sides):
            return True
        side = self._sides[view]
        return (source.id in side) == (target.id in side)

    def play(self) -> None:
        """Play the scenario, then let all be well and check that everything gets done."""
        self.world.start()
        for _ in range(len(self._sides)):
            self.play_view()
        self.finish()

    def add(self, side: Sequence[str]) -> None:
        """Add a view to the scenario, led by whoever is next in turn."""
        self._sides.append(frozenset(side))

    def play_view(self) -> None:
        """Play the next view."""
        world, view = self.world, self._over
        clients = list(world.clients.values())
        world.run_until(lambda: self._view() >= view, limit=5.0, step=0.01)
        for client in clients:
            client.submit([b"?%d" % view])
        world.run(PERIOD)
        self._over = view + 1
        clients[view % 2].submit([b"and %d" % view])

    def finish(self) -> None:
        """Let all be well."""
        world = self.world
        world.run_until(lambda: self._view() >= len(self._sides), limit=5.0, step=0.05)
        self._over = 0
        world.filter = None
        if not world.run_until(lambda: world.idle() and world.level(), limit=60.0, step=0.1):
            raise Violation(
                f"after 60 s in which all was well: "
                f"{[each.client.in_flight for each in world.clients.values()]}, "
                f"{[(n.id, n.replica and n.replica.standing()) for n in world.correct()]}"
            )
        world.judge.settled()

    def _view(self) -> int:
        return max(node.replica.view for node in self.world.correct() if node.replica is not None)


def play(
    n: int,
    twins: Sequence[str],
    places: Sequence[int],
    *,
    fast: bool = False,
    seed: int | None = None,
) -> Twins:
    """Play a scenario given as places in :func:`rounds`; its seed is their sum if there is none.

    Raises:
        AssertionError: something went wrong; it says how to play it again.
    """
    every = rounds([f"r{i}" for i in range(n)], twins)
    seed = sum(places) if seed is None else seed
    run = Twins(seed, n, twins, [every[place] for place in places], _settings(fast, seed))
    try:
        run.play()
    except Exception as error:
        raise AssertionError(_told(error, n, twins, places, fast, seed)) from error
    return run


def _settings(fast: bool, seed: int) -> Settings:
    # In every second one votes come so late that views end with speculative answers only.
    return (_FAST, _LATE)[seed % 2] if fast else SETTINGS


def _told(
    error: Exception, n: int, twins: Sequence[str], places: Sequence[int], fast: bool, seed: int
) -> str:
    every = rounds([f"r{i}" for i in range(n)], twins)
    return (
        f"{[every[place] for place in places]}: {type(error).__name__}: {error}\n"
        f"play it again: {REPLAY} --n {n} --twins {','.join(twins)}{' --fast' if fast else ''} "
        f"--seed {seed} {' '.join(map(str, places))}"
    )


_FAST = replace(SETTINGS, fast=True)
_LATE = replace(_FAST, lazy_fast=0.5)


def play_in_turn(n: int, twin: str, first: int, *, fast: bool = False) -> int:
    """Play all scenarios of n views led in turn that begin with one round; return how many.

    What they have in common is played once: the process forks where they part.

    Args:
        n: Replicas, and views.
        twin: Who runs twice.
        first: The place of the first round, whose leader is r0.
        fast: Whether speculative answers are allowed.

    Raises:
        AssertionError: something went wrong; it says how to play each of the first few again.
    """
    names = [f"r{i}" for i in range(n)]
    scenarios = [
        each for each in distinct(names, [twin], [[name] for name in names]) if each[0] == first
    ]
    if not scenarios:
        return 0
    every = rounds(names, [twin])
    run = Twins(first, n, [twin], [], _settings(fast, first))
    run.world.start()
    with tempfile.TemporaryFile("w+") as said:

        def part(depth: int, scenarios: Sequence[tuple[int, ...]]) -> None:
            """Play what follows after `depth` views, each way in a process of its own."""
            for place, group in itertools.groupby(scenarios, key=lambda each: each[depth]):
                alike = list(group)
                if child := os.fork():
                    _, status = os.waitpid(child, 0)
                    if status:  # it could not even say what was wrong
                        raise ChildProcessError(f"status {status} after {alike[0][: depth + 1]}")
                    continue
                try:
                    run.add(every[place].side)
                    run.play_view()
                    if depth + 1 == n:
                        run.finish()
                    else:
                        part(depth + 1, alike)
                except Exception as error:
                    said.write(_told(error, n, [twin], alike[0], fast, first)[:2000] + "\n\n")
                    said.flush()
                finally:
                    os._exit(0)

        gc.collect()
        gc.freeze()
        try:
            part(0, scenarios)
        finally:
            gc.unfreeze()
        said.seek(0)
        wrong = said.read()
    assert not wrong, wrong[:4000]
    return len(scenarios)


def sampled(seed: int, n: int, twins: Sequence[str], views: int) -> tuple[int, ...]:
    """Return a scenario by chance: half of its views are led by twins."""
    rng = random.Random(f"twins {seed} {n}")
    every = rounds([f"r{i}" for i in range(n)], twins)
    lead = [i for i, each in enumerate(every) if each.leader in twins]
    return tuple(
        rng.choice(lead) if rng.random() < 0.5 else rng.randrange(len(every)) for _ in range(views)
    )


def main() -> None:
    """Play scenarios as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", nargs="*", type=int, help="of the rounds of each view")
    parser.add_argument("--n", type=int, default=4)
    parser.add_argument("--twins", default="r0", help="who runs twice, such as r0,r1")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--seed", type=int, help="of delays; by default the sum of the places")
    parser.add_argument("--sample", type=int, metavar="COUNT", help="play so many by chance")
    args = parser.parse_args()
    twins = args.twins.split(",")
    if args.places:
        run = play(args.n, twins, args.places, fast=args.fast, seed=args.seed)
        print(dict(run.world.happened), sorted(run.world.judge.accused))
        return
    begun = time.perf_counter()
    total = Counter[str]()
    for seed in range(args.sample):
        try:
            run = play(args.n, twins, sampled(seed, args.n, twins, 4), fast=args.fast)
            total += run.world.happened
        except AssertionError as error:
            print(str(error)[:800], flush=True)
    print(f"{args.sample} scenarios, {time.perf_counter() - begun:.1f} s, {dict(total)}")


if __name__ == "__main__":
    main()
