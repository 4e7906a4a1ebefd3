"""An end of `benchmarks.quic_link` as a process that takes jobs as JSON lines and answers so.

``python -m benchmarks.link_process sink`` sends, ``... source`` receives. A job is one transfer
over one transport. The receiving end answers twice: with its port once it listens, and with what
it measured once all frames are there; the sending end answers when it is done.
"""

from __future__ import annotations

import gc
import sys

import msgspec

from benchmarks import link_ends, link_rivals
from benchmarks.link_ends import Job, Result, say

ENDS = {
    "braidflow": link_ends.ENDS,
    **link_rivals.ENDS,
}


def main() -> None:
    """Do the jobs on standard input until it ends."""
    end = sys.argv[1]
    for line in sys.stdin.buffer:
        gc.collect()
        job = msgspec.json.decode(line, type=Job)
        try:
            result = ENDS[job.transport][end](job)
        except Exception as error:
            # The process that gives jobs waits for an answer, and raises what it says.
            result = Result(error=f"{type(error).__name__}: {error}")
        say(result)


if __name__ == "__main__":
    main()
