"""Binance: the public `<symbol>@trade` streams over one combined connection.

https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams: a combined message
is {"stream", "data"}. Times are milliseconds. Binance cuts every connection after 24 hours, and
pings every 20 seconds (the websocket library answers). It does not repeat trades after a
reconnection, and it accepts a subscription to a symbol that does not exist without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from connectors.market.feed import Event, Ignored, Refused, TradeFeed, tick

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Problem(msgspec.Struct):
    msg: str


class _Envelope(msgspec.Struct):
    stream: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    msg: str | None = None
    error: _Problem | None = None


class _Kind(msgspec.Struct):
    event: str = msgspec.field(name="e")


class _Trade(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    trade_id: int = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    millis: Annotated[int, msgspec.Meta(ge=0, lt=253_402_300_800_000)] = msgspec.field(name="T")


_envelope = msgspec.json.Decoder(_Envelope)
_kind = msgspec.json.Decoder(_Kind)
_trade = msgspec.json.Decoder(_Trade)


class BinanceFeed(TradeFeed):
    """The Binance protocol. Symbols such as ``BTCUSDT``, in either case.

    >>> BinanceFeed(["btcusdt"]).subscribe()
    ['{"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1}']
    """

    name = "binance"
    url = "wss://stream.binance.com:9443/stream"

    def subscribe(self) -> list[str]:
        """Return the one subscribe message."""
        streams = [f"{symbol.lower()}@trade" for symbol in self.symbols]
        return [json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 1})]

    def _read(self, data: str | bytes) -> Iterable[Event]:
        envelope = _envelope.decode(data)
        if envelope.error is not None or envelope.msg is not None:
            return [Refused(envelope.error.msg if envelope.error else str(envelope.msg))]
        if not bytes(envelope.data):
            if envelope.id is None:
                raise ValueError("a message without data and an id")
            return [Ignored("control")]
        if _kind.decode(envelope.data).event != "trade":
            return [Ignored("unknown type")]
        trade = _trade.decode(envelope.data)
        time = _EPOCH + timedelta(milliseconds=trade.millis)
        return self._in_order(
            [tick(trade.symbol, trade.trade_id, time, trade.price, trade.quantity)]
        )
