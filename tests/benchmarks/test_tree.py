"""The benchmark's tree, small: the answers of one pass, W - 1 messages over QUIC, its depth."""

from pathlib import Path

import pytest

from benchmarks.tree import Tree, levels, plot
from benchmarks.tree_hosts import children, depth, parent
from benchmarks.tree_states import RIVALS, Truth


@pytest.mark.parametrize("hosts", [1, 2, 8, 9, 64, 73, 512])
def test_the_tree_reaches_all_with_its_fan_in(hosts: int) -> None:
    edges = [(host, parent(host, 8)) for host in range(1, hosts)]
    assert edges == [(c, p) for p in range(hosts) for c in children(p, hosts, 8)]
    assert max(len(children(host, hosts, 8)) for host in range(hosts)) <= 8
    # ceil(log_8 W), in whole numbers; inner hosts have leaves too, so it may be one less.
    most = next(d for d in range(5) if 8**d >= hosts)
    assert levels(hosts) == most if hosts in (1, 8, 64, 512) else most - 1 <= levels(hosts) <= most
    assert depth(0, 8) == 0


def test_all_sides_answer_as_one_pass_would() -> None:
    tree, truth = Tree(10, 20_000, rivals=RIVALS), Truth(10, 20_000)
    for side in ("ours", *RIVALS, "ours"):
        seconds, root, split = tree.run(side)
        assert truth.agrees(root), side
        assert split["messages"] == 9
        assert 0 < split["update"] < seconds
    tree.close()


def test_wrong_answers_are_seen() -> None:
    tree = Tree(2, 1000)
    _, root, _ = tree.run("ours")
    tree.close()
    assert Truth(2, 1000).agrees(root)
    assert not Truth(2, 1010).agrees(root)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    spent = ("seconds", "update", "merges", "serialisation", "transport")
    rows = [{"leaves": 10.0**n, "hosts": 8.0**n} | dict.fromkeys(spent, 0.01 * n) for n in (1, 2)]
    plot(tmp_path / "tree.svg", rows, rows)
    drawn = (tmp_path / "tree.svg").read_text()
    assert drawn.count("<polyline") == 10
    assert "nan" not in drawn
