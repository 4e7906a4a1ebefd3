"""What may happen to a group of replicas, drawn from a seed.

`python -m tests.simulation.pbft_scenarios SEED` plays one and says what happened;
`FIRST-LAST` plays many, `--profile` says where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from state.identity import PrivateIdentity, Roster
from state.pbft.authentication import Authenticator
from state.pbft.byzantine import (
    Byzantine,
    Delay,
    Equivocate,
    Forge,
    Plot,
    Replay,
    Silent,
    Usurp,
)
from state.pbft.events import Settings
from state.pbft.invariants import Violation
from state.pbft.keys import Keys
from state.pbft.simulator import ReplicaNode, Simulator

REPLAY = ".venv/bin/python -m tests.simulation.pbft_scenarios"


def real_keys(names: list[str], seed: int) -> Mapping[str, Authenticator]:
    """Return Ed25519 and X25519 keys of everybody."""
    rng = random.Random(seed)
    ids = [PrivateIdentity.generate(name, rng.randbytes(32)) for name in names]
    roster = Roster("simulated", 1, tuple(each.public for each in ids))
    return {each.name: Keys(each, roster) for each in ids}


def misbehaviours(
    rng: random.Random, names: list[str], faulty: int
) -> dict[str, Callable[..., Byzantine]]:
    """Choose who misbehaves and how; those who equivocate do it together."""
    plot = Plot()
    ways: list[tuple[Callable[..., Byzantine], int]] = [
        (partial(Equivocate, plot=plot), 5),
        (partial(Silent, towards="all"), 2),
        (partial(Silent, towards="some"), 2),
        (partial(Silent, towards="leader"), 2),
        (partial(Forge, often=0.3), 4),
        (partial(Replay, often=0.3), 3),
        (Delay, 2),
    ]
    makers, weights = [m for m, _ in ways], [w for _, w in ways]
    if rng.random() < 0.4:  # all in the same way
        return dict.fromkeys(rng.sample(names, faulty), rng.choices(makers, weights)[0])
    return {name: rng.choices(makers, weights)[0] for name in rng.sample(names, faulty)}


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a seed stands for."""

    seed: int
    n: int
    settings: Settings
    faulty: Mapping[str, Callable[..., Byzantine]]
    loss: float
    duplicated: float
    straggling: float
    tampered: float
    steps: int
    real: bool
    watch: bool
    liars: int
    """Clients that lie."""
    usurped: bool
    """Whether the second to lead begins its views twice."""


def draw(seed: int, *, fast: bool | None = None) -> Scenario:
    """Return the scenario of a seed."""
    rng = random.Random(f"scenario {seed}")
    n = rng.choices([4, 7, 10], [80, 15, 5])[0]
    checkpoint = rng.choice([1, 2, 4, 8, 16])
    settings = Settings(
        checkpoint=checkpoint,
        batch_operations=rng.choice([1, 2, 8]),
        pipeline=rng.choice([1, 2, 8]),
        timeout=0.5,
        longest_timeout=4.0,
        resend=rng.choice([0.03, 0.1]),
        longest_resend=0.8,
        tentative=rng.random() < 0.7,
        fast=rng.random() < 0.35 if fast is None else fast,
        lazy=rng.choice([0.0, 0.005, 0.02]),
        lazy_fast=rng.choice([0.01, 0.05, 0.4]),
        votes=rng.choice(["mac", "mac", "signature"]),
        max_waiting=rng.choice([4, 64]),
        chunk=rng.choice([64, 256, 1 << 16]),
        max_state=1 << 20,
    )
    most = (n - 1) // 3
    names = [f"r{i}" for i in range(n)]
    if rng.random() < 0.2:  # the first primary lies, with all whom it can have, in a good network
        plot, others = Plot(), rng.sample(names[1:], most - 1)
        faulty = dict.fromkeys([names[0], *others], partial(Equivocate, plot=plot))
        losses = [0.0]
    else:
        count = rng.choices([0, rng.randint(1, most), most], [30, 20, 50])[0]
        faulty = misbehaviours(rng, names, count)
        losses = [0.0, 0.02, 0.1, 0.3, 0.5]
    # Of their own, so that older seeds mean what they meant where neither is drawn.
    more = random.Random(f"others {seed}")
    usurped = more.random() < 0.2
    if usurped:
        plot, others = Plot(), more.sample([names[0], *names[2:]], most - 1)
        faulty = {names[1]: partial(Usurp, plot=plot)}
        faulty |= dict.fromkeys(others, partial(Equivocate, plot=plot))
    return Scenario(
        seed=seed,
        n=n,
        settings=settings,
        faulty=faulty,
        loss=rng.choice(losses),
        duplicated=rng.choice([0.0, 0.1, 0.5]),
        straggling=rng.choice([0.0, 0.02, 0.2]),
        tampered=rng.choice([0.0, 0.0, 0.05]),
        steps=rng.randint(8, 24 if n == 4 else 12),
        real=n == 4 and rng.random() < 0.01,
        watch=rng.random() < 0.5,
        liars=more.choices([0, 1, 2], [60, 25, 15])[0],
        usurped=usurped,
    )


class Run:
    """One scenario as it is played."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.rng = random.Random(f"run {scenario.seed}")
        self.world = Simulator(
            scenario.seed,
            n=scenario.n,
            clients=self.rng.randint(1, 3),
            liars=scenario.liars,
            faulty=scenario.faulty,
            keys=real_keys if scenario.real else _simulated_keys,
            settings=scenario.settings,
            loss=scenario.loss,
            duplicated=scenario.duplicated,
            straggling=scenario.straggling,
            tampered=scenario.tampered,
            watch=scenario.watch,
        )
        self.moves: Counter[str] = Counter()
        self.views = 0
        """How many views it took after all was well again."""
        self.seconds = 0.0
        """How long it took to answer all."""
        for node in self.world.replicas.values():
            node.rate = self.rng.uniform(0.9, 1.1)
            node.offset = self.rng.uniform(0, 1000)
            node.wall = self.rng.uniform(-2, 2)
        self.world.start()

    def someone(self, *, up: bool) -> ReplicaNode | None:
        nodes = [node for node in self.world.correct() if node.up == up]
        return self.rng.choice(nodes) if nodes else None

    def submit(self) -> None:
        client = self.world.clients[self.rng.choice(self.world.client_names)]
        if client.client.in_flight < self.scenario.settings.max_waiting:
            kinds = self.rng.choices([b"?", b"!"], k=self.rng.choice([1, 1, 3]))
            client.submit([kind + self.rng.randbytes(4) for kind in kinds])

    def crash(self) -> None:
        node = self.someone(up=True)
        if node is not None:
            node.crash_soon(self.rng.randrange(12))

    def restart(self) -> None:
        node = self.someone(up=False)
        if node is not None:
            node.offset = self.rng.uniform(0, 1000)
            node.start()

    def split(self) -> None:
        names = list(self.world.replicas)
        self.rng.shuffle(names)
        at = self.rng.randrange(1, len(names))
        sides = [names[:at], names[at:]]
        for name in self.world.client_names:
            if self.rng.random() < 0.5:
                self.rng.choice(sides).append(name)
        self.world.split(*sides)

    def cut(self) -> None:
        names = list(self.world.replicas)
        self.rng.shuffle(names)
        at = self.rng.randrange(1, len(names))
        self.world.cut(names[:at], names[at:])

    def pause(self) -> None:
        node = self.someone(up=True)
        if node is not None:
            node.pause()
            self.world.schedule(self.world.now + self.rng.expovariate(1.0), node.resume)

    def jump(self) -> None:
        node = self.someone(up=True)
        if node is not None:
            node.wall += self.rng.choice([-3600, -5, 5, 3600])

    def lie(self) -> None:
        liars = list(self.world.liars.values())
        for _ in range(self.rng.randint(1, 3)):
            self.rng.choice(liars).lie()

    def depose(self) -> None:
        """Cut off whoever leads amid a few requests, so that another one has to."""
        for _ in range(self.rng.randint(1, 4)):
            self.submit()
            self.world.run(self.rng.uniform(0, 0.01))
        leader = self.world.group.primary(self.greatest_view())
        self.world.split([leader], [each for each in self.world.replicas if each != leader])

    def play(self) -> None:
        moves = [
            (self.submit, 40), (self.crash, 8), (self.restart, 8), (self.split, 5), (self.cut, 2),
            (self.world.heal, 7), (self.pause, 3), (self.jump, 2),
        ]  # fmt: skip
        if self.scenario.liars:
            moves.append((self.lie, 20))
        if self.scenario.usurped:
            moves.append((self.depose, 12))
        chosen = self.rng.choices(
            [m for m, _ in moves], [w for _, w in moves], k=self.scenario.steps
        )
        self.submit()
        if self.scenario.usurped:
            self.depose()
        for move in chosen:
            self.moves[move.__name__] += 1
            move()
            self.world.run(self.rng.expovariate(1 / self.rng.choice([0.01, 0.2])))

    def settle(self) -> None:
        """Make all well again, but for who misbehaves; check that everything gets done."""
        world = self.world
        world.heal()
        world.loss = world.duplicated = world.straggling = world.tampered = 0.0
        for node in world.correct():
            node.wall = self.rng.uniform(-2, 2)
            node.crash_soon(None)
            if node.paused:
                node.resume()
        for node in world.correct():
            if not node.up:
                node.start()
        if self.scenario.liars:
            self.lie()
        self.submit()
        begun, view = world.now, self.greatest_view()
        # Every view with a faulty primary costs a timeout, and the first may be over already.
        limit = 60.0 + 10.0 * world.group.f
        done = world.run_until(lambda: world.idle() and world.level(), limit=limit)
        self.seconds, self.views = world.now - begun, self.greatest_view() - view
        if not done:
            raise Violation(
                f"after {limit} s in which all was well: in flight "
                f"{[node.client.in_flight for node in world.clients.values()]}, "
                f"{[(n.id, n.replica and n.replica.standing()) for n in world.correct()]}"
            )
        world.judge.settled()

    def greatest_view(self) -> int:
        return max(node.replica.view for node in self.world.correct() if node.replica is not None)


def _simulated_keys(names: list[str], seed: int) -> Mapping[str, Authenticator]:
    from state.pbft.simulated_keys import SimulatedKeys

    return SimulatedKeys.of(names, seed)


def play(seed: int, *, fast: bool | None = None) -> Run:
    """Play a scenario.

    Raises:
        AssertionError: something went wrong; it names the seed and how to play it again.
    """
    run = Run(draw(seed, fast=fast))
    try:
        run.play()
        run.settle()
    except Exception as error:
        how = "" if fast is None else " --fast" if fast else " --no-fast"
        raise AssertionError(
            f"seed {seed}: {type(error).__name__}: {error}\nplay it again: {REPLAY} {seed}{how}"
        ) from error
    return run


def main() -> None:
    """Play scenarios as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="one seed, or FIRST-LAST")
    parser.add_argument("--fast", action=argparse.BooleanOptionalAction, default=None)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--first", action="store_true", help="end after the first failure")
    args = parser.parse_args()
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    profile = cProfile.Profile()
    failed, total = 0, Counter[str]()
    begun = time.perf_counter()
    slowest: list[tuple[float, int]] = []
    views: Counter[int] = Counter()
    longest = 0.0
    for seed in seeds:
        start = time.perf_counter()
        try:
            if args.profile:
                profile.enable()
            run = play(seed, fast=args.fast)
            profile.disable()
        except AssertionError as error:
            profile.disable()
            failed += 1
            if len(seeds) == 1:
                traceback.print_exc()
            else:
                print(str(error)[:600], flush=True)
            if args.first:
                break
            continue
        slowest.append((time.perf_counter() - start, seed))
        total += run.world.happened
        views[run.views] += 1
        longest = max(longest, run.seconds)
        if len(seeds) == 1:
            print(run.scenario)
            print(dict(run.moves), dict(run.world.happened), "views", run.views)
    seconds = time.perf_counter() - begun
    print(f"{len(seeds)} runs, {failed} failed, {seconds:.1f} s; {dict(total)}")
    print(f"views after healing: {sorted(views.items())}; at most {longest:.1f} s")
    print("slowest:", sorted(slowest, reverse=True)[:5])
    if args.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
