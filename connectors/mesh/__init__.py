"""Messages between named peers that all may speak to each other: what protocols run over.

A *mesh* is one peer's end: it sends messages to peers by name and hands over those that come in.
Gossip and consensus are state machines without sockets; a mesh carries their messages::

    mesh = QuicMesh("n1", "127.0.0.1:4433", identity=Identity.load(keys, "n1"))
    mesh.on_message = lambda peer, message: ...
    await mesh.start()
    mesh.learn("n2", "127.0.0.1:4434")
    mesh.send("n2", b"...", reliable=True)

What it promises is what such protocols need, and no more. A message arrives whole, from the peer it
names, at most once, or not at all. ``reliable=True`` sends it again when packets are lost, in order
with the other reliable ones, as long as the connection lives; ``reliable=False`` sends it once.
Neither waits: what a slow or absent peer does not take is dropped, and counted.

`QuicMesh` authenticates peers by their certificates. `UdpMesh` believes what a datagram says of its
sender: it is for one machine, or one trusted network.

A mesh runs in one event loop's thread. `Meshes` puts those of a process at the edges of a dataflow.
"""

from connectors.mesh.flow import Meshes, Outgoing, Received
from connectors.mesh.mesh import Counts, Mesh
from connectors.mesh.quic import QuicMesh
from connectors.mesh.udp import UdpMesh

__all__ = ["Counts", "Mesh", "Meshes", "Outgoing", "QuicMesh", "Received", "UdpMesh"]
