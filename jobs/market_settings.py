"""Settings of `jobs.market`, in a module that imports fast."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from jobs.peer_settings import Transport, check_bootstrap, check_name
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
    gossip_name: str | None = Field(
        None,
        description="this monitor's name, as in its certificate: it shares alerts with other "
        "monitors, with no centre",
    )
    gossip_listen: str | None = Field(None, description="host:port to listen on for monitors")
    gossip_advertise: str | None = Field(
        None, description="host:port where others reach this monitor, if that is another one"
    )
    gossip_bootstrap: Names = Field(
        [], description="other monitors as name@host:port, one or more; none for the first"
    )
    gossip_keys: Path | None = Field(
        None, description="directory of certificates, made by `python -m jobs keys`"
    )
    gossip_transport: Transport = Field(
        "quic",
        description="quic (mutual TLS), or udp (nothing is checked: for one machine or one "
        "trusted network)",
    )
    gossip_monitors: Names = Field(
        [],
        description="names of all monitors: each ends when all feeds have ended and all have the "
        "same alerts",
    )
    gossip_stay: Duration = Field(
        timedelta(minutes=1),
        ge=timedelta(0),
        description="how long a monitor stays for the others after its own feed has ended, at most",
    )
    gossip_round: Duration = Field(
        timedelta(milliseconds=200),
        gt=timedelta(0),
        description="between two rounds of gossip; the same for all monitors",
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
        if self.source not in LIVE:
            self._refuse(("url", "limit"), f"live feeds, not MARKET_SOURCE={self.source}")
        if self.source not in ("replay", "file"):
            self._refuse(("speed",), f"replay and files, not MARKET_SOURCE={self.source}")
        if self.window % self.every:
            raise ValueError("MARKET_EVERY must divide MARKET_WINDOW")
        self._agree_on_gossip()
        return self

    def _agree_on_gossip(self) -> None:
        for field in ("listen", "advertise", "bootstrap", "keys", "monitors"):
            given = getattr(self, f"gossip_{field}") not in (None, [])
            if given and self.gossip_name is None:
                raise ValueError(f"MARKET_GOSSIP_{field.upper()} needs MARKET_GOSSIP_NAME")
        if self.gossip_name is None:
            unused = ("gossip_transport", "gossip_stay", "gossip_round")
            self._refuse(unused, "a monitor that MARKET_GOSSIP_NAME names")
            return
        check_name("MARKET_GOSSIP_NAME", self.gossip_name)
        check_bootstrap("MARKET_GOSSIP_BOOTSTRAP", self.gossip_bootstrap)
        if self.gossip_listen is None:
            raise ValueError("MARKET_GOSSIP_NAME needs MARKET_GOSSIP_LISTEN")
        if self.gossip_transport == "quic" and self.gossip_keys is None:
            raise ValueError(
                "MARKET_GOSSIP_NAME needs MARKET_GOSSIP_KEYS, or MARKET_GOSSIP_TRANSPORT=udp"
            )
        if self.gossip_monitors and self.gossip_name not in self.gossip_monitors:
            raise ValueError(f"MARKET_GOSSIP_MONITORS does not name {self.gossip_name} itself")
