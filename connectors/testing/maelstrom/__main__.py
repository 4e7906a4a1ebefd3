"""``python -m connectors.testing.maelstrom -w WORKLOAD [options] -- COMMAND ...``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from connectors.testing.maelstrom import WORKLOADS, Plan, run


def main() -> int:
    """Run nodes as the command line says; print the verdict as JSON; 0 if it is valid."""
    parser = argparse.ArgumentParser(
        prog="python -m connectors.testing.maelstrom",
        description="Run nodes that speak Maelstrom's protocol, break their network, check them.",
    )
    default = Plan()
    parser.add_argument("-w", "--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--node-count", type=int, default=default.nodes)
    parser.add_argument("--rate", type=float, default=default.rate, help="requests in a second")
    parser.add_argument("--time-limit", type=float, default=default.seconds, help="seconds")
    parser.add_argument("--nemesis", choices=["none", "partition"], default="none")
    parser.add_argument("--latency", type=float, default=default.latency, help="mean, in ms")
    parser.add_argument("--loss", type=float, default=default.loss, help="probability")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--logs", type=Path, default=Path("runs/maelstrom"))
    parser.add_argument("command", nargs="+", help="the program of a node, after --")
    options = parser.parse_args()
    plan = Plan(
        nodes=options.node_count,
        rate=options.rate,
        seconds=options.time_limit,
        partitions=options.nemesis == "partition",
        latency=options.latency / 1000,
        loss=options.loss,
        seed=options.seed,
    )
    verdict = run(WORKLOADS[options.workload], options.command, plan, options.logs)
    for problem in verdict.problems:
        print(problem, file=sys.stderr)
    print(json.dumps({"valid": verdict.valid, **verdict.counts}))
    return 0 if verdict.valid else 1


if __name__ == "__main__":
    sys.exit(main())
