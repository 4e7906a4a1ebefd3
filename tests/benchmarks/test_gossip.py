"""The benchmark of gossip runs, and every peer gets every update once."""

import json

import pytest

from benchmarks import gossip
from benchmarks.gossip_group import Disagreement, Group, udp


def test_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--udp", "8", "--quic", "4", "--updates", "3", "--rate", "50", "--idle", "0.2"]
    monkeypatch.setattr("sys.argv", ["gossip", *arguments])
    gossip.main()
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["equal"]
    assert {name: group["peers"] for name, group in line["groups"].items()} == (
        {"udp": 8, "quic": 4}
    )
    for group in line["groups"].values():
        for spread in (group["alone"], group["stream"]):
            assert 0 < spread["p50"] <= spread["max"]
            assert spread["copies"] >= 0.75
        assert group["idle"]["messages"] > 0


def test_an_update_that_comes_twice_is_told() -> None:
    async def test() -> None:
        group = Group(udp(2), 0)
        member = group.members[0]
        await member.open()
        group._has(member, ("p0#1", 1))
        with pytest.raises(Disagreement, match=r"p0 got \('p0#1', 1\) twice"):
            group._has(member, ("p0#1", 1))
        await member.stop()

    gossip.uvloop.run(test())
