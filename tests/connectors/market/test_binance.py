"""Binance messages as its documentation shows them."""

import json
from datetime import UTC, datetime

from connectors.market.binance import BinanceFeed
from connectors.market.feed import Gap, Garbage, Ignored, Refused, Tick

TRADE = {
    "e": "trade",
    "E": 1672515782136,
    "s": "BNBBTC",
    "t": 12345,
    "p": "0.001",
    "q": "100",
    "T": 1672515782136,
    "m": True,
    "M": True,
}


def combined(**changes):
    return json.dumps({"stream": "bnbbtc@trade", "data": {**TRADE, **changes}})


def test_a_trade_is_a_tick():
    (event,) = BinanceFeed(["bnbbtc"]).feed(combined())
    time = datetime(2022, 12, 31, 19, 43, 2, 136000, UTC)
    assert event == Tick("BNBBTC", 12345, time, 0.001, 100.0)


def test_numbers_that_are_left_out_are_a_gap():
    feed = BinanceFeed(["BNBBTC"])
    feed.feed(combined())
    assert feed.feed(combined(t=12350))[0] == Gap("BNBBTC", 12345, 12350)


def test_other_messages():
    feed = BinanceFeed(["BNBBTC"])
    messages = [
        '{"result": null, "id": 1}',
        combined(e="aggTrade"),
        combined(s="BTCUSDT"),
        '{"code": 2, "msg": "Invalid request: too many parameters"}',
        '{"error": {"code": 3, "msg": "Invalid JSON"}, "id": 1}',
        "{}",
        combined(p="-1"),
        combined(T=10**18),
    ]
    events = [event for message in messages for event in feed.feed(message)]
    assert events[:5] == [
        Ignored("control"),
        Ignored("unknown type"),
        Ignored("other symbol"),
        Refused("Invalid request: too many parameters"),
        Refused("Invalid JSON"),
    ]
    assert [type(event) for event in events[5:]] == [Garbage] * 3
