"""A generated workload: many agents on a few hosts, the same for the same seed, and no real data.

It exists so that answers can be held against the truth at any size. Users and endpoints are drawn
from bounded Zipf laws, latencies from a log-normal one, times evenly over a period.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from state.schemas import EVENTS, TIME

_START = datetime(2026, 1, 1, tzinfo=UTC)
_BLOCK = 4096

_Drawn = npt.NDArray[np.int64] | npt.NDArray[np.float64]
_NONE = np.empty(0, np.int64)

Item = tuple[str, pa.RecordBatch]
"""A host's key, and rows of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One event from each of `agents` agents, who live on `hosts` hosts.

    Each 4,096 agents draw from a Philox stream of their own, keyed by the seed and their number,
    so an agent's event does not depend on who makes it, nor on how many hosts share the agents.

    Args:
        agents: How many agents, and so events.
        hosts: How many hosts; agents are spread evenly.
        seed: Of all draws.
        users: Size of the population that users are drawn from, with weights rank ** -0.6.
        endpoints: Number of endpoints, drawn with weights rank ** -1.1.
        median_ms: Median of the latencies; the standard deviation of their logarithm is 1.
        period: How much event time they cover, from 2026-01-01 on.

    Raises:
        ValueError: a number is not positive.

    >>> rows = Workload(agents=10, hosts=2).host(1)
    >>> rows.num_rows, rows["agent"][0].as_py()
    (5, 'agent-00000005')
    """

    agents: int = 1_000_000
    hosts: int = 64
    seed: int = 0
    users: int = 800_000
    endpoints: int = 1_000
    median_ms: float = 80.0
    period: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        for name in ("agents", "hosts", "users", "endpoints", "median_ms"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.seed < 0 or self.period < timedelta(microseconds=1):
            raise ValueError("the seed must not be negative, and the period be positive")

    def host(self, index: int) -> pa.RecordBatch:
        """Return the events of one host in order of time.

        Raises:
            ValueError: there is no such host.
        """
        if not 0 <= index < self.hosts:
            raise ValueError(f"host {index} is not one of {self.hosts}")
        first, end = (self.agents * at // self.hosts for at in (index, index + 1))
        blocks = range(first // _BLOCK, -(-end // _BLOCK))
        inside = slice(first - blocks.start * _BLOCK, end - blocks.start * _BLOCK)
        drawn = [self._block(block) for block in blocks] or [(_NONE, _NONE, _NONE, _NONE)]
        columns = [np.concatenate(parts)[inside] for parts in zip(*drawn, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        times, users, endpoints, latency = (column[order] for column in columns)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(times.astype(np.int64)).cast(TIME),
                _numbered("agent-", order + first, 8),
                _numbered("user-", users, 7),
                _endpoint_names(self.endpoints).take(pa.array(endpoints)),
                pa.array(latency.astype(np.float64)),
            ],
            schema=EVENTS,
        )

    def _block(self, block: int) -> tuple[_Drawn, _Drawn, _Drawn, _Drawn]:
        """Return times, users, endpoints and latencies of consecutive agents."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, block]))
        span = self.period // timedelta(microseconds=1)
        return (
            rng.integers(0, span, _BLOCK) + _microseconds(_START),
            _draw(rng, _BLOCK, self.users, 0.6),
            _draw(rng, _BLOCK, self.endpoints, 1.1),
            self.median_ms * np.exp(rng.standard_normal(_BLOCK)),
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the events of all hosts, host by host."""
        return map(self.host, range(self.hosts))


def _microseconds(time: datetime) -> int:
    return (time - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


@functools.lru_cache(maxsize=4)
def _zipf(size: int, exponent: float) -> npt.NDArray[np.float64]:
    """Return the cumulated probabilities of ranks 0..size-1."""
    weights = np.cumsum(np.arange(1, size + 1, dtype=np.float64) ** -exponent)
    return np.asarray(weights / weights[-1])


def _draw(
    rng: np.random.Generator, count: int, size: int, exponent: float
) -> npt.NDArray[np.int64]:
    ranks = np.searchsorted(_zipf(size, exponent), rng.random(count), side="right")
    return np.minimum(ranks, size - 1)


def _numbered(prefix: str, numbers: npt.NDArray[np.int64], digits: int) -> pa.Array:
    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, text, "")


@functools.lru_cache(maxsize=4)
def _endpoint_names(count: int) -> pa.Array:
    return pa.array([f"/service-{i % 40:02d}/call-{i // 40:02d}" for i in range(count)])


class GeneratedSource(FixedPartitionedSource[Item, int]):
    """Emit a generated workload, keyed by host: ``(host key, RecordBatch of EVENTS)``.

    One partition for each host. Rows of a host come in order of time; hosts are not in step.

    - *Empty*: a host with fewer agents than hosts may have none, and ends at once.
    - *Restart*: goes on with the row after the last snapshot, at once; the rows are made again.

    Args:
        workload: What to emit.
        keys: The key of each host.
        only: Hosts to emit, by index; all by default.
        rate: Rows a second of each host, in 20 batches whatever the rate; None is as fast as the
            flow takes them.
        batch_rows: Rows in a batch without a rate, at most.
        clock: Returns the current time; tests pass their own.

    Raises:
        ValueError: there are not as many keys as hosts, or no such host.
    """

    def __init__(
        self,
        workload: Workload,
        keys: tuple[str, ...],
        *,
        only: Iterable[int] | None = None,
        rate: float | None = None,
        batch_rows: int = 16_384,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if len(keys) != workload.hosts:
            raise ValueError(f"{len(keys)} keys for {workload.hosts} hosts")
        self._workload = workload
        self._keys = keys
        self._hosts = sorted(set(range(workload.hosts) if only is None else only))
        if not all(0 <= host < workload.hosts for host in self._hosts):
            raise ValueError(f"hosts {self._hosts} are not all below {workload.hosts}")
        self._rate = rate
        self._batch_rows = batch_rows
        self._clock = clock
        ends = [workload.agents * at // workload.hosts for at in range(workload.hosts + 1)]
        self._rows = {host: ends[host + 1] - ends[host] for host in self._hosts}
        self.total_rows: int = sum(self._rows.values())

    def list_parts(self) -> list[str]:
        """Name the hosts."""
        return [str(host) for host in self._hosts]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _HostPartition:
        """Begin with a host, or go on after a row."""
        host = int(for_part)
        rows = self._batch_rows if self._rate is None else max(1, -(-self._rows[host] // 20))
        return _HostPartition(
            lambda: self._workload.host(host),
            self._keys[host],
            rows,
            self._rate,
            self._clock,
            resume_state or 0,
        )


class _HostPartition(StatefulSourcePartition[Item, int]):
    def __init__(
        self,
        make: Callable[[], pa.RecordBatch],
        key: str,
        batch_rows: int,
        rate: float | None,
        clock: Callable[[], datetime],
        start: int,
    ) -> None:
        self._make = make
        self._key = key
        self._batch_rows = batch_rows
        self._rate = rate
        self._begun = clock()
        self._first = self._next = start
        self._rows: pa.RecordBatch | None = None

    def next_batch(self) -> list[Item]:
        # Made when they are due, not when the partition is: hosts' rows need not all be held.
        if self._rows is None:
            self._rows = self._make()
        batch = self._rows.slice(self._next, self._batch_rows)
        if not batch.num_rows:
            raise StopIteration
        self._next += batch.num_rows
        return [(self._key, batch)]

    def next_awake(self) -> datetime | None:
        if self._rate is None:
            return None
        return self._begun + timedelta(seconds=(self._next - self._first) / self._rate)

    def snapshot(self) -> int:
        return self._next

    def close(self) -> None:
        self._rows = None
