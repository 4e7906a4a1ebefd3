"""A loopback interface whose kernel drops packets, for whatever transport runs over it.

A child process gets a network namespace of its own (``unshare``, as root), where netfilter's
``numgen`` drops incoming packets at random: each way loses the same part, and TCP's segments as
well as QUIC's datagrams. Packets are those of an Ethernet: 1,500 bytes, and none joined by
offloading, which would lose 64 KiB of TCP at a time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_SET_UP = """\
set -e
ip link set lo mtu 1500 gso_max_segs 1 up
nft 'table inet loss {{
  chain input {{
    type filter hook input priority 0;
    iif lo counter;
    iif lo numgen random mod 1000 < {per_mille} counter drop;
  }}
}}'
exec "$@"
"""


class CannotLose(Exception):
    """This machine or user cannot have such an interface; the message says what failed."""


def run(module: str, arguments: Sequence[str], *, loss: float, patience: float) -> str:
    """Run a Python module over such a loopback and return what it printed.

    Args:
        module: Its name.
        arguments: Its arguments.
        loss: Which part of the packets is dropped, each way, in thousandths at the finest.
        patience: Seconds it may take.

    Raises:
        CannotLose: there is no ``unshare``, ``ip`` or ``nft`` (Debian's nftables), or no right to
            use them.
        subprocess.CalledProcessError: the module failed.
        subprocess.TimeoutExpired: it took too long.
    """
    script = _SET_UP.format(per_mille=round(loss * 1000))
    begin = ["unshare", "--net", "sh", "-c", script, "sh"]
    try:
        subprocess.run([*begin, "true"], check=True, capture_output=True, text=True)
    except OSError as error:
        raise CannotLose(str(error)) from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        raise CannotLose(lines[-1] if lines else f"status {error.returncode}") from error
    ran = subprocess.run(
        [*begin, sys.executable, "-m", module, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=patience,
        cwd=Path(__file__).parents[1],
    )
    return ran.stdout.rstrip("\n")


def lost() -> float:
    """Tell which part of the packets has been dropped so far; of a process that was `run`."""
    listed = subprocess.run(
        ["nft", "--json", "list", "chain", "inet", "loss", "input"],
        check=True,
        capture_output=True,
    )
    counters = [
        part["counter"]["packets"]
        for entry in json.loads(listed.stdout)["nftables"]
        for part in entry.get("rule", {}).get("expr", ())
        if "counter" in part
    ]
    seen, dropped = counters
    return float(dropped / max(1, seen))
