"""Import this in a server that processes are forked from: each then starts with all it needs.

A node imports much, and its first events and states make numba load its compiled kernels, a second
of work for each of many nodes. Importing this module does both, and starts no threads, which would
be missing after a fork.
"""

from __future__ import annotations

import connectors.quic  # noqa: F401  (for those who are forked)
import jobs.telemetry  # noqa: F401
from connectors.events import Workload
from flows.telemetry_state import Telemetry


def fold_and_merge() -> int:
    """Do all that nodes do with states, and return the number of events."""
    state = Telemetry(host=0, hosts=2)
    other = Telemetry(host=1, hosts=2)
    for part, number in ((state, 0), (other, 1)):
        part.update(Workload(agents=10_000, hosts=2).host(number))
    state.merge(Telemetry.from_bytes(other.to_bytes()))
    return state.answers().num_rows and state.events(0)


fold_and_merge()
