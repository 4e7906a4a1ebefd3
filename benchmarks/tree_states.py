"""What a host of `benchmarks.tree` knows: the same questions in our sketches and in `datasketches`.

A leaf is an agent. What it knows is one row: a user, an endpoint, a latency. A sketch of one item
is that item, so a leaf's own state is its row, and a host that folds rows merges its leaves. How a
host is given the states of its leaves:

    ours       columns of all leaves at once
    items      the library called with the value of every leaf, for every sketch: of this the aim
               speaks
    arrays     the same, but all latencies in one call: of these sketches only `kll_doubles_sketch`
               takes arrays
    objects    every leaf has four sketches of the library, made before, and each is merged: what
               "a sketch of its own" says to the letter; `items` spares the rival that

The rival's values are Python objects before the clock starts, and it is called by the fastest loop
there is.
Both sides answer

    distinct users      Hll(lg_k=12)          hll_sketch(12)
    busiest endpoints   HeavyHitters(256)     frequent_items_sketch of 512 slots
    latency             Kll(200)              kll_doubles_sketch(200)
    256 of the users    Reservoir             var_opt_sketch(256)

and ours counts, sums and squares latencies exactly besides (`Moments`).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
from datasketches import (  # type: ignore[import-untyped,unused-ignore]
    PyLongsSerDe,
    frequent_items_sketch,
    hll_sketch,
    hll_union,
    kll_doubles_sketch,
    var_opt_sketch,
    var_opt_union,
)

from state.product import Product
from state.sketches import HeavyHitters, Hll, Kll, Moments, Reservoir

ENDPOINTS = 2000
RIVALS = ("items", "arrays", "objects")
_SIZES = struct.Struct("<4I")


def leaves(host: int, hosts: int, total: int) -> pa.RecordBatch:
    """Return the rows of a host's leaves: about half as many users, endpoints by Zipf's law."""
    count = total * (host + 1) // hosts - total * host // hosts
    rng = np.random.default_rng([7, host, hosts, total])
    return pa.record_batch(
        {
            "user": rng.integers(0, total // 2 + 1, count),
            "endpoint": np.minimum(rng.zipf(1.3, count), ENDPOINTS),
            "ms": rng.lognormal(4.0, 1.0, count),
        }
    )


class State(Protocol):
    """What a host knows."""

    def update(self, batch: pa.RecordBatch) -> None:
        """Merge the rows of leaves."""

    def merge(self, other: Self) -> None:
        """Merge what a child knows."""

    def to_bytes(self) -> bytes:
        """Return it as a message."""


def ours(host: int) -> Product:
    """Return a host's empty state."""
    return Product(
        {
            "distinct": Hll("user", lg_k=12),
            "exact": Moments("ms"),
            "frequent": HeavyHitters("endpoint", capacity=256),
            "quantiles": Kll("ms", k=200),
            "sample": Reservoir(["user"], size=256, stream=host),
        }
    )


Rows = tuple[list[int], list[int], list[float] | np.ndarray]
"""Users, endpoints and latencies as `Theirs` takes them."""
Leaves = tuple[list[Any], list[Any], list[Any], list[Any]]
"""The four sketches of every leaf as `Theirs` takes them, sketch by sketch."""


class Theirs:
    """A host's state in `datasketches`."""

    def __init__(self) -> None:
        self.distinct = hll_sketch(12)
        self.frequent = frequent_items_sketch(9)
        self.quantiles = kll_doubles_sketch(200)
        self.sample = var_opt_sketch(256)

    def update(self, rows: Rows | Leaves) -> None:
        """Merge the rows of leaves, or their sketches, one by one but for an array of latencies."""
        if len(rows) == 4:
            self._merge_leaves(rows)
            return
        users, endpoints, ms = rows
        _each(self.distinct.update, users)
        _each(self.frequent.update, endpoints)
        if isinstance(ms, list):
            _each(self.quantiles.update, ms)
        else:
            self.quantiles.update(ms)
        _each(self.sample.update, users)

    def _merge_leaves(self, leaves: Leaves) -> None:
        distinct, samples = hll_union(12), var_opt_union(256)
        # Children may have come before the leaves.
        _each(distinct.update, [self.distinct, *leaves[0]])
        _each(self.frequent.merge, leaves[1])
        _each(self.quantiles.merge, leaves[2])
        _each(samples.update, [self.sample, *leaves[3]])
        self.distinct, self.sample = distinct.get_result(), samples.get_result()

    def merge(self, other: Theirs) -> None:
        """Merge what a child knows."""
        union = hll_union(12)
        union.update(self.distinct)
        union.update(other.distinct)
        self.distinct = union.get_result()
        self.frequent.merge(other.frequent)
        self.quantiles.merge(other.quantiles)
        samples = var_opt_union(256)
        samples.update(self.sample)
        samples.update(other.sample)
        self.sample = samples.get_result()

    def to_bytes(self) -> bytes:
        """Return the library's images, one after the other."""
        images = [
            self.distinct.serialize_compact(),
            self.frequent.serialize(PyLongsSerDe()),
            self.quantiles.serialize(),
            self.sample.serialize(PyLongsSerDe()),
        ]
        return _SIZES.pack(*map(len, images)) + b"".join(images)

    @classmethod
    def from_bytes(cls, data: bytes) -> Theirs:
        """Return the state that `to_bytes` wrote."""
        state = cls()
        at = _SIZES.size
        images = []
        for size in _SIZES.unpack_from(data):
            images.append(data[at : at + size])
            at += size
        state.distinct = hll_sketch.deserialize(images[0])
        state.frequent = frequent_items_sketch.deserialize(images[1], PyLongsSerDe())
        state.quantiles = kll_doubles_sketch.deserialize(images[2])
        state.sample = var_opt_sketch.deserialize(images[3], PyLongsSerDe())
        return state


def _each(update: Callable[[Any], None], values: Iterable[Any]) -> None:
    deque(map(update, values), maxlen=0)


def prepare(batch: pa.RecordBatch, rival: str) -> Rows | Leaves:
    """Return rows as `Theirs.update` takes them of a rival."""
    users, endpoints, ms = (batch.column(name) for name in ("user", "endpoint", "ms"))
    rows = users.to_pylist(), endpoints.to_pylist(), ms.to_pylist()
    if rival == "items":
        return rows
    if rival == "arrays":
        return rows[0], rows[1], ms.to_numpy().copy()
    parts: Leaves = ([], [], [], [])
    for user, endpoint, latency in zip(*rows, strict=True):
        leaf = Theirs()
        leaf.update(([user], [endpoint], [latency]))
        for part, sketch in zip(parts, vars(leaf).values(), strict=True):
            part.append(sketch)
    return parts


class Truth:
    """The exact answers, and whether a root's are near enough."""

    def __init__(self, hosts: int, total: int) -> None:
        batches = [leaves(host, hosts, total) for host in range(hosts)]
        table = pa.Table.from_batches(batches)
        self.total = total
        self.users = len(np.unique(table.column("user").to_numpy()))
        self.endpoints = np.bincount(table.column("endpoint").to_numpy(), minlength=ENDPOINTS + 1)
        self.ms = np.sort(table.column("ms").to_numpy())
        exact = Moments("ms")
        for batch in batches:
            exact.update(batch)
        self.exact = exact.to_bytes()

    def distinct_error(self, estimate: float) -> float:
        """Return the relative error; the standard one is 1.6 %."""
        return estimate / self.users - 1

    def rank_error(self, median: float) -> float:
        """Return how far from the middle a median's rank is."""
        return float(np.searchsorted(self.ms, median)) / self.total - 0.5

    def agrees(self, root: Product | Theirs) -> bool:
        """Return whether all answers lie within their bounds, and the exact ones are exact."""
        if isinstance(root, Theirs):
            distinct, median = root.distinct.get_estimate(), root.quantiles.get_quantile(0.5)
            bounds = [
                (root.frequent.get_lower_bound(v), root.frequent.get_upper_bound(v))
                for v in range(1, 6)
            ]
            complete = root.quantiles.n == self.total and root.sample.n == self.total
        else:
            parts: dict[str, Any] = {name: root[name] for name in root.names}
            distinct = parts["distinct"].estimate()
            median = parts["quantiles"].estimate(0.5)
            values, frequent = pa.array(range(1, 6)), parts["frequent"]
            bounds = list(
                zip(frequent.lower_bound(values), frequent.upper_bound(values), strict=True)
            )
            sampled = parts["sample"].sample().num_rows
            complete = parts["exact"].to_bytes() == self.exact and sampled == min(256, self.total)
        return (
            complete
            and abs(self.distinct_error(distinct)) < 4 * 1.04 / 64
            and abs(self.rank_error(median)) < 0.02
            and all(
                low <= count <= high
                for (low, high), count in zip(bounds, self.endpoints[1:6], strict=True)
            )
        )
