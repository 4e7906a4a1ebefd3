"""Kraken messages as its documentation shows them."""

import json
from datetime import UTC, datetime

from connectors.market.feed import Gap, Garbage, Heartbeat, Ignored, Refused, Tick
from connectors.market.kraken import KrakenFeed

SNAPSHOT = """{"channel": "trade", "type": "snapshot", "data": [
  {"symbol": "MATIC/USD", "side": "buy", "price": 0.5147, "qty": 6423.46326,
   "ord_type": "limit", "trade_id": 4665846, "timestamp": "2023-09-25T07:48:36.925533Z"},
  {"symbol": "MATIC/USD", "side": "buy", "price": 0.5147, "qty": 1136.19677815,
   "ord_type": "limit", "trade_id": 4665847, "timestamp": "2023-09-25T07:49:36.925603Z"}]}"""


def test_a_snapshot_is_ticks_and_a_second_one_is_repeats():
    feed = KrakenFeed(["MATIC/USD"])
    assert feed.feed(SNAPSHOT) == [
        Tick(
            "MATIC/USD",
            4665846,
            datetime(2023, 9, 25, 7, 48, 36, 925533, UTC),
            0.5147,
            6423.46326,
        ),
        Tick(
            "MATIC/USD",
            4665847,
            datetime(2023, 9, 25, 7, 49, 36, 925603, UTC),
            0.5147,
            1136.19677815,
        ),
    ]
    assert feed.feed(SNAPSHOT) == [Ignored("repeated trade")] * 2


def test_a_snapshot_fills_an_absence_as_far_as_it_goes():
    near = KrakenFeed(["MATIC/USD"], {"MATIC/USD": 4665846})
    assert [type(event) for event in near.feed(SNAPSHOT)] == [Ignored, Tick]
    far = KrakenFeed(["MATIC/USD"], {"MATIC/USD": 4665800})
    assert far.feed(SNAPSHOT)[0] == Gap("MATIC/USD", 4665800, 4665846)


def test_trades_of_a_message_are_put_in_the_order_of_their_numbers():
    message = json.loads(SNAPSHOT)
    message["data"].reverse()
    events = KrakenFeed(["MATIC/USD"]).feed(json.dumps(message))
    assert [event.trade_id for event in events] == [4665846, 4665847]


def test_a_message_with_one_bad_trade_changes_nothing():
    message = json.loads(SNAPSHOT)
    message["data"][1]["price"] = 0
    feed = KrakenFeed(["MATIC/USD"])
    assert feed.feed(json.dumps(message)) == [Garbage("the price 0.0 is not finite and positive")]
    assert feed.last == {}


def test_the_subscription_asks_for_a_snapshot():
    (message,) = KrakenFeed(["btc/usd"]).subscribe()
    assert json.loads(message) == {
        "method": "subscribe",
        "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True},
    }


def test_other_messages():
    feed = KrakenFeed(["BTC/USD"])
    messages = [
        '{"channel": "heartbeat"}',
        '{"channel": "status", "type": "update", "data": [{"system": "online"}]}',
        '{"method": "subscribe", "result": {"channel": "trade"}, "success": true}',
        '{"channel": "ticker", "type": "update", "data": []}',
        '{"error": "Currency pair not supported BTC/XXX", "method": "subscribe",'
        ' "success": false, "symbol": "BTC/XXX"}',
        "{}",
    ]
    assert [event for message in messages for event in feed.feed(message)] == [
        Heartbeat(),
        Ignored("control"),
        Ignored("control"),
        Ignored("unknown type"),
        Refused("Currency pair not supported BTC/XXX"),
        Garbage("a message without a channel and a method"),
    ]
