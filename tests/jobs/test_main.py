"""`python -m jobs`: what there is, with its settings, and its graph."""

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from jobs.__main__ import JOBS, main
from jobs.market_settings import MarketSettings
from jobs.settings import Duration, JobSettings
from jobs.telemetry_settings import TelemetrySettings


def test_the_list_names_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said and command in said for name, (command, _) in JOBS.items())


@pytest.mark.parametrize("settings", [MarketSettings, TelemetrySettings])
def test_a_job_is_described_with_all_its_settings(
    settings: type[JobSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", settings.job]) == 0
    said = capsys.readouterr().out
    for name, field in settings.model_fields.items():
        assert f"{settings.prefix()}{name.upper()} " in said
        assert field.description
        assert field.description in said
        default = field.get_default(call_default_factory=True)
        if isinstance(default, timedelta):
            (shown,) = re.findall(rf"{re.escape(field.description)} \(default (.*)\)", said)
            assert TypeAdapter(Duration).validate_python(shown) == default
    starts = {len(m[0]) for m in re.finditer(rf"^  {settings.prefix()}\S+ +", said, re.MULTILINE)}
    assert len(starts) == 1, "descriptions are one below the other"


@pytest.mark.parametrize(
    ("job", "step"), [("market", "causal (causal_graph)"), ("telemetry", "tree (tree_merge)")]
)
def test_the_graph_is_drawn_and_nothing_is_run(
    job: str,
    step: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["show", job]) == 0
    said = capsys.readouterr().out
    assert said.startswith("flowchart TD")
    assert step in said
    assert not list(tmp_path.iterdir())


def test_a_report_needs_a_run(capsys: pytest.CaptureFixture[str], tmp_path_factory) -> None:
    assert main(["report", str(tmp_path_factory.mktemp("empty"))]) == 1
    assert capsys.readouterr().err.startswith("report: ")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from jobs.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'bytewax', 'pyarrow', 'numpy', 'pydantic', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
