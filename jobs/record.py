"""What every run leaves of itself: its settings, when it ended, what it counted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from jobs.settings import JobSettings

_FILE = "run.json"


class Record(msgspec.Struct, frozen=True):
    """The record of a finished run, `run.json`; a job adds what it counts itself."""

    settings: dict[str, Any]
    finished: datetime
    rejected: int
    """Rows of its input that could not be used."""

    @classmethod
    def of(cls, settings: JobSettings, rejected: int) -> Self:
        """Return the record of a run that has just ended."""
        return cls(settings.model_dump(mode="json"), datetime.now(UTC), rejected)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Return the record of a finished run.

        Raises:
            FileNotFoundError: the run did not finish.
            ValueError: the record is damaged.
        """
        try:
            return msgspec.json.decode((directory / _FILE).read_bytes(), type=cls)
        except msgspec.DecodeError as error:
            raise ValueError(f"{directory / _FILE}: {error}") from error

    def write(self, directory: Path) -> None:
        """Write it into the run's directory."""
        text = json.dumps(msgspec.to_builtins(self), indent=2) + "\n"
        (directory / _FILE).write_text(text, encoding="utf-8")
