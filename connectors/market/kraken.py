"""Kraken: the public `trade` channel of the websocket API, version 2.

https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/trade: a message holds one or
more trades; after subscribing, a snapshot holds the latest 50, which fills short absences. A
`heartbeat` comes about once a second when nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec

from connectors.market.feed import Event, Heartbeat, Ignored, Refused, TradeFeed, tick


class _Envelope(msgspec.Struct):
    channel: str | None = None
    method: str | None = None
    success: bool = True
    error: str = ""


class _Trade(msgspec.Struct):
    symbol: str
    trade_id: int
    price: float
    qty: float
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]


class _Trades(msgspec.Struct):
    data: list[_Trade]


_envelope = msgspec.json.Decoder(_Envelope)
_trades = msgspec.json.Decoder(_Trades)


class KrakenFeed(TradeFeed):
    """The Kraken protocol. Symbols are pairs such as ``BTC/USD``.

    >>> KrakenFeed(["BTC/USD"]).feed('{"channel": "heartbeat"}')
    [Heartbeat()]
    """

    name = "kraken"
    url = "wss://ws.kraken.com/v2"

    def subscribe(self) -> list[str]:
        """Return the one subscribe message, which asks for a snapshot."""
        params = {"channel": "trade", "symbol": list(self.symbols), "snapshot": True}
        return [json.dumps({"method": "subscribe", "params": params})]

    def _read(self, data: str | bytes) -> Iterable[Event]:
        envelope = _envelope.decode(data)
        if envelope.channel == "trade":
            trades = sorted(_trades.decode(data).data, key=lambda trade: trade.trade_id)
            return self._in_order(
                [tick(t.symbol, t.trade_id, t.timestamp, t.price, t.qty) for t in trades]
            )
        if envelope.channel == "heartbeat":
            return [Heartbeat()]
        if not envelope.success or envelope.error:
            return [Refused(envelope.error or "the request failed")]
        if envelope.channel is None and envelope.method is None:
            raise ValueError("a message without a channel and a method")
        known = envelope.channel == "status" or envelope.method in ("subscribe", "pong")
        return [Ignored("control" if known else "unknown type")]
