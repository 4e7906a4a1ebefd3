r"""Replicate a machine among replicas that bear liars.

    python -m bytewax.run jobs.replica

With no settings it starts a group of four replicas on this machine, each a process with keys of its
own, linked by QUIC. Clients ask them to do things, and the group is shown while it works; at the
end the replicas' logs are compared with one another and with what the clients were told. Any
process may be killed meanwhile: it is started again and goes on where its log ends. With

    python -m jobs.replica --byzantine equivocate       (silent, forge, replay or delay)

the first replica, which leads at first, misbehaves: up to f of 3f + 1 may. `REPLICA_MACHINE=locks`
replicates a lock service in the place of a store.

With a role a process is one real replica, or a client. Each has a directory of keys
(`jobs.membership` says what is in it):

    REPLICA_ROLE=replica REPLICA_NAME=r1 REPLICA_LISTEN=10.0.0.1:7000 REPLICA_KEYS=keys \
        REPLICA_PEERS=r1@10.0.0.1:7000,r2@10.0.0.2:7000,r3@10.0.0.3:7000,r4@10.0.0.4:7000 \
        REPLICA_LOG=votes REPLICA_OUT=replica python -m bytewax.run jobs.replica
    REPLICA_ROLE=client REPLICA_NAME=c1 REPLICA_KEYS=keys REPLICA_PEERS=... \
        python -m bytewax.run jobs.replica < operations.ndjson

Operations are lines of JSON (`jobs.machines` lists them), answers are too. Results go to
`runs/replica/<time>/` or the directory in `REPLICA_OUT`; for each replica of a local group in a
directory of its own:

    committed.ndjson     a replica: the batches that are final, in order
    events.ndjson        a replica: views, checkpoints, evidence, what was refused
    standing.json        a replica: how far it is, while it runs
    answers.ndjson       a client: what was asked and answered
    dead_letters.ndjson  a client: lines that are no operations
    NAME.numbers         a client: where the numbers of its next life begin
    run.json             settings and counts

The exit code is 1 if an answer is missing or logs disagree. **A replica must keep its log**: one
that has lost it may contradict what it said before, and counts as a liar.

A client numbers its requests from the time in microseconds, or above all that it has used from the
same `REPLICA_OUT`. **With another directory its clock must not have been set back** since its last
life: a request with a number that was used is not carried out, and waits for `REPLICA_PATIENCE`, or
is answered with what the earlier one came to.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from bytewax.dataflow import Dataflow

from jobs.link_log import show_links
from jobs.replica_settings import ReplicaSettings
from jobs.settings import fail, new_directory, one_line_errors, resume_finished

_TURN = 0.0005
"""Seconds after which a thread lets another go on. By default they are 5 ms, as long as a round of
votes, for which the links would wait for the flow, or the flow for the links."""


def flow() -> Dataflow:
    """Build the job's dataflow from the settings in force, and make the directory for results."""
    one_line_errors("replica")
    try:
        resume_finished()
        settings = ReplicaSettings.load()
        out = settings.out or new_directory("replica")
        out.mkdir(parents=True, exist_ok=True)
        graph = _flow(settings, out.resolve())
        show_links("replica")
        sys.setswitchinterval(_TURN)
        return graph
    except (OSError, ValueError) as error:
        fail("replica", error)


def drawn() -> Dataflow:
    """Build the same dataflow to look at it; nothing is left behind."""
    with tempfile.TemporaryDirectory() as place:
        return _flow(ReplicaSettings.load(), Path(place))


def run() -> None:
    """Run the dataflow of the settings in this process, alone in its cluster."""
    from bytewax.testing import run_main

    run_main(flow(), epoch_interval=timedelta(seconds=10))


def _flow(settings: ReplicaSettings, out: Path) -> Dataflow:
    if settings.role == "local":
        from jobs.replica_group import group_flow

        return group_flow(settings, out)
    if settings.role == "client":
        from jobs.replica_client import client_flow

        return client_flow(settings, out)
    from jobs.replica_node import node_flow

    return node_flow(settings, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.replica",
        description="Replicate a machine among replicas that bear liars; settings are in the "
        "environment (python -m jobs describe replica).",
    )
    parser.add_argument(
        "--byzantine",
        metavar="HOW",
        help="let a replica misbehave: equivocate, silent, forge, replay or delay",
    )
    chosen = parser.parse_args(arguments)
    if chosen.byzantine is not None:
        os.environ["REPLICA_BYZANTINE"] = chosen.byzantine
    run()


if __name__ == "__main__":
    main()
