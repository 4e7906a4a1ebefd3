"""The whole job on a live feed: a loopback server speaks Kraken's protocol, with a cut inside."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bytewax.testing import run_main
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from jobs.market import build, make_source
from jobs.market_settings import MarketSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
TRADES = 900


def trades() -> list[dict]:
    """Return random walks of two symbols, a trade of each every second: a simulation."""
    prices = 100 * np.exp(np.cumsum(1e-3 * np.random.default_rng(2).standard_normal(TRADES)))
    return [
        {
            "symbol": ("BTC/USD", "ETH/USD")[n % 2],
            "side": "buy",
            "qty": 1.0,
            "price": round(float(price), 2),
            "ord_type": "market",
            "trade_id": n // 2,
            "timestamp": (START + timedelta(seconds=n // 2)).isoformat().replace("+00:00", "Z"),
        }
        for n, price in enumerate(prices)
    ]


@pytest.fixture
def url() -> Iterator[str]:
    """Serve all trades; the first connection is cut halfway, the second repeats the last ones."""
    connections = threading.Semaphore(0)
    seen: list[int] = []

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        seen.append(1)
        first = len(seen) == 1
        part = trades()[: TRADES // 2] if first else trades()[TRADES // 2 - 20 :]
        try:
            for at in range(0, len(part), 10):
                message = {"channel": "trade", "type": "update", "data": part[at : at + 10]}
                connection.send(json.dumps(message))
            if not first:
                connections.acquire()
        except ConnectionClosed:
            return

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        host, port = server.socket.getsockname()
        yield f"ws://{host}:{port}"
        connections.release()
        server.shutdown()
        thread.join(timeout=10)


def test_a_live_feed_that_breaks_is_analysed_without_loss(url: str, tmp_path: Path) -> None:
    settings = MarketSettings.load(
        source="kraken", series=["BTC/USD", "ETH/USD"], url=url, limit=TRADES, window=120, every=60
    )
    out = tmp_path / "out"
    run_main(build(settings, make_source(settings, out), out))
    ticks = pq.read_table(out / "ticks.parquet").to_pylist()
    assert sorted((t["series"], t["time"], t["price"]) for t in ticks) == sorted(
        (t["symbol"], datetime.fromisoformat(t["timestamp"]), t["price"]) for t in trades()
    )
    windows = pq.read_table(out / "edges.parquet")["window"].unique()
    assert len(windows) >= TRADES / 2 / 60
