"""Live trades of public exchange feeds."""

from __future__ import annotations

import collections
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from websockets.client import backoff
from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from connectors.market.binance import BinanceFeed
from connectors.market.client import Client, Delays, FeedError, Link
from connectors.market.coinbase import CoinbaseFeed
from connectors.market.feed import Gap, Garbage, Heartbeat, Ignored, Refused, Tick, TradeFeed
from connectors.market.kraken import KrakenFeed
from state.schemas import TICKS

_log = logging.getLogger(__name__)

EXCHANGES: dict[str, type[TradeFeed]] = {
    feed.name: feed for feed in (CoinbaseFeed, KrakenFeed, BinanceFeed)
}
"""The exchanges that :class:`LiveSource` knows, by name."""

_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
_BLOCK = 0.005
_SHOWN = 2000  # characters of a bad message that are kept


@dataclass(frozen=True, slots=True)
class LivePosition:
    """The snapshot: the number of the last emitted trade of each symbol, and of all ticks."""

    last: dict[str, int]
    emitted: int


@dataclass(frozen=True, slots=True)
class LiveStatistics:
    """Counts since the source was started.

    `gaps` are runs of missing trades, and `missed` the trades in them; `recent_gaps` are the
    latest 100. `connects` counts connections made, `failures` attempts that failed, `silences`
    connections given up because nothing came, `oversized` those that a too long message ended.
    """

    messages: int = 0
    ticks: int = 0
    repeated: int = 0
    heartbeats: int = 0
    ignored: int = 0
    garbage: int = 0
    refused: int = 0
    gaps: int = 0
    missed: int = 0
    recent_gaps: tuple[Gap, ...] = ()
    connects: int = 0
    failures: int = 0
    silences: int = 0
    oversized: int = 0


class LivePartition(StatefulSourcePartition[pa.RecordBatch, LivePosition]):
    """One connection's trades, gathered into batches."""

    def __init__(
        self,
        feed: TradeFeed,
        link: Link,
        emitted: int,
        *,
        coalesce: float,
        batch_rows: int,
        limit: int | None,
        dead_letters: Path | None,
    ) -> None:
        """Connect."""
        self._feed = feed
        self._last = dict(feed.last)
        self._emitted = emitted
        self._coalesce = coalesce
        self._batch_rows = batch_rows
        self._limit = limit
        self._dead_letters = dead_letters
        self._held: list[tuple[int, bytes]] = []
        self._until = 0.0
        self._counts: collections.Counter[str] = collections.Counter()
        self._gaps: collections.deque[Gap] = collections.deque(maxlen=100)
        self._client = Client(feed.name, feed.subscribe(), link)

    def next_batch(self) -> list[pa.RecordBatch]:
        """Wait a few milliseconds for messages, and return what has been gathered long enough."""
        if self._limit is not None and self._emitted >= self._limit:
            raise StopIteration
        # Messages wait as they came: a snapshot taken meanwhile does not cover them.
        wait = min(_BLOCK, self._until - time.monotonic()) if self._held else _BLOCK
        while len(self._held) < self._batch_rows:
            try:
                message = self._client.take(wait)
            except FeedError:
                if not self._held:
                    raise
                # What came before the error is emitted first; the next call raises it again.
                self._until = 0.0
                break
            if message is None:
                break
            if not self._held:
                self._until = time.monotonic() + self._coalesce
            self._held.append(message)
            wait = 0.0
        full = len(self._held) >= self._batch_rows
        if not self._held or not (full or time.monotonic() >= self._until):
            return []
        held, self._held = self._held, []
        self._client.taken(len(held))
        ticks = self._digest(held)
        return [_batch(ticks)] if ticks else []

    def _digest(self, messages: Sequence[tuple[int, bytes]]) -> list[Tick]:
        ticks: list[Tick] = []
        for connection, data in messages:
            self._counts["messages"] += 1
            for event in self._feed.feed(data):
                if isinstance(event, Tick):
                    if self._limit is not None and self._emitted >= self._limit:
                        return ticks
                    ticks.append(event)
                    self._last[event.symbol] = event.trade_id
                    self._emitted += 1
                    self._counts["ticks"] += 1
                elif isinstance(event, Gap):
                    self._report_gap(event)
                elif isinstance(event, Heartbeat):
                    self._counts["heartbeats"] += 1
                elif isinstance(event, Ignored):
                    self._counts["repeated" if event.why == "repeated trade" else "ignored"] += 1
                elif isinstance(event, Garbage):
                    self._report_garbage(event, data)
                else:
                    self._report_refusal(event, connection)
        return ticks

    def _report_gap(self, gap: Gap) -> None:
        self._counts["gaps"] += 1
        self._counts["missed"] += gap.missed
        self._gaps.append(gap)
        _log.warning(
            "%s: %d trade(s) of %s are missing after number %d",
            self._feed.name,
            gap.missed,
            gap.symbol,
            gap.after,
        )

    def _report_garbage(self, garbage: Garbage, data: bytes) -> None:
        self._counts["garbage"] += 1
        if self._counts["garbage"] == 1:
            _log.warning("%s: a message that makes no sense: %s", self._feed.name, garbage.reason)
        if self._dead_letters is not None:
            letter = {
                "received": datetime.now(UTC).isoformat(),
                "exchange": self._feed.name,
                "reason": garbage.reason,
                "text": data.decode("utf-8", "replace")[:_SHOWN],
            }
            self._dead_letters.parent.mkdir(parents=True, exist_ok=True)
            with self._dead_letters.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(letter, ensure_ascii=False) + "\n")

    def _report_refusal(self, refused: Refused, connection: int) -> None:
        self._counts["refused"] += 1
        if connection == 1:
            raise FeedError(f"{self._feed.name} refuses {self._feed.symbols}: {refused.reason}")
        _log.warning("%s: refused after reconnecting: %s", self._feed.name, refused.reason)

    def next_awake(self) -> datetime:
        """Return a time in the past: `next_batch` does the waiting, and wakes on a message."""
        return _AT_ONCE

    def snapshot(self) -> LivePosition:
        """Return the numbers of the last emitted trades."""
        return LivePosition(dict(self._last), self._emitted)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def statistics(self) -> LiveStatistics:
        """Return the counts so far."""
        client = self._client
        return LiveStatistics(
            **self._counts,
            recent_gaps=tuple(self._gaps),
            connects=client.connects,
            failures=client.failures,
            silences=client.silences,
            oversized=client.oversized,
        )


def _batch(ticks: list[Tick]) -> pa.RecordBatch:
    ticks = sorted(ticks, key=lambda tick: (tick.time, tick.symbol))
    columns = [
        [tick.time for tick in ticks],
        [tick.symbol for tick in ticks],
        [tick.price for tick in ticks],
        [tick.size for tick in ticks],
    ]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, TICKS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=TICKS)


class LiveSource(FixedPartitionedSource[pa.RecordBatch, LivePosition]):
    """Read live trades from a public feed of Coinbase, Kraken or Binance. No account is needed.

    An item is a ``RecordBatch`` of ``state.schemas.TICKS``: the trades of `coalesce` seconds,
    sorted by time, then symbol. The series is the exchange's symbol (``BTC-USD`` on Coinbase,
    ``BTC/USD`` on Kraken, ``BTCUSDT`` on Binance). There is one partition. The snapshot is the
    number of the last emitted trade of each symbol.

    The connection is made again after it is lost, after `idle_timeout` seconds without a
    message, after a message above `max_message` bytes, and after Binance's cut at 24 hours;
    at once if it had lasted, else after growing, random delays. A flow that is slower than the
    feed makes the source stop reading, so nothing is dropped here; an exchange that then hangs
    up leaves a gap.

    - *Late*: trades of one symbol are emitted in the order of their numbers. A trade whose
      number is not above the last one is dropped as repeated, and counted. One timestamp's
      trades may come in several batches.
    - *Duplicate*: trades that the exchange repeats after a reconnection are dropped and counted.
    - *Empty*: waits. An exchange that cannot be reached is tried forever, with a warning each
      time.
    - *Restart*: goes on with what the exchange sends from then on. Kraken repeats its latest 50
      trades of each symbol, which fills a short absence. What was missed and is not repeated is
      lost; it is counted as a gap, from the numbers in the snapshot, when the next trade comes.

    Messages that make no sense are counted and go to `dead_letters`; they never end the flow.

    Args:
        exchange: "coinbase", "kraken" or "binance".
        symbols: In the exchange's notation.
        url: Another address of the same protocol, such as the exchange's test system.
        dead_letters: A file to which messages that make no sense are appended (NDJSON: received,
            exchange, reason, text).
        limit: End after so many ticks, restarts included. None never ends.
        coalesce: Seconds for which trades are gathered into a batch.
        batch_rows: Messages after which a batch is emitted sooner.
        idle_timeout: Seconds without any message after which to reconnect. Coinbase and Kraken
            send a heartbeat every second; on Binance a quiet symbol needs a longer time.
        max_message: Bytes that one message may have.
        max_messages: Messages that may wait for the flow.
        delays: Returns a generator of the seconds to wait before each attempt to reconnect; by
            default that of `websockets`, exponential with a random start, up to 90 s.

    Raises:
        ValueError: an unknown exchange, no symbols or a symbol twice, a bad address or number.
        FeedError: from the running flow, when the exchange refuses the connection for good, or
            the subscription on the first connection (an unknown symbol).

    >>> LiveSource("kraken", ["BTC/USD", "ETH/USD"]).list_parts()
    ['kraken']
    """

    def __init__(
        self,
        exchange: str,
        symbols: Sequence[str],
        *,
        url: str | None = None,
        dead_letters: str | Path | None = None,
        limit: int | None = None,
        coalesce: float = 0.05,
        batch_rows: int = 10_000,
        idle_timeout: float = 30.0,
        max_message: int = 1 << 20,
        max_messages: int = 20_000,
        delays: Delays = backoff,
    ) -> None:
        if exchange not in EXCHANGES:
            raise ValueError(f"unknown exchange {exchange!r}: choose from {list(EXCHANGES)}")
        for name, value in (
            ("idle_timeout", idle_timeout),
            ("max_message", max_message),
            ("batch_rows", batch_rows),
            ("limit", 1 if limit is None else limit),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if max_messages < batch_rows:
            raise ValueError(f"max_messages must be at least batch_rows, {batch_rows}")
        self._feed = EXCHANGES[exchange]
        self._symbols = list(symbols)
        self._feed(self._symbols)
        url = url or self._feed.url
        try:
            parse_uri(url)
        except (InvalidURI, ValueError) as error:
            raise ValueError(f"{exchange}: {error}") from None
        self._link = Link(url, idle_timeout, max_message, max_messages, delays)
        self._dead_letters = None if dead_letters is None else Path(dead_letters)
        self._limit = limit
        self._coalesce = coalesce
        self._batch_rows = batch_rows
        self._part: LivePartition | None = None

    def list_parts(self) -> list[str]:
        """Name the one partition after the exchange."""
        return [self._feed.name]

    def build_part(
        self, step_id: str, for_part: str, resume_state: LivePosition | None
    ) -> LivePartition:
        """Connect, and go on after the trades of a snapshot."""
        position = resume_state or LivePosition({}, 0)
        self._part = LivePartition(
            self._feed(self._symbols, position.last),
            self._link,
            position.emitted,
            coalesce=self._coalesce,
            batch_rows=self._batch_rows,
            limit=self._limit,
            dead_letters=self._dead_letters,
        )
        return self._part

    def statistics(self) -> LiveStatistics:
        """Return the counts since the start, of the partition in this process; else zeros."""
        return LiveStatistics() if self._part is None else self._part.statistics()
