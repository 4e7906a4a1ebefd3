"""Run nodes that speak Maelstrom's protocol, break their network, and check what they answered.

A *node* is a program that reads one JSON message for each line from its standard input and writes
its own to its standard output. The runner is the network between them: it delays, loses and cuts,
plays the clients of a *workload*, and at the end compares the history with what the workload
promises::

    python -m connectors.testing.maelstrom -w broadcast --nemesis partition -- ./my-node

    broadcast    every value that was acknowledged is in the last read of every node
    g-set        the same for the elements of a grow-only set
    g-counter    the last reads are equal, and the sum of what was added
    pn-counter   the same with negative amounts

An operation without an answer may have happened or not; the checkers allow for both. Any node
must besides never take back what it has shown: elements do not vanish from its reads, and a
grow-only counter does not fall.

Source: Maelstrom, Jepsen's workbench for learning distributed systems by writing your own; message
and workload formats are those of its `doc/protocol.md` and `doc/workloads.md`.
"""

from connectors.testing.maelstrom.history import Operation, Verdict
from connectors.testing.maelstrom.network import Network, NodeError
from connectors.testing.maelstrom.run import Plan, run
from connectors.testing.maelstrom.workloads import WORKLOADS, Workload

__all__ = [
    "WORKLOADS",
    "Network",
    "NodeError",
    "Operation",
    "Plan",
    "Verdict",
    "Workload",
    "run",
]
