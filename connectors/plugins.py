"""Find a connector that somebody else wrote, by import path or by entry point."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bytewax.inputs import Source

GROUP = "braidflow.connectors"
"""The entry-point group of sources and sinks."""


class PluginError(ValueError):
    """A connector cannot be found; the message names it and says what would be right."""


def load(spec: str, *, group: str = GROUP) -> Callable[..., Any]:
    """Return the class or function that a job's setting names.

    Args:
        spec: An import path ``package.module:Name``, or the name of an entry point in `group`
            of any installed distribution.
        group: The entry-point group.

    Raises:
        PluginError: there is no such module, attribute or entry point, two distributions have an
            entry point of that name, or what was found cannot be called.
        Exception: whatever the module raises while it is imported, unchanged.

    >>> load("collections:OrderedDict")
    <class 'collections.OrderedDict'>
    >>> load("collections:OrderedDic")
    Traceback (most recent call last):
    connectors.plugins.PluginError: collections:OrderedDic: module 'collections' has no
        'OrderedDic'; did you mean 'OrderedDict'?
    """
    path = spec if ":" in spec else _entry_point(spec, group)
    module_name, _, attribute = path.partition(":")
    where = spec if path == spec else f"{spec} ({path})"
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise PluginError(f"{where}: write package.module:Name")
    found: Any = _import(module_name, where)
    for name in attribute.split("."):
        if not hasattr(found, name):
            kind = "module" if found is not None and hasattr(found, "__spec__") else "class"
            public = [n for n in dir(found) if not n.startswith("_")]
            raise PluginError(
                f"{where}: {kind} {found.__name__!r} has no {name!r}{_suggest(name, public)}"
            )
        found = getattr(found, name)
    if not callable(found):
        raise PluginError(
            f"{where}: is of type {type(found).__name__}; a class or a function that makes a "
            "source or sink is needed"
        )
    return found  # type: ignore[no-any-return]


def make_source(spec: str) -> Source[Any]:
    """Return a source of the class or function that a job's setting names, made of no arguments.

    Args:
        spec: See `load`.

    Raises:
        PluginError: as `load`; or it needs arguments, or makes something else.
    """
    try:
        source = load(spec)()
    except TypeError as error:
        raise PluginError(f"{spec}: cannot be made without arguments: {error}") from error
    if not isinstance(source, Source):
        raise PluginError(f"{spec}: made a {type(source).__name__}, not a source")
    return source


def _import(module: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # Only a missing part of the path itself is the setting's fault; a module that is there
        # but misses one of its own imports must show that.
        if error.name != module and not module.startswith(f"{error.name}."):
            raise
        raise PluginError(
            f"{where}: no module {error.name!r}; is it installed, or its directory in PYTHONPATH?"
        ) from None


def _entry_point(name: str, group: str) -> str:
    available = entry_points(group=group)
    found: set[str] = {point.value for point in available.select(name=name)}
    if len(found) > 1:
        raise PluginError(
            f"{name}: {len(found)} installed distributions have it in {group}: choose one of "
            f"{sorted(found)}"
        )
    if not found:
        names = sorted({point.name for point in available})
        known = f"known are {names}" if names else "no installed distribution has any"
        raise PluginError(
            f"{name}: no entry point in {group}{_suggest(name, names)}; {known}; or write an "
            "import path, package.module:Name"
        )
    point = EntryPoint(name, found.pop(), group)
    return f"{point.module}:{point.attr}"


def _suggest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
