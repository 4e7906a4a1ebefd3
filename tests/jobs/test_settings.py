"""Settings: where they come from, and what a person is told when one is wrong."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from jobs.market_settings import MarketSettings
from jobs.settings import SettingsError, new_directory, resume_finished


@pytest.fixture(autouse=True)
def _in_an_empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIDFLOW_CONFIG", raising=False)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_LAGS", "5")
    monkeypatch.setenv("MARKET_SERIES", "S&P 500, WTI")
    monkeypatch.setenv("MARKET_GRID", "90s")
    settings = MarketSettings.load()
    assert settings.lags == 5
    assert settings.series == ["S&P 500", "WTI"]
    assert settings.grid == timedelta(seconds=90)


def test_the_environment_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("braidflow.toml").write_text('[market]\nlags = 4\nseries = ["WTI"]\n')
    monkeypatch.setenv("MARKET_LAGS", "5")
    settings = MarketSettings.load()
    assert (settings.lags, settings.series) == (5, ["WTI"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MARKET_LAG", "3", "unknown setting MARKET_LAG; did you mean MARKET_LAGS?"),
        ("MARKET_QQQQQQ", "3", "known are MARKET_"),
        ("MARKET_LAGS", "three", "MARKET_LAGS=three"),
        ("MARKET_LAGS", "0", "greater than 0"),
        ("MARKET_GRID", "-1s", "MARKET_GRID"),
        ("MARKET_SOURCE", "file", "needs MARKET_PATH"),
        ("MARKET_SOURCE", "kraken", "needs MARKET_SERIES"),
        ("MARKET_EVERY", "7", "MARKET_EVERY must divide MARKET_WINDOW"),
    ],
)
def test_a_wrong_setting_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        MarketSettings.load()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[market]\nlag = 4\n", "did you mean MARKET_LAGS?"),
        ("[market\n", "braidflow.toml"),
        ("market = 3\n", "must be a table"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str) -> None:
    Path("braidflow.toml").write_text(text)
    with pytest.raises(SettingsError) as error:
        MarketSettings.load()
    assert message in str(error.value)


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAIDFLOW_CONFIG", "missing.toml")
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        MarketSettings.load()


def test_a_path_means_a_file_and_a_live_feed_has_a_grid_of_seconds() -> None:
    assert MarketSettings.load(path=["prices.csv"]).source == "file"
    live = MarketSettings.load(source="kraken", series=["BTC/USD"])
    assert live.grid == timedelta(seconds=1)


@pytest.mark.parametrize("option", ["-r", "--recovery-directory", "--recovery-directory=kept"])
def test_a_resumed_run_is_told_where_its_files_are(
    option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run", "jobs.gossip"])
    assert new_directory("gossip").parent == Path("runs/gossip")
    monkeypatch.setattr("sys.argv", ["run", "jobs.gossip", option])
    with pytest.raises(SettingsError, match="-r needs GOSSIP_OUT: a resumed run must find"):
        new_directory("gossip")
    monkeypatch.setattr("sys.argv", ["run"])
    monkeypatch.setenv("BYTEWAX_RECOVERY_DIRECTORY", "kept")
    with pytest.raises(SettingsError, match="-r needs MARKET_OUT"):
        new_directory("market")


@pytest.mark.parametrize("given", [["-r", "kept"], ["-rkept"], ["--recovery-directory=kept"], []])
def test_a_resumed_run_goes_on_from_finished_epochs_only(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    init_db_dir(kept, 1)
    file = kept / "part-0.sqlite3"
    with closing(sqlite3.connect(file)) as store, store:
        store.execute("INSERT INTO exs VALUES ('', 0, 1, 7)")
        store.executemany("INSERT INTO snaps VALUES ('', 'step', 'key', ?, NULL)", [(6,), (7,)])
    monkeypatch.setattr("sys.argv", ["run", "jobs.gossip", "-s", "1", *given])
    if not given:
        resume_finished()
        monkeypatch.setenv("BYTEWAX_RECOVERY_DIRECTORY", "kept")
    resume_finished()
    with closing(sqlite3.connect(file)) as store:
        assert store.execute("SELECT snap_epoch FROM snaps").fetchall() == [(6,)]
    file.write_bytes(b"no store" * 100)
    with pytest.raises(ValueError, match="kept: file is not a database"):
        resume_finished()
