"""The sources of prices keep the contract that any source is held to."""

from pathlib import Path

from connectors.market import PriceFileSource, ReplaySource
from connectors.testing import check_source
from state.schemas import TICKS


def test_replay() -> None:
    check_source(lambda: ReplaySource(["VIX"], batch_rows=100), schema=TICKS)


def test_price_files(tmp_path: Path) -> None:
    days = range(1, 31)
    rows = ["time,a,b", *(f"2020-01-{d:02d},{d}.5,{d if d % 3 else ''}" for d in days)]
    (tmp_path / "wide.csv").write_text("\n".join([*rows, "not a day,1,2"]) + "\n")

    def source() -> PriceFileSource:
        bad = tmp_path / "bad.ndjson"
        return PriceFileSource(tmp_path / "wide.csv", dead_letters=bad, batch_rows=7)

    check_source(source, schema=TICKS)
