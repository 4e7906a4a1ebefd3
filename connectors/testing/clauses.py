"""Clauses that sources and sinks share."""

from __future__ import annotations

import pickle
from typing import Any

STEP = "contract"


def check_parts(connector: Any, again: Any) -> list[str]:
    """Return the names of the partitions, if they are unique and always the same."""
    parts = connector.list_parts()
    if not all(isinstance(name, str) for name in parts) or len(set(parts)) != len(parts):
        raise AssertionError(f"parts: {parts!r} are not unique strings")
    if list(parts) != list(connector.list_parts()) or list(parts) != list(again.list_parts()):
        raise AssertionError(f"parts: {parts!r} are not the same each time")
    return list(parts)


def check_close(part: Any, which: str) -> None:
    """Close a partition twice."""
    try:
        part.close()
        part.close()
    except Exception as error:
        raise AssertionError(f"close: {which}: {type(error).__name__}: {error}") from error


def pickled(state: Any, which: str) -> bytes:
    """Return the pickle of a snapshot, if it comes back from it."""
    try:
        data = pickle.dumps(state)
        pickle.loads(data)
    except Exception as error:
        raise AssertionError(f"snapshot: {which}: {state!r} cannot be pickled: {error}") from error
    return data


def check_alias(state: Any, then: bytes, which: str) -> None:
    """Check that a snapshot is still what it was when it was pickled."""
    if pickle.dumps(state) != then:
        raise AssertionError(
            f"snapshot: {which} changed later: from {pickle.loads(then)!r} to {state!r}"
        )
