"""Import this in a server that replicas are forked from: each then starts with all it needs.

It starts no threads, which would be missing after a fork.
"""

from __future__ import annotations

import jobs.replica_node  # noqa: F401  (for those who are forked)
