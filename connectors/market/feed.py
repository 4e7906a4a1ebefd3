"""What the exchanges' protocols have in common: events, and the order of trades.

Each protocol is sans-I/O: messages in, events out; no socket, no clock. Trades of one symbol are
numbered one by one by all three exchanges, so the number of the last trade is enough to drop
repeats and to tell how many trades are missing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Tick:
    """One trade. `size` is in units of the symbol's base asset, `time` is the exchange's."""

    symbol: str
    trade_id: int
    time: datetime
    price: float
    size: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Trades of `symbol` between the numbers `after` and `before`, both exclusive, are missing."""

    symbol: str
    after: int
    before: int

    @property
    def missed(self) -> int:
        """How many trades are missing."""
        return self.before - self.after - 1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The connection is alive."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message, or a trade in one, that is not for us."""

    why: Literal["repeated trade", "control", "unknown type", "other symbol"]


@dataclass(frozen=True, slots=True)
class Garbage:
    """A message that no version of the protocol explains."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange answered with an error, such as an unknown symbol."""

    reason: str


Event = Tick | Gap | Heartbeat | Ignored | Garbage | Refused


class TradeFeed(ABC):
    """One exchange's protocol: what to send after connecting, and what an answer means.

    Args:
        symbols: What to subscribe to, in the exchange's own notation.
        last: The number of the last trade known of each symbol, from a snapshot.

    Attributes:
        last: The number of the last trade of each symbol, kept up to date by `feed`.

    Raises:
        ValueError: there is no symbol, one is empty, or one is there twice.
    """

    name: ClassVar[str]
    url: ClassVar[str]

    def __init__(self, symbols: Sequence[str], last: Mapping[str, int] | None = None) -> None:
        self.symbols = tuple(self.notation(symbol) for symbol in symbols)
        if not self.symbols or not all(self.symbols):
            raise ValueError(f"{self.name}: give at least one symbol, none of them empty")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError(f"{self.name}: a symbol is there twice in {list(self.symbols)}")
        self.last: dict[str, int] = dict(last or {})

    @staticmethod
    def notation(symbol: str) -> str:
        """Return the symbol as the exchange writes it in trades."""
        return symbol.strip().upper()

    @abstractmethod
    def subscribe(self) -> list[str]:
        """Return the messages to send on every new connection."""

    @abstractmethod
    def _read(self, data: str | bytes) -> Iterable[Event]:
        """Tell the events of a message, or raise ``ValueError`` before any state has changed."""

    def feed(self, data: str | bytes) -> list[Event]:
        """Return the events of one received message, in order. Never raises on bad data."""
        try:
            return list(self._read(data))
        except (ValueError, RecursionError) as error:
            return [Garbage(str(error))]

    def _in_order(self, trades: Iterable[Tick]) -> Iterator[Event]:
        """Drop repeated trades, and report what is missing before each of the others."""
        for trade in trades:
            last = self.last.get(trade.symbol)
            if trade.symbol not in self.symbols:
                yield Ignored("other symbol")
                continue
            if last is not None and trade.trade_id <= last:
                yield Ignored("repeated trade")
                continue
            if last is not None and trade.trade_id > last + 1:
                yield from self._missing(trade.symbol, last, trade.trade_id)
            self.last[trade.symbol] = trade.trade_id
            yield trade

    def _missing(self, symbol: str, after: int, before: int) -> Iterator[Gap]:
        yield Gap(symbol, after, before)


def tick(symbol: str, trade_id: int, time: datetime, price: str | float, size: str | float) -> Tick:
    """Return a tick of checked values.

    Raises:
        ValueError: the price is not finite and positive, or the size not finite and 0 or more.
    """
    made = Tick(symbol, trade_id, time, float(price), float(size))
    if not (math.isfinite(made.price) and made.price > 0):
        raise ValueError(f"the price {price} is not finite and positive")
    if not (math.isfinite(made.size) and made.size >= 0):
        raise ValueError(f"the size {size} is not finite and 0 or more")
    return made
