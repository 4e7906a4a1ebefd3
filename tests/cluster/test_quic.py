"""Links whose ends are clusters of two processes, one of which has the link."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from connectors.quic.certificates import make_authority, make_node

ENDS = Path(__file__).parent.parent / "crash" / "quic_ends.py"


def free(kind: socket.SocketKind) -> str:
    with socket.socket(socket.AF_INET, kind) as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("hold", [False, True], ids=["repeatable", "hold"])
def test_clusters_of_two_processes(tmp_path: Path, hold: bool) -> None:
    make_authority(tmp_path / "keys")
    for name in ("root", "leaf"):
        make_node(tmp_path / "keys", name)
    link = free(socket.SOCK_DGRAM)
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    for role in ("receiver", "sender"):
        (tmp_path / f"recovery-{role}").mkdir()
        init_db_dir(tmp_path / f"recovery-{role}", 2)
        environment = {
            **os.environ,
            "ADDRESS": link,
            "LISTEN": link,
            "HOLD": str(int(hold)),
            "COUNT": "60",
            "CLUSTER": ",".join(free(socket.SOCK_STREAM) for _ in range(2)),
        }
        for index in ("0", "1"):
            log = tmp_path / f"{role}-{index}.log"
            with log.open("wb") as file:
                command = [sys.executable, str(ENDS), role, str(tmp_path), index]
                process = subprocess.Popen(command, env=environment, stderr=file)
            running.append((log.name, process))
    try:
        for log_name, process in running:
            assert process.wait(90) == 0, (tmp_path / log_name).read_text()[-3000:]
    finally:
        for _, process in running:
            process.kill()
            process.wait()
    sent = (tmp_path / "sent.ndjson").read_bytes()
    assert sent.count(b"\n") == 60
    assert (tmp_path / "received.ndjson").read_bytes() == sent
