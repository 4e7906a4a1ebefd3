"""Recordings: how they are read and generated, and that all libraries end alike on them."""

from __future__ import annotations

import gzip
import json

import pytest

from benchmarks import sequence
from benchmarks.sequence import Step, generate, load, plain, read, replay, schedule
from benchmarks.sequence_rivals import Loro, Ours, Pycrdt


def test_replacing_a_text_is_two_operations():
    recording = schedule("x", [{"patches": [[0, 0, "ab"]]}, {"patches": [[1, 1, "ż"]]}], "a?")
    assert recording.steps == (
        Step(0, (), 0, 0, "ab"),
        Step(0, (), 1, 1, ""),
        Step(0, (), 1, 0, "?"),
    )
    assert not recording.concurrent


def test_agents_take_in_what_the_parents_say_they_had_seen():
    transactions = [
        {"agent": 0, "parents": [], "patches": [[0, 0, "a"]]},
        {"agent": 0, "parents": [0], "patches": [[1, 0, "b"]]},
        {"agent": 1, "parents": [0], "patches": [[1, 0, "c"]]},
        {"agent": 1, "parents": [1, 2], "patches": [[0, 1, "d"]]},
    ]
    steps = schedule("x", transactions, None).steps
    assert [step.pulls for step in steps] == [(), (), ((0, 0, 1),), ((0, 1, 2),), ()]
    with pytest.raises(ValueError, match="transaction 2 forgets"):
        schedule("x", [*transactions[:2], {"agent": 0, "parents": [0], "patches": []}], None)


def test_a_recording_is_read_with_what_it_starts_from(tmp_path):
    path = tmp_path / "small.json.gz"
    document = {"startContent": "é", "endContent": "éa", "txns": [{"patches": [[1, 0, "a"]]}]}
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    recording = read(path)
    assert (recording.name, recording.end) == ("small", "?a")
    assert [replica.text() for replica in replay(recording, Ours)] == ["?a", "?a"]


def test_only_ascii_stays():
    assert plain("aż🦥\n") == "a??\n"


@pytest.mark.parametrize("agents", [1, 2, 3])
def test_all_libraries_replay_a_generated_session(agents):
    recording = generate(agents, 600, seed=agents)
    assert recording.agents == agents
    assert recording.concurrent == (agents > 1)
    for make in (Ours, Loro, Pycrdt):
        replicas = replay(recording, make)
        texts = {replica.text() for replica in replicas}
        assert len(texts) == 1
        assert load(make, replicas[0].save()) in texts
        if agents < 3 and make is not Pycrdt:
            assert texts == {recording.end}


def test_the_benchmark_ends_with_one_json_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sequence", "--edits", "300", "--rounds", "1"])
    sequence.main()
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["equal"]
    assert [line for line in lines if line.startswith("{")] == lines[-1:]
