"""Where elements go, against FugueMax as the paper has it: a tree, one node for each element."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import permutations

import loro
import pytest

from state.crdt.sequence import Sequence

Id = tuple[str, int]


@dataclass
class Node:
    id: Id
    value: str
    side: str
    right_origin: Id | None
    parent: Node | None
    left: list[Node] = field(default_factory=list)
    right: list[Node] = field(default_factory=list)
    deleted: bool = False


class Tree:
    """FugueMax (Weidner and Kleppmann 2023, algorithm 1 with the order of section 5), slowly."""

    def __init__(self) -> None:
        self.root = Node(("", 0), "", "", None, None, deleted=True)
        self.nodes: dict[Id, Node] = {self.root.id: self.root}

    def walk(self) -> list[Node]:
        found: list[Node] = []

        def visit(node: Node) -> None:
            for child in node.left:
                visit(child)
            found.append(node)
            for child in node.right:
                visit(child)

        visit(self.root)
        return found

    def text(self) -> str:
        return "".join(node.value for node in self.walk() if not node.deleted)

    def insert(self, new: Id, index: int, value: str) -> tuple:
        nodes = self.walk()
        visible = [node for node in nodes if not node.deleted]
        left = visible[index - 1] if index else self.root
        at = nodes.index(left) + 1
        right = nodes[at] if at < len(nodes) else None
        origin = right.id if right else None
        if not left.right:
            message = (new, value, left.id, "right", origin)
        else:
            assert right is not None
            message = (new, value, right.id, "left", None)
        self.receive(message)
        return message

    def receive(self, message: tuple) -> None:
        new, value, parent_id, side, origin = message
        parent = self.nodes[parent_id]
        node = self.nodes[new] = Node(new, value, side, origin, parent)
        siblings = parent.left if side == "left" else parent.right
        if side == "right":
            place = {other.id: at for at, other in enumerate(self.walk())}
            far = len(place)

            def key(other: Node) -> tuple:
                where = far if other.right_origin is None else place[other.right_origin]
                return (-where, other.id)
        else:

            def key(other: Node) -> tuple:
                return other.id

        siblings.append(node)
        siblings.sort(key=key)

    def delete(self, index: int) -> Id:
        node = [node for node in self.walk() if not node.deleted][index]
        node.deleted = True
        return node.id


@dataclass
class Entry:
    """What one edit sends: to sequences and to trees, and how much of each log it builds on."""

    delta: bytes
    messages: list
    needs: dict[str, int]


class Pair:
    """A replica kept twice: as a sequence and as a tree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sequence = Sequence(name)
        self.tree = Tree()
        self.numbers = 0
        self.log: list[Entry] = []
        self.seen: dict[str, int] = {}

    def insert(self, index: int, text: str) -> None:
        needs = dict(self.seen)
        delta = self.sequence.insert(index, text)
        messages = []
        for k, value in enumerate(text):
            self.numbers += 1
            messages.append(self.tree.insert((self.name, self.numbers), index + k, value))
        self.log.append(Entry(delta, messages, needs))

    def delete(self, index: int, count: int) -> None:
        needs = dict(self.seen)
        delta = self.sequence.delete(index, count)
        self.numbers += count
        self.log.append(Entry(delta, [self.tree.delete(index) for _ in range(count)], needs))

    def pull(self, other: Pair, count: int) -> None:
        """Take in the next edits of another, up to one that builds on what is missing here."""
        start = self.seen.get(other.name, 0)
        for entry in other.log[start : start + count]:
            if any(
                self.seen.get(name, 0) < n for name, n in entry.needs.items() if name != self.name
            ):
                return
            self.sequence.apply(entry.delta)
            for message in entry.messages:
                if len(message) == 2:
                    self.tree.nodes[message].deleted = True
                else:
                    self.tree.receive(message)
            self.seen[other.name] = self.seen.get(other.name, 0) + 1

    def check(self) -> None:
        assert self.sequence.text() == self.tree.text()
        assert len(self.sequence) == len(self.tree.text())


def edit(pair: Pair, rng: random.Random) -> None:
    length = len(pair.sequence)
    if length and rng.random() < 0.35:
        index = rng.randrange(length)
        pair.delete(index, rng.randint(1, min(3, length - index)))
    else:
        index = rng.choice([rng.randint(0, length), min(length, 2), length])
        pair.insert(index, "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 3))))


def session(pairs: list[Pair], rng: random.Random, steps: int) -> None:
    """Edit and exchange at random, checking at each step, until all have everything."""
    for _ in range(steps):
        a, b = rng.sample(pairs, 2)
        if rng.random() < 0.3:
            a.pull(b, rng.randint(1, 6))
        else:
            edit(a, rng)
        a.check()
    for _ in pairs:
        for a, b in permutations(pairs, 2):
            a.pull(b, 1 << 30)
    for pair in pairs:
        pair.check()
        assert pair.sequence.to_bytes() == pairs[0].sequence.to_bytes()


@pytest.mark.parametrize("seed", range(120))
def test_replicas_agree_with_the_tree_at_every_step(seed):
    rng = random.Random(seed)
    pairs = [Pair(name) for name in rng.sample(["zoe", "amy", "bob", "cat"], 2 + seed % 3)]
    session(pairs, rng, 40)
    assert pairs[0].tree.text() == pairs[-1].tree.text()


@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_deltas_ends_in_the_same_bytes(seed):
    rng = random.Random(1000 + seed)
    pairs = [Pair(name) for name in ("zoe", "amy", "bob")]
    session(pairs, rng, 40)
    deltas = [entry.delta for pair in pairs for entry in pair.log]
    deltas += rng.sample(deltas, len(deltas) // 3)
    rng.shuffle(deltas)
    late = Sequence()
    for delta in deltas:
        late.apply(delta)
    assert late.pending == 0
    assert late.to_bytes() == pairs[0].sequence.to_bytes()


def both(a: str, b: str, base: str = "") -> tuple[Sequence, Sequence]:
    first, second = Sequence(a), Sequence(b)
    if base:
        second.apply(first.insert(0, base))
    return first, second


def exchange(first: Sequence, second: Sequence) -> str:
    to_second, to_first = first.to_bytes(), second.to_bytes()
    first.apply(to_first)
    second.apply(to_second)
    assert first.to_bytes() == second.to_bytes()
    return first.text()


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_runs_typed_forwards_do_not_interleave(names):
    first, second = both(*names, base="()")
    for k in range(5):
        first.insert(1 + k, "AAAAA"[k])
        second.insert(1 + k, "bbbbb"[k])
    assert exchange(first, second) in {"(AAAAAbbbbb)", "(bbbbbAAAAA)"}


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_runs_typed_backwards_do_not_interleave(names):
    first, second = both(*names, base="()")
    for k in range(5):
        first.insert(1, "54321"[k])
        second.insert(1, "zyxwv"[k])
    assert exchange(first, second) in {"(12345vwxyz)", "(vwxyz12345)"}


def test_a_run_typed_at_two_ends_stays_whole():
    first, second = both("a", "b", base="()")
    for character in "MNO":
        first.insert(len(first) - 1, character)
    for character in "LKJ":
        first.insert(1, character)
    second.insert(1, "xyz")
    assert exchange(first, second) in {"(JKLMNOxyz)", "(xyzJKLMNO)"}


def test_words_typed_at_both_ends_of_the_same_word_keep_their_side():
    first, second = both("a", "b", base="milk")
    first.insert(0, "buy ")
    second.insert(4, ", eggs")
    assert exchange(first, second) == "buy milk, eggs"


def test_an_insertion_into_a_deleted_run_survives_at_its_place():
    first, second = both("a", "b", base="one two three")
    first.delete(4, 4)
    second.insert(6, "X")
    assert exchange(first, second) == "one Xthree"


def test_what_both_delete_is_deleted_once():
    first, second = both("a", "b", base="0123456789")
    first.delete(2, 5)
    second.delete(4, 5)
    assert exchange(first, second) == "019"


@pytest.mark.parametrize("seed", range(60))
def test_loro_orders_concurrent_edits_alike(seed):
    """Loro has Fugue, and orders peers by number; with two replicas the two rules agree."""
    rng = random.Random(seed)
    ours = [Sequence("a"), Sequence("b")]
    theirs = [loro.LoroDoc(), loro.LoroDoc()]
    for peer, document in enumerate(theirs):
        document.peer_id = 1 + peer
    for _ in range(30):
        at = rng.randrange(2)
        sequence, document = ours[at], theirs[at]
        length = len(sequence)
        if rng.random() < 0.2:
            sequence.merge(ours[1 - at])
            document.import_(theirs[1 - at].export(loro.ExportMode.Snapshot()))
        elif length and rng.random() < 0.3:
            index = rng.randrange(length)
            count = rng.randint(1, min(3, length - index))
            sequence.delete(index, count)
            document.get_text("t").delete(index, count)
        else:
            index, text = rng.randint(0, length), rng.choice(["x", "ab", "żółw", "🦥🦥"])
            sequence.insert(index, text)
            document.get_text("t").insert(index, text)
        document.commit()
        assert sequence.text() == document.get_text("t").to_string()
