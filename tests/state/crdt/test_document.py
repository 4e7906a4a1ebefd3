"""Documents: one root, one feed, and replicas that end equal whatever happens to their deltas."""

from __future__ import annotations

import itertools
import random

import pytest

from state.crdt import Crdt, Document, DocumentChange, Stamp, VersionVector


def put(key, value, stamp):
    return lambda part: part.put(key, value, stamp)


def test_a_name_used_with_two_kinds_is_an_error_and_resolved_between_replicas():
    ann, bob = Document("ann"), Document("bob")
    one, _ = ann.edit("x", "pn-counter", lambda x: x.increment("ann", 3))
    with pytest.raises(ValueError, match="'x' is a pn-counter, not a or-set"):
        ann.edit("x", "or-set", lambda x: x.add(1, "ann"))
    other, _ = bob.edit("x", "lww-map", put("k", 1, Stamp(1, 0, "bob")))
    assert ann.follow(other) == [DocumentChange("x", (), 3, {"k": 1})]
    assert bob.follow(one) == []
    assert ann == bob
    assert ann.value == {"x": {"k": 1}}
    assert ann.conflicts() == {"x": ["lww-map", "pn-counter"]}


def test_an_empty_set_keeps_its_context():
    ann, bob = Document("ann"), Document("bob")
    added, _ = ann.edit("s", "or-set", lambda s: s.add("x", "ann"))
    removed, _ = ann.edit("s", "or-set", lambda s: s.remove("x"))
    for delta in (added, removed, added):
        bob.follow(delta)
        ann.follow(delta)
    assert ann.value == bob.value == {"s": set()}


def test_a_delta_carries_only_what_changed():
    document = Document("ann")
    for k in range(500):
        document.edit(f"m{k}", "lww-map", put(k, "v" * 50, Stamp(1, 0, "ann")))
    delta, _ = document.edit("m3", "lww-map", put("new", 1, Stamp(2, 0, "ann")))
    assert len(delta.to_bytes()) < 120
    assert delta.value == {"m3": {"new": 1}}


def test_what_was_done_before_an_error_comes_with_the_next_delta():
    ann, bob = Document("ann"), Document("bob")

    def fail(part):
        part.increment("ann")
        part.increment("ann", -1)

    with pytest.raises(ValueError):
        ann.edit("n", "g-counter", fail)
    delta, changes = ann.edit("t", "list", lambda t: t.insert(0, [1, "x"]))
    assert [change.name for change in changes] == ["n", "t"]
    assert bob.apply(delta.to_bytes()) == changes
    assert bob == ann


def test_a_paste_beyond_what_may_wait_is_sent_with_what_it_builds_on():
    ann, bob = Document("ann"), Document("bob")
    bob.follow(ann.edit("t", "text", lambda t: t.insert(0, "ab"))[0])
    delta, changes = ann.edit("t", "text", lambda t: t.insert(1, "x" * (1 << 20) + "y"))
    assert bob.apply(delta.to_bytes()) == changes
    assert bob == ann


def test_nested_changes_have_long_paths():
    ann = Document("ann")
    _, changes = ann.edit("m", "or-map", lambda m: m.map("a").map("b").set("c").add(7, "ann"))
    assert changes == [DocumentChange("m", ("a", "b", "c", 7), False, True)]
    _, changes = ann.edit("m", "or-map", lambda m: m.remove("a"))
    assert changes == [DocumentChange("m", ("a", "b", "c", 7), True, False)]


def edit(document: Document, rng: random.Random, now: int):
    me = document.replica or ""
    stamp = Stamp(now, 0, me)
    key = rng.randint(0, 2)

    def write(part):
        if len(part) > 3 and rng.random() < 0.5:
            part.delete(rng.randrange(len(part)), 1)
        part.insert(rng.randint(0, len(part)), rng.choice("abc"))

    name, kind, change = rng.choice(
        [
            ("g", "g-counter", lambda p: p.increment(me)),
            ("p", "pn-counter", lambda p: p.decrement(me, 2)),
            ("r", "lww-register", lambda p: p.assign(now, stamp)),
            ("v", "mv-register", lambda p: p.assign(now, me)),
            ("l", "lww-map", lambda p: p.put(key, now, stamp)),
            ("l", "lww-map", lambda p: p.remove(key, stamp)),
            ("e", "lww-element-set", lambda p: p.add(key, stamp)),
            ("s", "or-set", lambda p: p.add(key, me)),
            ("s", "or-set", lambda p: p.remove(key)),
            ("m", "or-map", lambda p: p.map(key).counter("n").increment(me)),
            ("m", "or-map", lambda p: p.remove(key)),
            ("t", "text", write),
            ("t", "text", write),
        ]
    )
    return document.edit(name, kind, change)


@pytest.mark.parametrize("seed", range(15))
def test_deltas_that_are_lost_late_and_doubled_end_in_equal_documents(seed):
    rng = random.Random(seed)
    documents = [Document(name) for name in ("ann", "bob", "eve")]
    mirrors: list[dict] = [{}, {}, {}]
    sent: list[Document] = []
    for now in range(60):
        at = rng.randrange(3)
        delta, changes = edit(documents[at], rng, now + rng.randint(-5, 5) + 10)
        mirror(mirrors[at], changes)
        sent.append(delta)
        to = rng.randrange(3)
        mirror(mirrors[to], documents[to].apply(rng.choice(sent).to_bytes()))
    for one, other in itertools.permutations(range(3), 2):
        versions = documents[other].versions()
        mirror(mirrors[other], documents[other].follow(documents[one].delta_since(versions)))
    for at, document in enumerate(documents):
        mirror(mirrors[at], document.follow(documents[2]))
        assert document == documents[0], seed
        text = document.value.get("t", "")
        assert mirrors[at].get("t", "") == text
        for name, part in document.value.items():
            if name in "gpr":
                assert mirrors[at][name, ()] == part
            elif name in "se":
                members = {k[1][0] for k, on in mirrors[at].items() if k[0] == name and on}
                assert members == part
            elif name == "l":
                rows = {k[1][0]: v for k, v in mirrors[at].items() if k[0] == "l"}
                assert {k: v for k, v in rows.items() if v is not None} == part
    assert Document.from_bytes(documents[0].to_bytes()) == documents[0]


def mirror(copy: dict, changes: list[DocumentChange]) -> None:
    """Keep a copy that knows nothing but the feed, and check that the feed fits it."""
    for name, path, old, new in changes:
        if name == "t":
            text = copy.get("t", "")
            assert path[0] + old <= len(text)
            copy["t"] = text[: path[0]] + "".join(new) + text[path[0] + old :]
            continue
        if (name, path) in copy:
            assert copy[name, path] == old
        copy[name, path] = new


def test_compaction_by_name():
    ann = Document("ann")
    ann.edit("l", "lww-map", lambda m: m.remove("k", Stamp(1, 0, "ann")))
    ann.edit("t", "text", lambda t: t.insert(0, "abc"))
    size = len(ann.to_bytes())
    ann.compact({"l": Stamp(2, 0, "ann"), "t": VersionVector({"ann": 3})})
    assert ann.value == {"l": {}, "t": "abc"}
    assert len(ann.to_bytes()) <= size + 10
    with pytest.raises(ValueError, match="cannot be compacted"):
        ann.compact({"l": VersionVector()})


def test_it_is_a_crdt():
    assert isinstance(Document(), Crdt)
    with pytest.raises(ValueError, match="is no kind"):
        Document().edit("x", "rga", lambda x: None)
