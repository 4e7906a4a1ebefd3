"""Telemetry settings: what a role needs and may not have, and shares."""

from pathlib import Path

import pytest

from jobs.settings import SettingsError
from jobs.telemetry_run import about
from jobs.telemetry_settings import Slice, TelemetrySettings

LEAF = {
    "role": "leaf",
    "name": "leaf-1",
    "parent": "127.0.0.1:4433",
    "parent_name": "root",
    "keys": "keys",
    "spool": "spool",
}
ROOT = {"role": "root", "name": "root", "listen": "[::1]:4433", "children": "a,b", "keys": "keys"}


@pytest.fixture(autouse=True)
def _in_an_empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAIDFLOW_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"role": "twig"}, "TELEMETRY_ROLE=twig"),
        ({"source": "file"}, "TELEMETRY_SOURCE=file needs TELEMETRY_PATH"),
        ({"source": "host", "path": "a.csv"}, "TELEMETRY_PATH is for TELEMETRY_SOURCE=file"),
        ({"listen": "127.0.0.1:1"}, "TELEMETRY_LISTEN is not for TELEMETRY_ROLE=local"),
        ({"slice": "1/2"}, "TELEMETRY_SLICE is for a leaf"),
        ({"fan_in": 1}, "TELEMETRY_FAN_IN=1"),
        ({"recovery": "r"}, "TELEMETRY_RECOVERY needs TELEMETRY_OUT"),
        ({"source": "host", "rate": 5}, "TELEMETRY_RATE is for TELEMETRY_SOURCE=generated, not"),
        ({"path": "a.csv", "agents": 9}, "TELEMETRY_AGENTS is for TELEMETRY_SOURCE=generated"),
        ({"limit": 5}, "TELEMETRY_LIMIT is for TELEMETRY_SOURCE=host, not generated"),
        ({"source": "host", "exact": True}, "host cannot be read again"),
        ({**LEAF, "parent": None}, "TELEMETRY_ROLE=leaf needs TELEMETRY_PARENT"),
        ({**LEAF, "parent": "root"}, "TELEMETRY_PARENT=root: write host:port"),
        ({**LEAF, "parent": "root:70000"}, "write host:port"),
        ({**LEAF, "children": "a"}, "TELEMETRY_CHILDREN is not for TELEMETRY_ROLE=leaf"),
        ({**LEAF, "slice": "3-9"}, "TELEMETRY_SLICE=3-9: write i/n"),
        ({**LEAF, "slice": "0/9"}, "with i from 1 to n"),
        ({**LEAF, "slice": "10/9"}, "with i from 1 to n"),
        ({**LEAF, "exact": True}, "a leaf gives no answers"),
        ({**ROOT, "children": "a,b,a"}, "TELEMETRY_CHILDREN has a name twice"),
        ({**ROOT, "children": ""}, "TELEMETRY_ROLE=root needs TELEMETRY_CHILDREN"),
        ({**ROOT, "exact": True}, "children cannot be read again"),
        ({"source": "children"}, "TELEMETRY_SOURCE=children is not for TELEMETRY_ROLE=local"),
        ({**ROOT, "spool": "s"}, "TELEMETRY_SPOOL is not for TELEMETRY_ROLE=root"),
        ({**LEAF, "role": "region"}, "TELEMETRY_ROLE=region needs TELEMETRY_LISTEN"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        TelemetrySettings.load(**given)
    assert message in str(error.value)


def test_a_path_means_a_file() -> None:
    assert TelemetrySettings.load(path="a.csv, b.parquet").source == "file"


def test_a_root_has_its_events_from_its_children() -> None:
    settings = TelemetrySettings.load(**ROOT)
    assert settings.source == "children"
    assert about(settings.model_dump(mode="json")) == "what a, b told"


def test_a_share_counts_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**LEAF, "slice": "3/9"}.items():
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
    found = TelemetrySettings.load().slice
    assert found == Slice(share=2, of=9)
    assert str(found) == "3/9"


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, True),
        ({"exact": False}, False),
        ({"source": "host"}, False),
        ({"path": "a.csv"}, True),
        (ROOT, False),
        ({**ROOT, "source": "generated", "exact": True}, True),
    ],
)
def test_the_truth_is_shown_where_one_process_has_all_events(
    given: dict[str, object], known: bool
) -> None:
    assert TelemetrySettings.load(**given).knows_the_truth is known
