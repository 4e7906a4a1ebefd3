import json
import subprocess

import pytest

from benchmarks import lossy_loopback

MODULE = "tests.benchmarks.udp_to_itself"


def run(module: str, loss: float) -> str:
    try:
        return lossy_loopback.run(module, [], loss=loss, patience=60)
    except lossy_loopback.CannotLose as error:
        pytest.skip(f"`make nftables` as root lets it run: {error}")


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.3])
def test_the_kernel_loses_what_it_is_told_to(loss):
    told = json.loads(run(MODULE, loss))
    assert told["lost"] == pytest.approx(told["counted"])
    assert told["lost"] == pytest.approx(loss, abs=0.06)  # four standard errors of a thousand


def test_a_module_that_fails_is_not_taken_for_a_kernel_that_cannot():
    with pytest.raises(subprocess.CalledProcessError):
        run("tests.benchmarks.nothing_there", 0.0)


def test_a_missing_program_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(lossy_loopback.CannotLose, match="unshare"):
        lossy_loopback.run(MODULE, [], loss=0.1, patience=9)
