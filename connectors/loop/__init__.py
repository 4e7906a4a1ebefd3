"""A feedback edge: what leaves a flow at one place comes in again at another.

Bytewax's graphs have no cycles. A *loop* is a sink and a source over one queue for each worker,
in the memory of its process::

    loop = Loop("rank")
    back = loop.input("back", flow)                 # keyed items that came round
    ...
    loop.output("again", stream, outside=edges)     # keyed items that go round

An item under key k comes back on the worker that holds k, so that only what the flow itself
exchanges crosses the network. In ``mode="superstep"`` what is sent in one superstep comes back in
the next, everywhere at once: the bulk-synchronous iteration of Pregel. In ``mode="async"`` it
comes back as soon as it can.

**Items** are pairs of a key and a ``RecordBatch``, ``bytes``, or what msgspec encodes: str, int,
float, bool, None, lists, dicts, Structs. A snapshot holds them as Arrow IPC messages, as they are,
and as msgpack. After a restart a tuple comes back as a list and a Struct as a dict, unless the
loop is told the type (``message=``). Others end the flow with a TypeError at the next snapshot.

**Who calls whom.** The source of partition p empties queue p into the flow; the sink of partition
p fills it. Each source also tells every sink, through the flow, how many items it emitted in each
epoch: a vote. The end of the outside input is told to every sink in the same way.

**Supersteps** are the engine's epochs, which begin everywhere only when the one before is finished
everywhere, so a superstep takes as long as an epoch: set the epoch interval to zero, by
``epoch_interval=timedelta(0)`` or ``-r DIR -s 0 -b 0``. (Without ``-r``, `bytewax.run` takes
``-s 0`` for its default, ten seconds.) A longer interval than 100 us works too, a shorter one is
refused. ``async`` loops go with any interval, but end some two to four epochs after their last
item.

**The laws.**

    barrier    what is sent in superstep s is read in superstep s + 1, all of it and nothing else
    end        the loop ends once there was an epoch that began after the outside input had ended
               and in which no source emitted an item. Operators that emit by the clock alone do
               not hold it open, and what they send after that epoch is dropped
    restart    what was on its way is in the sinks' snapshots, and comes back exactly once; a run
               that is resumed after its end takes more input and goes on

The engine begins an epoch when all before are stored, so at a sink's snapshot no source has read
on: what is in the queue is exactly what is on its way. For the same reason one silent epoch is
enough in both modes. Mattern's four counters need two equal rounds because a round visits the
processes one after the other and messages slip past it; nothing slips past the end of an epoch.
All partitions hear the same votes, and a source stops when it knows of a silent epoch, so none
waits for the vote of another that has stopped.

W workers exchange W x W votes in an epoch.

Source: Malewicz et al., "Pregel: A System for Large-Scale Graph Processing", SIGMOD 2010 (votes
to halt at barriers); Mattern, "Algorithms for distributed termination detection", Distributed
Computing 2, 1987.
"""

from connectors.loop.edge import Loop
from connectors.loop.place import Place

__all__ = ["Loop", "Place"]
