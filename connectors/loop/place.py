"""Where a process is in its cluster, which the engine tells neither sources nor sinks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process is in its cluster.

    Args:
        process: its index.
        processes: how many there are.
        workers: worker threads in each.

    Raises:
        ValueError: there is no such place.
    """

    process: int = 0
    processes: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.process < self.processes or self.workers < 1:
            raise ValueError(f"{self} is no place in a cluster")

    @classmethod
    def of_this_process(cls, arguments: Sequence[str] | None = None) -> Self:
        """Return the place that ``python -m bytewax.run`` was told, or its environment.

        >>> Place.of_this_process(["flow", "-i", "1", "-a", "localhost:1;localhost:2"])
        Place(process=1, processes=2, workers=1)
        """
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        setting = os.environ.get
        parser.add_argument("-i", "--process-id", default=setting("BYTEWAX_PROCESS_ID"))
        parser.add_argument("-a", "--addresses", default=setting("BYTEWAX_ADDRESSES"))
        parser.add_argument(
            "-w", "--workers-per-process", default=setting("BYTEWAX_WORKERS_PER_PROCESS")
        )
        known, _ = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
        processes = len((known.addresses or "one").split(";"))
        return cls(int(known.process_id or 0), processes, int(known.workers_per_process or 1))
