r"""Replicate a document among peers with no centre.

    python -m bytewax.run jobs.gossip

With no settings it starts a group of peers in one process, linked by QUIC on this machine, edits
the document at random peers, shows how their states become equal, and ends when they are, to the
byte. With a name and an address it is one real peer among others:

    GOSSIP_NAME=ann GOSSIP_LISTEN=10.0.0.1:7000 GOSSIP_KEYS=keys \
        python -m bytewax.run jobs.gossip < operations.ndjson
    GOSSIP_NAME=bob GOSSIP_LISTEN=10.0.0.2:7000 GOSSIP_KEYS=keys \
        GOSSIP_BOOTSTRAP=ann@10.0.0.1:7000 python -m bytewax.run jobs.gossip < /dev/null

Operations are lines of JSON: those on the document (`state.crdt.document_replica` lists them), and
`{"op": "expel", "member": "bob"}` for a member that is gone for good. Results go to
`runs/gossip/<time>/` or the directory in `GOSSIP_OUT`:

    changes.ndjson       every visible change at the local peers, as it happened
    document.json        the document when the peer left
    dead_letters.ndjson  operations that could not be carried out, if any, with the reason
    run.json             settings and counts

`python -m jobs.gossip --maelstrom` is a node for Maelstrom, on standard input and output.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bytewax.dataflow import Dataflow

from jobs.gossip_settings import GossipSettings
from jobs.link_log import show_links
from jobs.settings import fail, new_directory, one_line_errors, resume_finished


def flow() -> Dataflow:
    """Build the job's dataflow from the settings in force, and make the directory for results."""
    one_line_errors("gossip")
    try:
        resume_finished()
        settings = GossipSettings.load()
        out = settings.out or new_directory("gossip")
        graph = _flow(settings, out)
        out.mkdir(parents=True, exist_ok=True)
        if settings.name is not None:
            show_links("gossip")
        return graph
    except (OSError, ValueError) as error:
        fail("gossip", error)


def drawn() -> Dataflow:
    """Build the same dataflow to look at it; nothing is written."""
    return _flow(GossipSettings.load(), Path("runs/gossip"))


def _flow(settings: GossipSettings, out: Path) -> Dataflow:
    from jobs.gossip_group import group_flow
    from jobs.gossip_peer import peer_flow

    return (group_flow if settings.name is None else peer_flow)(settings, out)


if __name__ == "__main__":
    if sys.argv[1:] == ["--maelstrom"]:
        from jobs.gossip_maelstrom import main

        main()
    else:
        print("run it with: python -m bytewax.run jobs.gossip  (or --maelstrom)", file=sys.stderr)
        raise SystemExit(2)
