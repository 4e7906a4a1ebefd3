"""Coinbase messages as its documentation shows them."""

import json
from datetime import UTC, datetime

from connectors.market.coinbase import CoinbaseFeed
from connectors.market.feed import Gap, Heartbeat, Ignored, Refused, Tick

MATCH = """{
  "type": "match", "trade_id": 10, "sequence": 50,
  "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
  "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
  "time": "2014-11-07T08:19:27.028459Z", "product_id": "BTC-USD",
  "size": "5.23512", "price": "400.23", "side": "sell"
}"""


def match(number, **changes):
    return json.dumps({**json.loads(MATCH), "trade_id": number, **changes})


def beat(last):
    return json.dumps(
        {
            "type": "heartbeat",
            "sequence": 90,
            "last_trade_id": last,
            "product_id": "BTC-USD",
            "time": "2014-11-07T08:19:28.464459Z",
        }
    )


def kinds(feed, *messages):
    return [event for message in messages for event in feed.feed(message)]


def test_a_match_is_a_tick():
    (event,) = CoinbaseFeed(["btc-usd"]).feed(MATCH)
    time = datetime(2014, 11, 7, 8, 19, 27, 28459, UTC)
    assert event == Tick("BTC-USD", 10, time, 400.23, 5.23512)


def test_the_subscription_names_every_product():
    (message,) = CoinbaseFeed(["BTC-USD", "ETH-EUR"]).subscribe()
    assert json.loads(message) == {
        "type": "subscribe",
        "product_ids": ["BTC-USD", "ETH-EUR"],
        "channels": ["matches", "heartbeat"],
    }


def test_the_last_match_shows_what_was_missed_while_away():
    feed = CoinbaseFeed(["BTC-USD"], {"BTC-USD": 7})
    gap, tick = feed.feed(match(10, type="last_match"))
    assert gap == Gap("BTC-USD", 7, 10)
    assert gap.missed == 2
    assert tick.trade_id == 10
    assert kinds(feed, match(10)) == [Ignored("repeated trade")]


def test_a_trade_that_two_heartbeats_know_is_missing():
    feed = CoinbaseFeed(["BTC-USD"])
    feed.feed(match(10))
    assert kinds(feed, beat(12)) == [Heartbeat()]
    assert kinds(feed, beat(12)) == [Heartbeat(), Gap("BTC-USD", 10, 13)]
    assert kinds(feed, beat(12)) == [Heartbeat()]
    # Reported once: the trade after it is no news, one further on is.
    assert [type(e) for e in kinds(feed, match(13))] == [Tick]
    assert kinds(feed, match(15))[0] == Gap("BTC-USD", 13, 15)


def test_a_heartbeat_that_overtakes_its_trade_is_no_gap():
    feed = CoinbaseFeed(["BTC-USD"])
    events = kinds(feed, match(10), beat(11), match(11), beat(11), beat(0), beat(0))
    assert not any(isinstance(event, Gap) for event in events)


def test_other_messages():
    feed = CoinbaseFeed(["BTC-USD"])
    assert kinds(
        feed,
        '{"type": "subscriptions", "channels": []}',
        '{"type": "a_new_type"}',
        match(1, product_id="ETH-USD"),
        '{"type": "error", "message": "Failed to subscribe", "reason": "X is not valid"}',
    ) == [
        Ignored("control"),
        Ignored("unknown type"),
        Ignored("other symbol"),
        Refused("Failed to subscribe X is not valid"),
    ]
