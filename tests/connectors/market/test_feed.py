"""What holds for the protocol of every exchange."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.market import EXCHANGES
from connectors.market.feed import Gap, Garbage, Heartbeat, Ignored, Refused, Tick

feeds = pytest.mark.parametrize("name", list(EXCHANGES))

KEYS = st.sampled_from(
    [
        "type",
        "channel",
        "method",
        "stream",
        "data",
        "e",
        "s",
        "t",
        "p",
        "q",
        "T",
        "trade_id",
        "product_id",
        "time",
        "price",
        "size",
        "symbol",
        "qty",
        "timestamp",
        "last_trade_id",
        "success",
        "error",
        "msg",
        "id",
        "message",
    ]
)
WORDS = st.sampled_from(
    ["match", "heartbeat", "error", "trade", "subscribe", "A", "1", "2020-01-01T00:00:00Z", ""]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


@feeds
@settings(max_examples=150)
@given(st.binary(max_size=30) | st.builds(lambda v: json.dumps(v).encode(), JSON))
def test_no_message_raises(name, data):
    for event in EXCHANGES[name](["A"]).feed(data):
        assert isinstance(event, Tick | Gap | Heartbeat | Ignored | Garbage | Refused)


@feeds
def test_a_message_that_nests_too_deep_is_garbage(name):
    (event,) = EXCHANGES[name](["A"]).feed('{"x":' + "[" * 100_000)
    assert isinstance(event, Garbage)


@feeds
@pytest.mark.parametrize("symbols", [[], [""], ["A", "a"]])
def test_bad_symbols_are_named(name, symbols):
    with pytest.raises(ValueError, match=name):
        EXCHANGES[name](symbols)
