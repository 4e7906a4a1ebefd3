"""Settings of `jobs.market`, in a module that imports fast."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from jobs.settings import Duration, JobSettings, Names

LIVE = ("binance", "coinbase", "kraken")


class MarketSettings(JobSettings):
    """Find crashes in prices, and which series led which, over sliding windows."""

    job: ClassVar[str] = "market"
    reads: ClassVar[str] = "prices: the shipped daily series, CSV or Parquet files, live feeds"
    writes: ClassVar[str] = "alerts.ndjson, edges.parquet, hypotheses.ndjson, report.html, ..."

    source: str = Field(
        "replay",
        description="replay (shipped daily prices), file, binance, coinbase, kraken, an entry "
        "point of the group braidflow.connectors, or an import path such as mypkg.feeds:MyFeed",
    )
    path: Names = Field([], description="price files, CSV or Parquet, for the source `file`")
    series: Names = Field([], description="series to use: names for replay, symbols for live feeds")
    gauges: Names = Field(
        ["VIX"], description="series that raise no alerts because their fall is no crash"
    )
    speed: float | None = Field(
        None, gt=0, description="replay speed in event seconds per second; unset: full speed"
    )
    url: str | None = Field(
        None, description="another address of a live feed's protocol, such as a test system"
    )
    limit: PositiveInt | None = Field(
        None, description="end a live feed after so many trades; unset: never"
    )
    grid: Duration = Field(
        timedelta(days=1), gt=timedelta(0), description="step of the time grid; 1s for live feeds"
    )
    lateness: Duration = Field(
        timedelta(0), ge=timedelta(0), description="how far behind the newest a tick may be"
    )
    max_stale: int = Field(5, ge=0, description="grid steps a silent series keeps its last price")
    window: PositiveInt = Field(
        360, description="length of a causal window, in multiples of the grid step"
    )
    every: PositiveInt = Field(30, description="distance between causal windows, likewise")
    lags: PositiveInt = Field(3, description="how many grid steps back causes are looked for")
    level: float = Field(0.05, gt=0, lt=1, description="false discovery rate of links")
    coverage: float = Field(0.8, gt=0, le=1, description="share of a window a series must cover")
    robust: bool = Field(True, description="heteroskedasticity-robust (HC3) Granger tests")
    out: Path | None = Field(
        None, description="directory for results; unset: runs/market/<time> (needed with -r)"
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_the_source(cls, values: dict[str, object]) -> dict[str, object]:
        """Let a path mean the source `file`, and live feeds have a grid of one second."""
        if values.get("path") and "source" not in values:
            values = {**values, "source": "file"}
        if values.get("source") in LIVE and "grid" not in values:
            values = {**values, "grid": timedelta(seconds=1)}
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.source == "file" and not self.path:
            raise ValueError("MARKET_SOURCE=file needs MARKET_PATH")
        if self.path and self.source != "file":
            raise ValueError(f"MARKET_PATH is for MARKET_SOURCE=file, not {self.source}")
        if self.source == "file" and self.series:
            raise ValueError("MARKET_SERIES is for replay and live feeds; files are read whole")
        if self.source in LIVE and not self.series:
            raise ValueError(f"MARKET_SOURCE={self.source} needs MARKET_SERIES, its symbols")
        if self.window % self.every:
            raise ValueError("MARKET_EVERY must divide MARKET_WINDOW")
        return self
