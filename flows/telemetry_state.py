"""What the telemetry tree knows of some agents, and what can be said from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Self, cast

import msgspec
import numpy as np
import pyarrow as pa

from state.mergeable import Algebra, seal, unseal
from state.product import Product
from state.schemas import EVENTS, TIME
from state.sketches import HeavyHitters, Hll, Kll, Moments, Reservoir

ANSWERS = pa.schema(
    [
        pa.field("window_start", TIME),
        pa.field("window_end", TIME),
        pa.field("question", pa.string(), nullable=False),
        pa.field("key", pa.string()),
        pa.field("estimate", pa.float64(), nullable=False),
        pa.field("lower", pa.float64(), nullable=False),
        pa.field("upper", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("exact", pa.float64()),
    ]
)
"""One answer. The truth lies in [lower, upper] with this confidence; 1 is certainty.

Without a window it is about all events. `key` is the rank of a `latency quantile` and the name of
an `endpoint`. `exact` is the truth where it is known.
"""

RANKS = (0.01, 0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95, 0.99, 0.995, 0.999)
"""Ranks whose latencies are told."""

_KIND = "telemetry"


class Telemetry:
    """Distinct users, busiest endpoints, latencies and a sample, for each window of event time.

    A mergeable state of windows: each holds one :class:`state.product.Product`, made when its
    first row comes. There are no late rows: a window never closes.

    Args:
        window: length of a window; None for one window over all time.
        host: number of the part that folds rows here, below `hosts`; the samples of two parts
            that are to be merged must come from different hosts.
        hosts: how many parts there are.
        seed: of the samples; parts that are merged share it.

    Raises:
        ValueError: `host` is not below `hosts`.
    """

    algebra: ClassVar[Algebra] = Algebra.COMMUTATIVE_MONOID

    __slots__ = ("_host", "_hosts", "_length", "_seed", "_windows")

    def __init__(
        self, *, window: timedelta | None = None, host: int = 0, hosts: int = 1, seed: int = 0
    ) -> None:
        if not 0 <= host < hosts:
            raise ValueError(f"host {host} is not one of {hosts}")
        self._length = 0 if window is None else window // timedelta(microseconds=1)
        self._host = host
        self._hosts = hosts
        self._seed = seed
        self._windows: dict[int, Product] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Fold EVENTS, each row into its window."""
        self.fold(batch)

    def fold(self, batch: pa.RecordBatch) -> list[int]:
        """Fold EVENTS and return the windows that rows went into."""
        if not batch.num_rows:
            return []
        if not self._length:
            self._at(0).update(batch)
            return [0]
        times = batch.column("time").cast(pa.int64()).to_numpy(zero_copy_only=False)
        windows, rows = np.unique(times // self._length, return_inverse=True)
        if len(windows) == 1:
            self._at(int(windows[0])).update(batch)
            return [int(windows[0])]
        for at, window in enumerate(windows.tolist()):
            self._at(window).update(batch.take(pa.array(np.flatnonzero(rows == at))))
        return cast(list[int], windows.tolist())

    def _at(self, window: int) -> Product:
        if window not in self._windows:
            stream = (window * self._hosts + self._host) % (1 << 64)
            self._windows[window] = _empty(stream, self._seed)
        return self._windows[window]

    def merge(self, other: Self) -> None:
        """Merge windows with their like.

        Raises:
            ValueError: the two have other windows or seeds, or rows of the same host.
        """
        if (self._length, self._seed) != (other._length, other._seed):
            raise ValueError("telemetry of different windows or seeds does not merge")
        for window, product in other._windows.items():
            self.take(window, product)

    def take(self, window: int, product: Product) -> None:
        """Merge a product of one window."""
        if window in self._windows:
            self._windows[window].merge(product)
        else:
            self._windows[window] = Product.from_bytes(product.to_bytes())

    def __getitem__(self, window: int) -> Product:
        return self._windows[window]

    def only(self, window: int) -> Self:
        """Return a state of that window alone, which shares it with this one."""
        state = type(self)(seed=self._seed)
        state._length = self._length
        state._windows = {window: self._windows[window]}
        return state

    def events(self, window: int) -> int:
        """Return how many events a window has."""
        return cast(Reservoir, self._windows[window]["sample"]).count

    @property
    def windows(self) -> list[int]:
        """The windows that have rows, ascending."""
        return sorted(self._windows)

    def total(self) -> Product:
        """Return what is known of all windows together."""
        whole = _empty(0, self._seed)
        for window in self.windows:
            whole.merge(self._windows[window])
        return whole

    def to_bytes(self) -> bytes:
        """Return the windows as bytes; which host folds here is not among them."""
        pairs = [(window, self._windows[window].to_bytes()) for window in self.windows]
        return seal(_KIND, 1, msgspec.msgpack.encode((self._length, self._seed, pairs)))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `data` holds, to be merged, not folded on by another host.

        Raises:
            ValueError: the bytes are damaged.
        """
        _, payload = unseal(_KIND, data, versions={1})
        try:
            length, seed, pairs = msgspec.msgpack.decode(
                payload, type=tuple[int, int, list[tuple[int, bytes]]]
            )
        except msgspec.DecodeError as error:
            raise ValueError(f"{_KIND}: {error}") from error
        if length < 0 or sorted({w for w, _ in pairs}) != [w for w, _ in pairs]:
            raise ValueError(f"{_KIND}: a negative length, or windows out of order")
        state = cls(window=timedelta(microseconds=length) if length else None, seed=seed)
        state._windows = {window: Product.from_bytes(part) for window, part in pairs}
        return state

    def answers(self, *, confidence: float = 0.95, top: int = 10) -> pa.RecordBatch:
        """Return ANSWERS: about all events, then about each window if there are any.

        Args:
            confidence: of the intervals that are not certain.
            top: how many endpoints to name.
        """
        rows = list(_answers(self.total(), confidence, top))
        if self._length:
            for window in self.windows:
                bounds = {
                    "window_start": window * self._length,
                    "window_end": (window + 1) * self._length,
                }
                rows += [
                    {**row, **bounds} for row in _answers(self._windows[window], confidence, top)
                ]
        return pa.RecordBatch.from_pylist(rows, ANSWERS)

    def sample(self) -> pa.RecordBatch:
        """Return a uniform sample of all EVENTS."""
        reservoir = cast(Reservoir, self.total()["sample"])
        if not reservoir.count:
            return pa.RecordBatch.from_pylist([], EVENTS)
        return pa.RecordBatch.from_arrays(reservoir.sample().columns, schema=EVENTS)


def _empty(stream: int, seed: int) -> Product:
    return Product(
        {
            "users": Hll("user", lg_k=14),
            "endpoints": HeavyHitters("endpoint", capacity=256),
            "latency": Kll("latency_ms", k=400),
            "latency_exact": Moments("latency_ms"),
            "sample": Reservoir(EVENTS.names, size=256, stream=stream, seed=seed),
        }
    )


def _answers(known: Product, confidence: float, top: int) -> Iterator[dict[str, Any]]:
    def answer(
        question: str,
        estimate: float,
        lower: float,
        upper: float,
        confidence: float = 1.0,
        key: str | None = None,
    ) -> dict[str, Any]:
        return {
            "question": question,
            "key": key,
            "estimate": estimate,
            "lower": lower,
            "upper": upper,
            "confidence": confidence,
        }

    exact = cast(Moments, known["latency_exact"])
    yield answer("events", exact.count, exact.count, exact.count)
    if not exact.count:
        return
    users = cast(Hll, known["users"])
    yield answer(
        "distinct users",
        users.estimate(),
        users.lower_bound(confidence),
        users.upper_bound(confidence),
        confidence,
    )
    for name, value in (
        ("latency mean", exact.mean),
        ("latency deviation", float(np.sqrt(exact.variance(ddof=0)))),
        ("latency minimum", exact.minimum),
        ("latency maximum", exact.maximum),
    ):
        yield answer(name, value, value, value)
    latency = cast(Kll, known["latency"])
    ranks = np.array(RANKS)
    bounds: Sequence[Any] = (
        latency.estimate(ranks),
        latency.lower_bound(ranks, confidence),
        latency.upper_bound(ranks, confidence),
    )
    for rank, at, low, high in zip(RANKS, *bounds, strict=True):
        yield answer("latency quantile", at, low, high, confidence, f"{rank:g}")
    error = latency.rank_error(confidence)
    yield answer("latency rank error", error, 0.0, error, confidence)
    for row in cast(HeavyHitters, known["endpoints"]).top(top).to_pylist():
        yield answer(
            "endpoint",
            row["estimate"],
            row["lower_bound"],
            row["upper_bound"],
            key=row["value"],
        )
