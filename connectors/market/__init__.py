"""Market prices as streams of ticks: shipped daily series, files, and live public feeds."""

from connectors.market.client import FeedError
from connectors.market.live import EXCHANGES, LiveSource, LiveStatistics
from connectors.market.prices import PriceFileSource
from connectors.market.replay import DAILY_SERIES, ReplaySource, daily_prices

__all__ = [
    "DAILY_SERIES",
    "EXCHANGES",
    "FeedError",
    "LiveSource",
    "LiveStatistics",
    "PriceFileSource",
    "ReplaySource",
    "daily_prices",
]
