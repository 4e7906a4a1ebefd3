"""Recordings of real typing, sequential and concurrent, end with the text that was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sequence import read, replay
from benchmarks.sequence_rivals import Ours, Pycrdt
from state.crdt.sequence import Sequence

TRACES = Path(__file__).resolve().parents[4] / "shared" / "data" / "editing-traces"

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no recordings in {TRACES}")


@pytest.fixture(scope="module", params=["sveltecomponent", "friendsforever"])
def recording(request):
    return read(TRACES / f"{request.param}.json.gz")


@pytest.fixture(scope="module")
def replicas(recording):
    return replay(recording, Ours)


def test_every_replica_ends_with_the_recorded_text(recording, replicas):
    assert len(recording.steps) > 20_000
    assert [replica.text() for replica in replicas] == [recording.end] * len(replicas)
    assert len({replica.save() for replica in replicas}) == 1


def test_saved_states_are_smaller_than_those_of_pycrdt(recording, replicas):
    data = replicas[0].save()
    assert len(data) < len(replay(recording, Pycrdt)[0].save())
    again = Sequence.from_bytes(data)
    assert again.text() == recording.end
    assert again.to_bytes() == data


def test_compaction_at_the_end_leaves_the_text_and_few_tombstones(recording, replicas):
    sequence = Sequence.from_bytes(replicas[0].save())
    sequence.compact(sequence.version)
    data = sequence.to_bytes()
    assert sequence.text() == recording.end
    assert len(data) < len(replicas[0].save())
    assert Sequence.from_bytes(data).to_bytes() == data


def test_edits_reported_along_the_way_write_the_recorded_text(recording):
    """One replica edits; the other keeps a `str` by the edits that it is told of."""
    if recording.concurrent:
        pytest.skip("has more than one writer")
    writer, reader, shown = Sequence("writer"), Sequence(), ""
    for step in recording.steps[:4000]:
        delta = (
            writer.delete(step.index, step.deleted)
            if step.deleted
            else writer.insert(step.index, step.text)
        )
        for edit in reader.follow(delta):
            assert isinstance(edit.inserted, str)
            shown = shown[: edit.index] + edit.inserted + shown[edit.index + edit.deleted :]
    assert shown == reader.text() == writer.text()
