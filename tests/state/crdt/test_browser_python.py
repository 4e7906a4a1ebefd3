"""Everything runs on the standard library alone, as it must in a browser's Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import state.crdt
from state.crdt import Crdt

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from state.crdt import Document, Stamp
ann, bob = Document("ann"), Document("bob")
one, _ = ann.edit("t", "text", lambda t: t.insert(0, "hi"))
two, _ = bob.edit("m", "or-map", lambda m: m.set("k").add((1, None), "bob"))
ann.apply(two.to_bytes()); bob.apply(one.to_bytes())
assert ann.to_bytes() == bob.to_bytes()
ours = {"state", "__main__"}
print(sorted(n for n in {m.partition(".")[0] for m in sys.modules} - ours
             if n not in sys.stdlib_module_names))
print({"time", "threading", "random", "asyncio", "socket"} & set(sys.modules) - before)
""".replace("import sys\nsys.path", "import sys\nbefore = set(sys.modules)\nsys.path")


def test_a_merge_without_site_packages():
    root = str(Path(state.crdt.__file__).parents[2])
    command = [sys.executable, "-I", "-S", "-c", SCRIPT, root]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    foreign, clocks = result.stdout.splitlines()
    assert foreign == "[]"
    assert clocks == "set()"


@pytest.mark.parametrize(
    "name",
    [
        "GCounter",
        "PNCounter",
        "LWWRegister",
        "MVRegister",
        "LWWMap",
        "LWWElementSet",
        "ORSet",
        "ORMap",
        "Sequence",
    ],
)
def test_every_type_is_a_crdt(name):
    assert name in state.crdt.__all__
    assert isinstance(getattr(state.crdt, name)(), Crdt)
