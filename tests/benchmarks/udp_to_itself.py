"""Sends a thousand datagrams to itself and prints which part was lost, and which part should be."""

import json
import socket
from contextlib import suppress

from benchmarks import lossy_loopback

COUNT = 1000

if __name__ == "__main__":
    arrived = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as itself:
        itself.bind(("127.0.0.1", 0))
        itself.setblocking(False)
        for _ in range(COUNT):
            itself.sendto(b".", itself.getsockname())
            with suppress(BlockingIOError):
                arrived += len(itself.recv(1))
    print(json.dumps({"lost": 1 - arrived / COUNT, "counted": lossy_loopback.lost()}))
