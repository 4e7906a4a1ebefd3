"""List the jobs, what each reads and writes, and its settings; draw a job's graph.

python -m jobs                  the jobs
python -m jobs describe market  its settings
python -m jobs show market      its graph, as Mermaid text
python -m jobs report DIR       render a run's report again
python -m jobs keys DIR NAME    make or renew the keys of nodes that are linked by QUIC
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.settings import JobSettings

JOBS = {
    "market": (
        "python -m bytewax.run jobs.market",
        "find crashes in prices, and which series led which",
    ),
    "recompute": (
        "python -m jobs.recompute market --once",
        "run a finished job's flow again over its stored inputs and compare",
    ),
    "telemetry": (
        "python -m bytewax.run jobs.telemetry",
        "answer questions about a million agents in a tree, each answer with its error",
    ),
    "telemetry_tree": (
        "python -m jobs.telemetry_tree",
        "the same as processes linked by QUIC: a root, three regions, nine leaves",
    ),
    "gossip": (
        "python -m bytewax.run jobs.gossip",
        "replicate a document among peers with no centre",
    ),
    "replica": (
        "python -m bytewax.run jobs.replica",
        "replicate a store or a lock service among replicas that bear liars",
    ),
}
_SETTINGS = {
    "replica": ("jobs.replica_settings", "ReplicaSettings"),
    "gossip": ("jobs.gossip_settings", "GossipSettings"),
    "market": ("jobs.market_settings", "MarketSettings"),
    "telemetry": ("jobs.telemetry_settings", "TelemetrySettings"),
}
_REPORTS = {"alerts.ndjson": "jobs.market_report", "answers.ndjson": "jobs.telemetry_report"}
"""What renders a run's report, by a file that only runs of that job have."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Braidflow's jobs.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the jobs (the default)")
    for name, text in (("describe", "list a job's settings"), ("show", "draw a job's graph")):
        command = commands.add_parser(name, help=text)
        command.add_argument("job", choices=sorted(_SETTINGS))
    report = commands.add_parser("report", help="render the report of a run again")
    report.add_argument("directory", type=Path)
    keys = commands.add_parser(
        "keys",
        help="make or renew the keys of nodes that are linked by QUIC",
        description="Make a certificate authority in DIR if there is none, and the keys of nodes.",
    )
    keys.add_argument("directory", type=Path, metavar="DIR", help="where ca.crt and ca.key are")
    keys.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a node (default: renew all that are there, or else make one called like this host)",
    )
    keys.add_argument(
        "--address", action="append", help="a further DNS name or IP address of the one node named"
    )
    keys.add_argument("--days", type=float, help="lifetime of the nodes' certificates (default 14)")
    keys.add_argument("--ca-days", type=float, help="lifetime of a new authority (default 1825)")
    keys.add_argument(
        "--roster",
        action="store_true",
        help="also make their identities and roster.json, for a group that votes or agrees",
    )
    keys.add_argument(
        "--clients",
        action="store_true",
        help="the same with clients.json, for those who ask that group",
    )
    keys.add_argument(
        "--cluster", default="braidflow", help="the name of that group (default braidflow)"
    )
    chosen = parser.parse_args(arguments)
    if chosen.command == "describe":
        _describe(chosen.job)
    elif chosen.command == "show":
        _show(chosen.job)
    elif chosen.command == "report":
        return _report(chosen.directory)
    elif chosen.command == "keys":
        from jobs.keys import run

        return run(
            chosen.directory,
            chosen.names,
            addresses=chosen.address,
            days=chosen.days,
            ca_days=chosen.ca_days,
            cluster=chosen.cluster if chosen.roster or chosen.clients else None,
            clients=chosen.clients,
        )
    else:
        _list()
    return 0


def _list() -> None:
    for name, (command, summary) in JOBS.items():
        print(f"{name:<14} {summary}\n{'':<14} {command}")
    print("\nSettings of a job: python -m jobs describe JOB")


def _describe(job: str) -> None:
    from jobs.settings import written

    module, name = _SETTINGS[job]
    settings: type[JobSettings] = getattr(importlib.import_module(module), name)
    command, _ = JOBS[job]
    print(f"{settings.__doc__}\n\n  run     {command}")
    print(f"  reads   {settings.reads}\n  writes  {settings.writes}")
    print(f"\nSettings (environment, or [{job}] in braidflow.toml):\n")
    width = max(map(len, settings.model_fields))
    for setting, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "" if default in (None, []) else f" (default {written(default)})"
        print(f"  {settings.prefix()}{setting.upper():<{width}} {field.description}{shown}")


def _show(job: str) -> None:
    from bytewax.visualize import to_mermaid

    print(to_mermaid(importlib.import_module(f"jobs.{job}").drawn()))


def _report(directory: Path) -> int:
    module = next((m for name, m in _REPORTS.items() if (directory / name).exists()), None)
    try:
        if module is None:
            raise ValueError(f"{directory}: none of {', '.join(_REPORTS)} is there: not a run")
        print(importlib.import_module(module).render(directory))
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
