"""Bytes of format version 1, which every later version must load; and what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import state.crdt
from state.crdt import Document, Sequence, Stamp

GOLDEN = Path(__file__).parent / "golden_v1.json"


def states() -> dict[str, Any]:
    """One state of each type, with all its parts in use."""
    document = Document("ann#1")
    stamp = Stamp(1_700_000_000_000, 3, "ann#1")
    for name, kind, change in [
        ("g", "g-counter", lambda p: (p.increment("ann#1", 2), p.increment("bob#2", 300))),
        ("p", "pn-counter", lambda p: (p.increment("ann#1", 1 << 65), p.decrement("bob#2"))),
        ("r", "lww-register", lambda p: p.assign({"a": [1, 1.5, None]}, stamp)),
        ("v", "mv-register", lambda p: p.assign("x", "ann#1")),
        ("l", "lww-map", lambda p: (p.put(1, "one", stamp), p.remove("two", stamp))),
        ("e", "lww-element-set", lambda p: (p.add(True, stamp), p.remove(("t", 1), stamp))),
        ("s", "or-set", lambda p: (p.add("x", "ann#1"), p.add("y", "ann#1"), p.remove("x"))),
        ("m", "or-map", lambda p: p.map("k").counter("n").decrement("ann#1", 7)),
        ("m", "or-map", lambda p: p.latest("w").assign(b"\0", stamp)),
    ]:
        document.edit(name, kind, change)
    document.read("g").compact(document.read("g").version & state.crdt.VersionVector({"ann#1": 2}))
    found = {document.kind_of(name): document.read(name) for name in "gprvlesm"}
    return {**found, "document": document, "text": text(), "list": numbers()}


def text() -> Sequence:
    """Two writers' text with a deletion, a compacted beginning, and an operation that waits."""
    ann, bob = Sequence("ann#1"), Sequence("bob#2")
    for delta in (ann.insert(0, "Hello wörld 🌍"), ann.delete(4, 2), ann.insert(4, ", ")):
        bob.apply(delta)
    ann.apply(bob.insert(6, "dear "))
    ann.compact(ann.version)
    lost, late = bob.insert(0, ">"), bob.insert(1, " ")
    assert lost != late
    ann.apply(late)
    return ann


def numbers() -> Sequence:
    """A list of plain values."""
    ann = Sequence("ann#1", kind="list")
    ann.insert(0, [1, None, {"a": [2.5, b"x"]}, "t"])
    ann.delete(1, 1)
    return ann


@pytest.mark.parametrize("kind", sorted(states()))
def test_bytes_are_as_they_were(kind):
    golden = bytes.fromhex(json.loads(GOLDEN.read_text())[kind])
    expected = states()[kind]
    loaded = type(expected).from_bytes(golden)
    assert loaded.value == expected.value
    assert loaded.to_bytes() == golden == expected.to_bytes()
