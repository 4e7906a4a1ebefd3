"""A connector is found by import path or entry point, and errors say what would be right."""

import collections
import subprocess
import sys

import pytest
from bytewax.testing import TestingSource

from connectors.plugins import PluginError, load, make_source

FEEDS = """
class MyFeed:
    class Inner:
        pass

def make_feed():
    return MyFeed()

RATE = 3
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install distributions for real: modules and dist-info on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name, entries, **modules):
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{key} = {value}" for key, value in entries]
        (info / "entry_points.txt").write_text("\n".join(["[braidflow.connectors]", *lines, ""]))

    before = set(sys.modules)
    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_import_path(installed):
    installed("acme", [], acme_feeds=FEEDS)
    assert load("acme_feeds:MyFeed").__name__ == "MyFeed"
    assert load("acme_feeds:MyFeed.Inner").__name__ == "Inner"
    assert type(load("acme_feeds:make_feed")()).__name__ == "MyFeed"
    assert load("collections:OrderedDict") is collections.OrderedDict


def test_entry_point(installed):
    installed(
        "acme", [("acme", "acme_feeds:MyFeed"), ("fn", "acme_feeds:make_feed")], acme_feeds=FEEDS
    )
    assert load("acme") is load("acme_feeds:MyFeed")
    assert load("fn") is load("acme_feeds:make_feed")
    with pytest.raises(PluginError, match=r"nothing: no entry point in other\.group; no installed"):
        load("nothing", group="other.group")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("acne", r"acne: no entry point in braidflow.connectors; did you mean 'acme'\?; known are"),
        (
            "zzz",
            r"zzz: no entry point .*known are \['acme', 'broken', 'rate'\]; or write an import",
        ),
        ("", "no entry point"),
        ("broken", r"broken \(acme_feeds:Gone\): module 'acme_feeds' has no 'Gone'"),
        ("rate", r"rate \(acme_feeds:RATE\): is of type int; a class or a function"),
        ("acme_feeds:MyFeeed", r"'acme_feeds' has no 'MyFeeed'; did you mean 'MyFeed'\?"),
        ("acme_feeds:MyFeed.Iner", r"class 'MyFeed' has no 'Iner'; did you mean 'Inner'\?"),
        ("acme_feeds:RATE", "is of type int"),
        ("acme_feed:MyFeed", r"no module 'acme_feed'; is it installed"),
        ("nowhere.feeds:MyFeed", r"no module 'nowhere'; is it installed"),
        ("acme_feeds.sub:MyFeed", r"no module 'acme_feeds.sub'"),
        ("acme_feeds:", "write package.module:Name"),
        (":MyFeed", "write package.module:Name"),
        ("acme feeds:MyFeed", "write package.module:Name"),
        ("a:b:c", "write package.module:Name"),
        (".feeds:MyFeed", "write package.module:Name"),
    ],
)
def test_errors_say_what_would_be_right(installed, spec, message):
    installed(
        "acme",
        [
            ("acme", "acme_feeds:MyFeed"),
            ("broken", "acme_feeds:Gone"),
            ("rate", "acme_feeds:RATE"),
        ],
        acme_feeds=FEEDS,
    )
    with pytest.raises(PluginError, match=message) as caught:
        load(spec)
    assert str(caught.value).startswith(spec)


def test_a_module_that_fails_shows_its_own_error(installed):
    installed(
        "acme",
        [],
        needs_more="import not_installed_anywhere\n",
        divides="1 / 0\n",
    )
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load("needs_more:Feed")
    with pytest.raises(ZeroDivisionError):
        load("divides:Feed")


def test_two_distributions_with_one_name(installed):
    installed("acme", [("feed", "acme_feeds:MyFeed")], acme_feeds=FEEDS)
    installed("zeta", [("feed", "zeta_feeds:MyFeed")], zeta_feeds=FEEDS)
    with pytest.raises(PluginError, match=r"feed: 2 installed distributions .*zeta_feeds:MyFeed"):
        load("feed")


def test_another_process_finds_a_distribution_in_its_path(installed, tmp_path):
    installed("acme", [("acme", "acme_feeds:MyFeed")], acme_feeds=FEEDS)
    code = f"import sys; sys.path.append({str(tmp_path)!r})\nfrom connectors.plugins import load\n"
    found = subprocess.run(
        [sys.executable, "-c", code + "print(load('acme'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "<class 'acme_feeds.MyFeed'>\n"


SOURCES = """
from bytewax.testing import TestingSource

def numbers():
    return TestingSource([1, 2])
"""


def test_a_source_is_made_without_arguments(installed):
    installed("acme", [("acme", "acme_sources:numbers")], acme_sources=SOURCES)
    for spec in ("acme", "acme_sources:numbers"):
        assert isinstance(make_source(spec), TestingSource)
    with pytest.raises(PluginError, match="TestingSource: cannot be made without arguments: "):
        make_source("acme_sources:TestingSource")
    with pytest.raises(PluginError, match=r"^builtins:list: made a list, not a source$"):
        make_source("builtins:list")
