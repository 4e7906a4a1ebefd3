"""The live source against a loopback exchange that drops, repeats, skips and babbles."""

import asyncio
import contextlib
import http
import json
import pickle
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main
from websockets.asyncio.server import serve

from connectors.market import FeedError, LiveSource, LiveStatistics
from connectors.market.client import Client, Link
from connectors.market.feed import Gap
from state.schemas import TICKS

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
HANG_UP, VANISH = object(), object()


def coinbase(*numbers, symbol="BTC-USD", second=None):
    return [
        json.dumps(
            {
                "type": "match",
                "trade_id": n,
                "sequence": 1000 + n,
                "time": (START + timedelta(seconds=n if second is None else second)).isoformat(),
                "product_id": symbol,
                "size": "0.5",
                "price": f"{100 + n}.25",
                "side": "sell",
            }
        )
        for n in numbers
    ]


def kraken(*numbers, symbol="BTC/USD"):
    trades = [
        {
            "symbol": symbol,
            "side": "buy",
            "price": 100.25 + n,
            "qty": 0.5,
            "ord_type": "market",
            "trade_id": n,
            "timestamp": (START + timedelta(seconds=n)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        for n in numbers
    ]
    return [json.dumps({"channel": "trade", "type": "update", "data": trades})]


def binance(*numbers, symbol="BTCUSDT"):
    millis = int(START.timestamp() * 1000)
    return [
        json.dumps(
            {
                "stream": f"{symbol.lower()}@trade",
                "data": {
                    "e": "trade",
                    "E": millis + 1000 * n,
                    "s": symbol,
                    "t": n,
                    "p": f"{100 + n}.25",
                    "q": "0.5",
                    "T": millis + 1000 * n,
                    "m": True,
                    "M": True,
                },
            }
        )
        for n in numbers
    ]


SPEAKERS = {
    "coinbase": (coinbase, "BTC-USD", '{"type": "subscriptions", "channels": []}'),
    "kraken": (kraken, "BTC/USD", '{"method": "subscribe", "success": true}'),
    "binance": (binance, "BTCUSDT", '{"result": null, "id": 1}'),
}
exchanges = pytest.mark.parametrize("exchange", list(SPEAKERS))


class Loopback:
    """A server that plays one script per connection, the last one for all that follow.

    A script is a list of messages; HANG_UP closes, VANISH cuts the line, its end stays silent.
    """

    def __init__(self, *scripts, port=0, status=None):
        self.scripts, self.port, self.status = scripts, port, status
        self.heard, self.sent = [], 0

    async def _play(self, connection):
        script = self.scripts[min(len(self.heard), len(self.scripts) - 1)]
        self.heard.append(await connection.recv())
        for step in script:
            if step is HANG_UP:
                return
            if step is VANISH:
                connection.transport.abort()
                return
            await connection.send(step)
            self.sent += 1
        await connection.wait_closed()

    def _answer(self, connection, request):
        return self.status and connection.respond(self.status, "no\n")

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve(
            self._play, "127.0.0.1", self.port, process_request=self._answer, close_timeout=0.1
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()

    def __enter__(self):
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),))
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"


def quick():
    while True:
        yield 0.01


def source(exchange, url, symbols=None, **options):
    given = {"url": url, "delays": quick, "coalesce": 0.0, "idle_timeout": 5.0, **options}
    return LiveSource(exchange, symbols or [SPEAKERS[exchange][1]], **given)


@contextlib.contextmanager
def running(live, position=None):
    part = live.build_part("in", "feed", position)
    try:
        yield part
    finally:
        part.close()


def until(part, done, batches):
    while not done():
        batches += part.next_batch()
    return pa.Table.from_batches(batches, TICKS)


def expected(exchange, *numbers):
    return [
        {
            "time": START + timedelta(seconds=n),
            "series": SPEAKERS[exchange][1],
            "price": 100.25 + n,
            "size": 0.5,
        }
        for n in numbers
    ]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@exchanges
def test_a_bad_day(exchange, tmp_path):
    speak, symbol, ack = SPEAKERS[exchange]
    bad = ["not json", b"\xff\xfe", "[1, 2]", '{"type": 5, "channel": 5, "stream": 5}']
    scripts = [
        [ack, *speak(1, 2), *bad, *speak(3), *speak(3), *speak(5), VANISH],
        [ack, *speak(4, 5), *speak(8, 9), HANG_UP],
        [ack, *speak(8, 9), *speak(10)],
    ]
    letters = tmp_path / "dead.ndjson"
    with Loopback(*scripts) as server:
        live = source(exchange, server.url, dead_letters=letters)
        with running(live) as part:
            ticks = until(part, lambda: live.statistics().ticks == 7, [])
            seen = live.statistics()
        assert len({*server.heard}) == 1
        assert len(server.heard) == 3
    assert ticks.to_pylist() == expected(exchange, 1, 2, 3, 5, 8, 9, 10)
    assert seen.recent_gaps == (Gap(symbol, 3, 5), Gap(symbol, 5, 8))
    assert (seen.gaps, seen.missed, seen.repeated) == (2, 3, 5)
    assert (seen.connects, seen.garbage, seen.ignored, seen.silences) == (3, 4, 3, 0)
    texts = [json.loads(line)["text"] for line in letters.read_text("utf-8").splitlines()]
    assert texts == [b if isinstance(b, str) else b.decode("utf-8", "replace") for b in bad]


@exchanges
def test_silence_makes_it_connect_again(exchange):
    speak, _, ack = SPEAKERS[exchange]
    with Loopback([ack, *speak(1)], [ack, *speak(2)]) as server:
        live = source(exchange, server.url, idle_timeout=0.2)
        with running(live) as part:
            ticks = until(part, lambda: live.statistics().ticks == 2, [])
            assert live.statistics().silences >= 1
    assert ticks.to_pylist() == expected(exchange, 1, 2)


@exchanges
def test_a_message_that_is_too_long_ends_the_connection_only(exchange):
    speak, _, _ = SPEAKERS[exchange]
    with Loopback([*speak(1), "x" * 5000], speak(2)) as server:
        live = source(exchange, server.url, max_message=2000)
        with running(live) as part:
            until(part, lambda: live.statistics().ticks == 2, [])
            assert live.statistics().oversized == 1


@exchanges
def test_a_restart_emits_no_trade_twice_and_counts_what_it_missed(exchange):
    speak, symbol, _ = SPEAKERS[exchange]
    batches = []
    with Loopback(speak(1, 2), [*speak(1, 2), *speak(4)]) as server:
        live = source(exchange, server.url)
        with running(live) as part:
            until(part, lambda: live.statistics().ticks == 2, batches)
            position = pickle.loads(pickle.dumps(part.snapshot()))
        again = source(exchange, server.url)
        with running(again, position) as part:
            ticks = until(part, lambda: again.statistics().ticks == 1, batches)
    assert ticks.to_pylist() == expected(exchange, 1, 2, 4)
    assert again.statistics().recent_gaps == (Gap(symbol, 2, 4),)


def test_a_flow_ends_at_its_limit_and_a_resumed_one_counts_on():
    with Loopback(coinbase(*range(1, 100))) as server:
        live = source("coinbase", server.url, limit=40)
        flow, out = Dataflow("live"), []
        op.output("out", op.input("in", flow, live), TestingSink(out))
        run_main(flow)
        assert pa.Table.from_batches(out).to_pylist() == expected("coinbase", *range(1, 41))
        position = live._part.snapshot()
        more = source("coinbase", server.url, limit=45)
        with running(more, position) as part:
            ticks = until(part, lambda: more.statistics().ticks == 5, [])
            with pytest.raises(StopIteration):
                part.next_batch()
    assert ticks.to_pylist() == expected("coinbase", *range(41, 46))


def test_a_batch_is_in_order_of_time_and_a_snapshot_leaves_out_what_waits():
    symbols = ["A-USD", "B-USD"]
    script = [
        *coinbase(1, symbol="B-USD", second=5),
        *coinbase(1, symbol="A-USD", second=5),
        *coinbase(2, symbol="A-USD", second=6),
        *coinbase(2, symbol="B-USD", second=4),
    ]
    with Loopback(script) as server:
        live = source(
            "coinbase", server.url, symbols, coalesce=3600.0, batch_rows=4, max_messages=4
        )
        with running(live) as part:
            before, batches = part.snapshot(), []
            while not batches:
                assert part.snapshot() == before
                batches = part.next_batch()
            assert part.snapshot().last == {"A-USD": 2, "B-USD": 2}
    (batch,) = batches
    assert batch["series"].to_pylist() == ["B-USD", "A-USD", "B-USD", "A-USD"]


@pytest.mark.parametrize(
    ("exchange", "refusal"),
    [
        ("coinbase", '{"type": "error", "message": "Failed", "reason": "no such product"}'),
        ("kraken", '{"method": "subscribe", "success": false, "error": "no such product"}'),
        ("binance", '{"error": {"code": 2, "msg": "no such product"}, "id": 1}'),
    ],
)
def test_a_refused_subscription_ends_the_flow_at_first_only(exchange, refusal):
    speak, _, _ = SPEAKERS[exchange]
    with (
        Loopback([refusal]) as server,
        running(source(exchange, server.url)) as part,
        pytest.raises(FeedError, match=f"{exchange} refuses .*no such product"),
    ):
        until(part, lambda: False, [])
    with Loopback([*speak(1), HANG_UP], [refusal, *speak(2)]) as server:
        live = source(exchange, server.url)
        with running(live) as part:
            until(part, lambda: live.statistics().ticks == 2, [])
        assert live.statistics().refused == 1


def test_an_exchange_that_is_not_there_yet_is_tried_again():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    live = source("kraken", f"ws://127.0.0.1:{port}")
    with running(live) as part:
        until(part, lambda: live.statistics().failures >= 2, [])
        with Loopback(kraken(1), port=port):
            until(part, lambda: live.statistics().ticks == 1, [])


@pytest.mark.parametrize("status", [429, 503])
def test_a_status_that_may_pass_is_tried_again(status):
    with Loopback([], status=http.HTTPStatus(status)) as server:
        live = source("binance", server.url)
        with running(live) as part:
            until(part, lambda: live.statistics().failures >= 2, [])


def test_a_status_that_will_not_pass_ends_the_flow():
    with (
        Loopback([], status=http.HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS) as server,
        running(source("binance", server.url)) as part,
        pytest.raises(FeedError, match=r"binance: ws://.* refuses the connection.*451"),
    ):
        until(part, lambda: False, [])


def test_what_came_before_a_fatal_error_is_emitted():
    with Loopback([*kraken(1), HANG_UP]) as server:
        live = source("kraken", server.url, coalesce=3600.0)
        with running(live) as part:
            while not part._held:
                part.next_batch()
            server.status = http.HTTPStatus.FORBIDDEN
            batches = []
            with pytest.raises(FeedError):
                until(part, lambda: False, batches)
    assert pa.Table.from_batches(batches).to_pylist() == expected("kraken", 1)


def test_a_server_that_hangs_up_at_once_is_given_time():
    waits = []

    def growing():
        for i in range(1, 1000):
            waits.append(i)
            yield 0.001 * i

    with Loopback([HANG_UP]) as server:
        live = source("kraken", server.url, delays=growing)
        with running(live) as part:
            until(part, lambda: live.statistics().connects >= 4, [])
    assert waits[:3] == [1, 2, 3]


def test_a_slow_flow_holds_the_exchange_back():
    total = 4000
    script = [f"{i:05}" + "." * 5000 for i in range(total)]
    with Loopback(script) as server:
        client = Client("test", ["hello"], Link(server.url, 5.0, 1 << 20, 50, quick))
        try:
            while client.waiting < 50:
                time.sleep(0.001)
            stuck = server.sent
            while server.sent > stuck or client.waiting != 50:
                stuck = server.sent
                time.sleep(0.05)
            assert server.sent < total
            got = []
            while len(got) < total:
                message = client.take(0.1)
                if message is not None:
                    got.append(int(message[1][:5]))
                    client.taken(1)
                assert client.waiting <= 50
        finally:
            client.close()
    assert got == list(range(total))


def test_no_numbers_before_the_start():
    assert LiveSource("kraken", ["BTC/USD"]).statistics() == LiveStatistics()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exchange": "mtgox"}, "unknown exchange 'mtgox': choose from"),
        ({"symbols": []}, "at least one symbol"),
        ({"url": "http://x"}, "kraken: http://x"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"limit": 0}, "limit"),
        ({"max_messages": 5}, "max_messages"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LiveSource(**{"exchange": "kraken", "symbols": ["BTC/USD"], **arguments})
