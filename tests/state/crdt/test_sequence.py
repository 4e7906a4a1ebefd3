"""What a user of a sequence relies on: edits, deltas, errors, bytes and following along."""

from __future__ import annotations

import itertools
import random

import pycrdt
import pytest

from state.crdt.causal import VersionVector
from state.crdt.sequence import Edit, PendingOverflow, Sequence
from state.mergeable import Mergeable


def pair(base: str = "") -> tuple[Sequence, Sequence]:
    ann, bob = Sequence("ann"), Sequence("bob")
    if base:
        bob.apply(ann.insert(0, base))
    return ann, bob


def follow(shown: str, edits: list[Edit]) -> str:
    for edit in edits:
        end = edit.index + edit.deleted
        assert end <= len(shown)
        shown = shown[: edit.index] + edit.inserted + shown[end:]
    return shown


def test_it_is_a_mergeable_state():
    assert isinstance(Sequence(), Mergeable)


def test_code_points_are_counted():
    ann, bob = pair("a🦥é")
    assert len(ann) == 3
    bob.apply(ann.delete(1, 1))
    bob.apply(ann.insert(1, "ß漢"))
    assert bob.text() == ann.text() == "aß漢é"


def test_a_text_edited_like_pycrdt_is_the_same_text():
    rng = random.Random(5)
    sequence, document = Sequence("a"), pycrdt.Doc()
    theirs = document.get("t", type=pycrdt.Text)
    for _ in range(400):
        text = sequence.text()
        index = rng.randint(0, len(text))
        start = len(text[:index].encode())  # pycrdt counts bytes of UTF-8
        if rng.random() < 0.4:
            count = rng.randint(0, min(5, len(text) - index))
            sequence.delete(index, count)
            del theirs[start : start + len(text[index : index + count].encode())]
        else:
            new = rng.choice(["x", "wörter", "🦥", "\n", "漢字"])
            sequence.insert(index, new)
            theirs.insert(start, new)
        assert sequence.text() == str(theirs)


def test_indices_out_of_range_change_nothing():
    ann, _ = pair("abc")
    before = ann.to_bytes()
    for index in (-1, 4):
        with pytest.raises(IndexError, match="index"):
            ann.insert(index, "x")
    for index, count in ((-1, 1), (0, 4), (3, 1), (4, 0), (1, -1)):
        with pytest.raises(IndexError, match="elements from"):
            ann.delete(index, count)
    assert ann.to_bytes() == before


def test_what_is_not_text_is_refused():
    ann, _ = pair("abc")
    before = ann.to_bytes()
    with pytest.raises(TypeError, match="str"):
        ann.insert(0, ["x"])
    with pytest.raises(ValueError, match="surrogates"):
        ann.insert(0, "\ud800")
    assert ann.to_bytes() == before


def test_editing_needs_a_replica():
    with pytest.raises(ValueError, match="replica"):
        Sequence().insert(0, "x")
    for name in ("", "x" * 256):
        with pytest.raises(ValueError, match="name"):
            Sequence(name)


def test_a_replica_that_lost_operations_must_not_write():
    ann, bob = pair("abc")
    first, second = ann.insert(0, "1"), ann.insert(0, "2")
    again = Sequence.from_bytes(bob.to_bytes())
    again.replica = "ann"
    again.apply(second)
    with pytest.raises(ValueError, match="new id"):
        again.insert(0, "x")
    again.apply(first)
    bob.apply(again.insert(0, "3"))
    bob.apply(first)
    bob.apply(second)
    assert bob.text() == again.text() == "321abc"


def test_empty_edits_are_deltas_that_change_nothing():
    ann, bob = pair("abc")
    before = bob.to_bytes()
    bob.apply(ann.insert(1, ""))
    bob.apply(ann.delete(1, 0))
    assert bob.to_bytes() == before == ann.to_bytes()


def test_a_list_holds_plain_values_and_not_the_callers_objects():
    ann, bob = Sequence("ann", kind="list"), Sequence("bob", kind="list")
    mine = {"k": [1]}
    bob.apply(ann.insert(0, [1, "two", None, mine]))
    mine["k"].append(2)
    bob.apply(ann.insert(4, [True, 2.5, b"x"]))
    ann.apply(bob.delete(1, 1))
    assert ann.value == bob.value
    assert [str(v) for v in ann.value][:2] == ["1", "None"]
    assert ann.value[-3:] == [True, 2.5, b"x"]
    assert "2" not in str(ann.value[2])
    with pytest.raises(ValueError, match="no text"):
        ann.text()
    assert Sequence.from_bytes(ann.to_bytes()).value == ann.value


def test_text_and_list_do_not_mix():
    text, values = Sequence("a"), Sequence("b", kind="list")
    with pytest.raises(ValueError, match="list"):
        text.merge(values)
    with pytest.raises(ValueError, match="list"):
        values.apply(text.insert(0, "x"))
    with pytest.raises(ValueError, match="text"):
        values.apply(text.to_bytes())
    with pytest.raises(ValueError, match="neither"):
        Sequence(kind="map")  # type: ignore[arg-type]


def test_deltas_may_come_twice_and_in_any_order():
    ann, bob = pair()
    deltas = [ann.insert(0, "hello"), ann.insert(5, " world"), ann.delete(0, 1), ann.insert(0, "H")]
    for delta in [*reversed(deltas), *deltas]:
        bob.apply(delta)
    assert bob.text() == "Hello world"
    assert bob.pending == 0
    assert bob.to_bytes() == ann.to_bytes()


def test_what_waits_is_seen_and_travels():
    ann, bob = pair()
    first, second, third = ann.insert(0, "abc"), ann.delete(1, 1), ann.insert(2, "de")
    bob.apply(third)
    bob.apply(second)
    assert (bob.text(), bob.pending, len(bob)) == ("", 3, 0)
    carol = Sequence.from_bytes(bob.to_bytes())
    assert carol.pending == 3
    assert carol.to_bytes() == bob.to_bytes()
    carol.apply(first)
    assert (carol.text(), carol.pending) == ("acde", 0)
    assert carol.to_bytes() == ann.to_bytes()


def test_too_much_waiting_is_refused_and_repaired(monkeypatch):
    monkeypatch.setattr("state.crdt.sequence_operations.PENDING_LIMIT", 20)
    ann, bob = pair()
    ann.insert(0, "lost")
    for _ in range(6):
        bob.apply(ann.insert(0, "xy"))
    delta = ann.insert(0, "xyz")
    with pytest.raises(PendingOverflow):
        bob.apply(delta)
    assert bob.pending == 12
    bob.merge(ann)
    assert bob.pending == 0
    assert bob.to_bytes() == ann.to_bytes()


def test_delta_since_is_what_the_other_lacks():
    ann, bob = pair("shared text ")
    bob.insert(0, "b" * 3)
    ann.insert(12, "from ann")
    ann.delete(0, 7)
    ahead = ann.delta_since(bob.version)
    assert len(ahead) < len(ann.to_bytes())
    bob.apply(ahead)
    ann.apply(bob.delta_since(ann.version))
    assert ann.to_bytes() == bob.to_bytes()
    assert ann.text() == "bbbtext from ann"
    assert Sequence.from_bytes(ann.delta_since(ann.version)).version == VersionVector()


def test_versions_count_operations():
    ann, bob = pair("abc")
    assert ann.version == bob.version == VersionVector({"ann": 3})
    ann.apply(bob.delete(0, 2))
    assert ann.version == VersionVector({"ann": 3, "bob": 2})


def test_deleted_text_is_not_kept():
    ann, _ = pair("x" * 5000)
    ann.insert(2500, "secret")
    ann.delete(0, 5006)
    assert ann.text() == ""
    assert b"secret" not in ann.to_bytes()
    assert len(ann.to_bytes()) < 100


def test_bytes_do_not_depend_on_the_way_there():
    rng = random.Random(1)
    ann, bob = pair()
    deltas = []
    for _ in range(300):
        if len(ann) and rng.random() < 0.4:
            deltas.append(ann.delete(rng.randrange(len(ann)), 1))
        else:
            deltas.append(ann.insert(rng.randint(0, len(ann)), rng.choice(["a", "bc"])))
    for delta in deltas:
        bob.apply(delta)
    carol = Sequence()
    carol.apply(ann.to_bytes())
    dave = Sequence.from_bytes(ann.to_bytes())
    states = {s.to_bytes() for s in (ann, bob, carol, dave)}
    assert len(states) == 1


def test_bytes_do_not_depend_on_who_is_known_first():
    """What is known of deletions is written in one order, whoever's elements came first."""
    ann, zoe, bob = Sequence("ann"), Sequence("zoe"), Sequence("bob")
    bob.apply(ann.insert(0, "a"))
    bob.apply(zoe.insert(0, "z"))
    bob.delete(0, 2)
    deletions = bob.version["bob"]
    deltas = [
        bob.delta_since(VersionVector({"bob": deletions, known: 1})) for known in ("ann", "zoe")
    ]
    carol, dave = Sequence(), Sequence()
    for first, second in zip(deltas, reversed(deltas), strict=True):
        carol.apply(first)
        dave.apply(second)
    assert carol.to_bytes() == dave.to_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_edits_reported_keep_a_copy_equal(seed):
    rng = random.Random(seed)
    ann, bob = pair()
    shown = ""
    waiting: list[bytes] = []
    for _ in range(120):
        writer, other = (ann, bob) if rng.random() < 0.6 else (bob, ann)
        length = len(writer)
        if length > 5 and rng.random() < 0.4:
            index = rng.randrange(length - 4)
            count = rng.randint(1, 5)
            delta = writer.delete(index, count)
            if writer is bob:
                shown = shown[:index] + shown[index + count :]
        else:
            index, text = (
                rng.randint(0, length),
                "".join(rng.choices("abcdef", k=rng.randint(1, 4))),
            )
            delta = writer.insert(index, text)
            if writer is bob:
                shown = shown[:index] + text + shown[index:]
        if other is ann:
            ann.apply(delta)
        else:
            waiting.insert(rng.randint(0, len(waiting)), delta)
            if len(waiting) > 4:
                shown = follow(shown, bob.follow(waiting.pop()))
        assert shown == bob.text()
    shown = follow(shown, bob.follow(ann.to_bytes()))
    assert shown == bob.text() == ann.text()


def test_edits_of_a_run_are_one():
    ann, bob = pair("0123456789")
    assert bob.follow(ann.insert(5, "x" * 3000)) == [Edit(5, 0, "x" * 3000)]
    assert bob.follow(ann.delete(3, 3004)) == [Edit(3, 3004, "")]
    assert bob.follow(ann.to_bytes()) == []


def test_runs_have_one_form_however_they_are_cut():
    ann, bob = pair("0123456789")
    start, steps = ann.to_bytes(), [bob.to_bytes()]
    for index in (7, 6, 5, 4, 4, 4, 3, 2):
        bob.delete(index, 1)
        steps.append(bob.to_bytes())
    for index in range(1, 5):
        bob.insert(index, "x")
        steps.append(bob.to_bytes())
    rng = random.Random(3)
    for _ in range(60):
        parts = Sequence.from_bytes(start)
        cuts = sorted(rng.sample(range(1, len(steps) - 1), rng.randint(0, 4)))
        deltas = [
            Sequence.from_bytes(steps[end]).delta_since(Sequence.from_bytes(steps[first]).version)
            for first, end in itertools.pairwise([0, *cuts, len(steps) - 1])
        ]
        for delta in rng.sample(deltas, len(deltas)):
            parts.apply(delta)
        assert parts.to_bytes() == bob.to_bytes()


def test_what_waits_has_one_form_however_it_is_cut():
    ann, _ = pair("0123456789")
    start = Sequence.from_bytes(ann.to_bytes())
    missing = ann.delete(0, 1)
    version = ann.version
    singles, patches = [], []
    for index in (7, 6, 5, 4, 4, 3, 2):
        patches.append(ann.version)
        singles.append(ann.delete(index, 1))
    patches = [ann.delta_since(version) for version in patches]
    rng = random.Random(2)
    states = set()
    for count in range(8):
        late = Sequence.from_bytes(start.to_bytes())
        for delta in [*rng.sample(singles, count), patches[count % 7], *rng.sample(singles, 7)]:
            late.apply(delta)
        assert late.pending == 7
        states.add(late.to_bytes())
        late.apply(missing)
        assert late.to_bytes() == ann.to_bytes()
    assert states == {Sequence.from_bytes(patched(start, ann.delta_since(version))).to_bytes()}


def test_a_single_deletion_has_no_direction():
    ann, bob = pair("0123")
    first = ann.delete(3, 1)
    version = ann.version
    second = ann.delete(2, 1)
    assert patched(bob, second) == patched(bob, ann.delta_since(version))
    bob.apply(first)
    assert patched(bob, second) == patched(bob, ann.delta_since(version)) == ann.to_bytes()


def patched(start: Sequence, delta: bytes) -> bytes:
    late = Sequence.from_bytes(start.to_bytes())
    late.apply(delta)
    return late.to_bytes()


def half_known() -> tuple[list[bytes], bytes]:
    """Deltas of "ab" and of an unrelated "q"; a patch where "a" is deleted by what follows "q"."""
    ann, bob = pair()
    first = ann.insert(0, "ab")
    bob.apply(first)
    other = bob.insert(2, "q")
    version = bob.version
    bob.delete(0, 1)
    return [first, other], bob.delta_since(VersionVector({"bob": version["bob"]}))


def test_what_is_known_as_deleted_stays_so_before_its_deletion_is_applied():
    (first, other), patch = half_known()
    knowing, innocent = Sequence(), Sequence()
    knowing.apply(patch)
    innocent.apply(first)
    assert (knowing.text(), knowing.pending, innocent.text()) == ("b", 1, "ab")
    again = Sequence.from_bytes(knowing.to_bytes())
    assert again.to_bytes() == knowing.to_bytes()
    one, two = Sequence.from_bytes(innocent.to_bytes()), Sequence.from_bytes(again.to_bytes())
    assert one.follow(again.to_bytes()) == [Edit(0, 1, "")]
    two.apply(first)
    assert one.to_bytes() == two.to_bytes() == knowing.to_bytes()
    empty = Sequence("eve")
    empty.apply(knowing.delta_since(VersionVector({"ann": 2})))
    assert (empty.text(), empty.pending) == ("", 1)
    for sequence in (knowing, innocent, one, two):
        sequence.apply(patch)
        assert (sequence.text(), sequence.pending) == ("b", 1)
        sequence.apply(other)
        assert (sequence.text(), sequence.pending) == ("bq", 0)
    assert knowing.to_bytes() == innocent.to_bytes() == one.to_bytes() == two.to_bytes()


def test_of_two_waiting_insertions_the_deleted_one_counts():
    ann, bob = pair()
    first = ann.insert(0, "(")
    bob.apply(first)
    second = ann.insert(1, "ab")
    bob.apply(second)
    bob.insert(3, "q")
    version = bob.version
    bob.delete(1, 1)
    patch = bob.delta_since(VersionVector({"ann": 1, "bob": version["bob"]}))
    orders = []
    for deltas in ([second, patch], [patch, second]):
        late = Sequence()
        for delta in deltas:
            late.apply(delta)
        assert late.pending == 3
        orders.append(late.to_bytes())
        late.apply(first)
        assert late.text() == "(b"
    assert orders[0] == orders[1]


def test_an_author_who_types_on_behind_what_others_delete():
    ann, bob = pair("()")
    deltas = [ann.insert(1 + k, "abc"[k]) for k in range(3)]
    for delta in deltas:
        bob.apply(delta)
        bob.delete(1, 1)
        assert bob.text() == "()"
    ann.merge(bob)
    bob.merge(ann)
    assert ann.to_bytes() == bob.to_bytes()


def test_golden_bytes():
    """Format version 1: what later versions must still load."""
    ann, bob = pair("Hello!")
    deltas = ann.insert(5, " world"), bob.delete(0, 1)
    ann.apply(deltas[1])
    bob.apply(deltas[0])
    values = Sequence("a", kind="list")
    values.insert(0, [1, "x"])
    found = [deltas[0].hex(), deltas[1].hex(), ann.to_bytes().hex(), values.to_bytes().hex()]
    ann.compact(ann.version)
    found.append(ann.to_bytes().hex())
    assert found == GOLDEN
    assert Sequence.from_bytes(bytes.fromhex(GOLDEN[2])).text() == "ello world!"
    assert Sequence.from_bytes(bytes.fromhex(GOLDEN[3])).value == [1, "x"]
    assert Sequence.from_bytes(bytes.fromhex(GOLDEN[4])).text() == "ello world!"


GOLDEN: list[str] = [
    "b5010400070000000105000000010600000003616e6e20776f726c648756e65a",
    "b5030800010000000201000000000100000003626f6203616e6e35681a7e",
    (
        "42524446080100240000000000000073657175656e6365000b656c6c6f2120776f726c640203616e"
        "6e03626f6202320000000105300305010b2b00590cb24c"
    ),
    ("425244460801000e0000000000000073657175656e63650104820161780101610110000000314cc9a2"),
    (
        "42524446080100260000000000000073657175656e6365020b656c6c6f20776f726c64210203616e"
        "6e03626f620c0c0101040506011005181b04000000f80a7d3a"
    ),
]
