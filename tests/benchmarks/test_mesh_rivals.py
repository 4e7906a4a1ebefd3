"""The rivals of a mesh over QUIC carry the same messages."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.mesh_rivals import HttpsMesh, TlsMesh
from connectors.quic.certificates import make_authority, make_node

NAMES = ["a", "b", "c"]


@pytest.mark.parametrize("kind", [TlsMesh, HttpsMesh])
def test_all_speak_to_all(kind: type[TlsMesh | HttpsMesh], tmp_path: Path) -> None:
    make_authority(tmp_path)
    for name in NAMES:
        make_node(tmp_path, name)

    async def test() -> None:
        meshes = [kind(name, "127.0.0.1:0", keys=tmp_path) for name in NAMES]
        got: list[tuple[str, str, bytes]] = []
        for mesh in meshes:
            mesh.on_message = lambda peer, message, to=mesh.name: got.append((to, peer, message))
            await mesh.start()
        sent = []
        for mesh in meshes:
            for other in meshes:
                if mesh is not other:
                    mesh.learn(other.name, other.address)
                    for size in (0, 10, 200_000, 3):
                        message = other.name.encode() * size
                        mesh.send(other.name, message)
                        sent.append((other.name, mesh.name, message))
        async with asyncio.timeout(10):
            while len(got) < len(sent):
                await asyncio.sleep(0.005)
        for a in NAMES:
            for b in NAMES:
                pair = [m for m in got if m[:2] == (a, b)]
                assert pair == [m for m in sent if m[:2] == (a, b)], "in order"
        for mesh in meshes:
            await mesh.stop()

    asyncio.run(test())
