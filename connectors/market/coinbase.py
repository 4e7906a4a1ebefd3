"""Coinbase Exchange: the public `matches` and `heartbeat` channels.

https://docs.cdp.coinbase.com/exchange/websocket-feed/channels: a `match` is one trade;
`last_match` repeats the latest one after subscribing, which shows what was missed while away;
`heartbeat` tells the number of the latest trade once a second, also when nothing is traded.
Coinbase disconnects a client that has not subscribed within 5 seconds, and asks clients to ignore
types they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from connectors.market.feed import Event, Gap, Heartbeat, Ignored, Refused, TradeFeed, tick


class _Kind(msgspec.Struct):
    type: str


class _Match(msgspec.Struct):
    trade_id: int
    product_id: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    price: str
    size: str


class _Heartbeat(msgspec.Struct):
    product_id: str
    last_trade_id: int


class _Error(msgspec.Struct):
    message: str
    reason: str = ""


_kind = msgspec.json.Decoder(_Kind)
_match = msgspec.json.Decoder(_Match)
_heartbeat = msgspec.json.Decoder(_Heartbeat)
_error = msgspec.json.Decoder(_Error)


class CoinbaseFeed(TradeFeed):
    """The Coinbase protocol. Symbols are product ids such as ``BTC-USD``.

    A heartbeat may overtake the trade it names, so a trade counts as missing when the *next*
    heartbeat comes and it is still not there. It is reported once, and is still passed on should
    it come after all.

    >>> feed = CoinbaseFeed(["BTC-USD"])
    >>> feed.feed('{"type": "heartbeat", "product_id": "BTC-USD", "last_trade_id": 7}')
    [Heartbeat()]
    """

    name = "coinbase"
    url = "wss://ws-feed.exchange.coinbase.com"

    def __init__(self, symbols: Sequence[str], last: Mapping[str, int] | None = None) -> None:
        super().__init__(symbols, last)
        self._announced: dict[str, int] = {}
        self._reported: dict[str, int] = {}

    def subscribe(self) -> list[str]:
        """Return the one subscribe message."""
        return [
            json.dumps(
                {
                    "type": "subscribe",
                    "product_ids": list(self.symbols),
                    "channels": ["matches", "heartbeat"],
                }
            )
        ]

    def _read(self, data: str | bytes) -> Iterable[Event]:
        kind = _kind.decode(data).type
        if kind in ("match", "last_match"):
            match = _match.decode(data)
            trade = tick(match.product_id, match.trade_id, match.time, match.price, match.size)
            return self._in_order([trade])
        if kind == "heartbeat":
            return self._beat(_heartbeat.decode(data))
        if kind == "error":
            error = _error.decode(data)
            return [Refused(f"{error.message} {error.reason}".strip())]
        return [Ignored("control" if kind == "subscriptions" else "unknown type")]

    def _beat(self, beat: _Heartbeat) -> Iterator[Event]:
        yield Heartbeat()
        symbol, last = beat.product_id, self.last.get(beat.product_id)
        announced = self._announced.get(symbol, 0)
        if last is not None and announced > last:
            yield from self._missing(symbol, last, announced + 1)
        self._announced[symbol] = beat.last_trade_id

    def _missing(self, symbol: str, after: int, before: int) -> Iterator[Gap]:
        after = max(after, self._reported.get(symbol, 0))
        if before > after + 1:
            self._reported[symbol] = before - 1
            yield Gap(symbol, after, before)
