"""What clients asked and were answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Operation:
    """One request of a client and what became of it."""

    node: str
    """The node that was asked."""
    kind: str
    """The type of the request: ``add``, ``broadcast`` or ``read``."""
    value: Any
    """What was added, or what was read."""
    invoked: float
    """When the request was sent, in seconds from the start."""
    completed: float | None = None
    """When the answer came; None if none came, so that it may have happened or not."""
    failed: bool = False
    """Whether the node answered with an error that says that nothing happened."""
    final: bool = False
    """Whether it is a read after all else had ended."""


@dataclass(slots=True)
class Verdict:
    """What a checker found, and counts to judge the run by."""

    valid: bool
    problems: list[str] = field(default_factory=list)
    """One sentence each; at most ten are kept."""
    counts: dict[str, float] = field(default_factory=dict)

    def blame(self, problem: str) -> None:
        """Say what is wrong."""
        self.valid = False
        if len(self.problems) < 10:
            self.problems.append(problem)
