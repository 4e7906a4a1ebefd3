"""What a peer counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Payloads that went out and came in."""

    sent: int = 0
    received: int = 0
    duplicates: int = 0
    refused: int = 0
    """Updates that were too long, too far ahead, or of one origin too many."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a peer counts; all but the gauges only grow."""

    messages_sent: dict[str, int]
    """By kind of message."""
    bytes_sent: int
    messages_received: int
    rejected: int
    """Messages that were refused."""
    payloads: Traffic
    snapshots_given: int
    snapshots_taken: int
    snapshots_ignored: int
    log_dropped: int
    """Updates that the log no longer has."""
    refuted: int
    """How often this peer had to say that it lives."""
    members_refused: int
    # gauges
    log_updates: int
    log_bytes: int
    origins: int
    rumours: int
    wanted: int
    awareness: int
