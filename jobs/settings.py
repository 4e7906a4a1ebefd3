"""One way to configure a job: environment variables, a TOML file, and errors a person can act on.

A job's settings are one class. `MARKET_LAGS=5` in the environment, or `lags = 5` under `[market]`
in `braidflow.toml` (or the file that `BRAIDFLOW_CONFIG` names), set the field `lags`; the
environment wins. A name that is not a setting is an error, not silence.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sqlite3
import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, ClassVar, NoReturn, Self

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _duration(value: Any) -> Any:
    """Read `90s`, `5m`, `1d`; leave all else to pydantic."""
    match = (
        re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])\s*", value) if _is_text(value) else None
    )
    return timedelta(seconds=float(match[1]) * _UNITS[match[2]]) if match else value


def written(value: Any) -> str:
    """Return a value as it is written in the environment.

    >>> written(timedelta(days=1)), written(timedelta(milliseconds=1500)), written(["a", "b"])
    ('1d', '1500ms', 'a,b')
    """
    if isinstance(value, timedelta):
        units = reversed([(unit, timedelta(seconds=size)) for unit, size in _UNITS.items()])
        return next(
            (f"{value // size}{unit}" for unit, size in units if value and not value % size),
            f"{value.total_seconds():g}s",
        )
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _names(value: Any) -> Any:
    """Read `a, b, c`."""
    return [part.strip() for part in value.split(",") if part.strip()] if _is_text(value) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A time span: `500ms`, `90s`, `5m`, `12h`, `1d`, `2w`, seconds, or ISO 8601."""

Names = Annotated[list[str], NoDecode, BeforeValidator(_names)]
"""Names, separated by commas in an environment variable."""


class JobSettings(BaseSettings):
    """Base of all jobs' settings.

    A subclass says its name, what the job reads and writes, and declares fields with descriptions.
    """

    job: ClassVar[str]
    reads: ClassVar[str]
    writes: ClassVar[str]
    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def prefix(cls) -> str:
        """Return the prefix of the job's environment variables."""
        return f"{cls.job.upper()}_"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments first, then the environment, then the TOML file."""
        environment = EnvSettingsSource(settings_cls, env_prefix=cls.prefix())
        return init_settings, environment, InitSettingsSource(settings_cls, cls._from_toml())

    @classmethod
    def _from_toml(cls) -> dict[str, Any]:
        named = os.environ.get("BRAIDFLOW_CONFIG")
        path = Path(named or "braidflow.toml")
        if not named and not path.exists():
            return {}
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get(cls.job, {})
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: [{cls.job}] must be a table")
        return table

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Return the settings in force.

        Raises:
            SettingsError: a setting is unknown or has a value it cannot have.
        """
        known = {cls.prefix() + name.upper() for name in cls.model_fields}
        for name in sorted(os.environ):
            if name.startswith(cls.prefix()) and name not in known:
                raise SettingsError(_unknown(name, known))
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError("; ".join(map(cls._explain, error.errors()))) from error

    def _refuse(self, names: Iterable[str], wanted: str) -> None:
        """Refuse settings that were given and would not be used, rather than ignore them."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{self.prefix()}{name.upper()} is for {wanted}")

    @classmethod
    def _explain(cls, error: Any) -> str:
        name = cls.prefix() + "_".join(str(part) for part in error["loc"][:1]).upper()
        if error["type"] == "extra_forbidden":
            return _unknown(name, {cls.prefix() + field.upper() for field in cls.model_fields})
        message = str(error["msg"]).removeprefix("Value error, ")
        return f"{name}={error['input']!s}: {message}" if error["loc"] else message


class SettingsError(ValueError):
    """A setting is unknown, or has a value it cannot have."""


def _unknown(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
    return f"unknown setting {name}{hint}"


def new_directory(job: str) -> Path:
    """Return a directory of its own for the results of a run, named after the time.

    Raises:
        SettingsError: the run may be a resumed one, whose files are in another.
    """
    recovering = {"-r", "--recovery-directory"} & {a.partition("=")[0] for a in sys.argv}
    if recovering or "BYTEWAX_RECOVERY_DIRECTORY" in os.environ:
        needed = f"{job.upper()}_OUT"
        raise SettingsError(f"-r needs {needed}: a resumed run must find the files it began")
    return Path("runs") / job / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def fail(job: str, error: Exception) -> NoReturn:
    """End the process with 2 and one line on standard error, for settings or input that are wrong.

    With `BRAIDFLOW_TRACEBACK` set, the error goes on instead.
    """
    if os.environ.get("BRAIDFLOW_TRACEBACK"):
        raise error
    print(f"{job}: {error}", file=sys.stderr)
    raise SystemExit(2)


def resume_finished() -> None:
    """Have `python -m bytewax.run -r DIR` go on from finished epochs only.

    Call it where the flow is built, which is before the engine opens the directory.
    """
    from connectors.recovery import forget_unfinished

    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("-r", "--recovery-directory")
    given, _ = options.parse_known_args()
    found = given.recovery_directory or os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
    if found:
        try:
            forget_unfinished(Path(found))
        except sqlite3.Error as error:
            raise ValueError(f"{found}: {error}") from error


def one_line_errors(job: str) -> None:
    """Report errors of the running flow by their cause alone, and exit with 1.

    Bytewax wraps what a source, an operator or a sink raises in its own errors, one around the
    other. The whole chain is shown when `BRAIDFLOW_TRACEBACK` is set.
    """
    if os.environ.get("BRAIDFLOW_TRACEBACK"):
        return
    # The engine turns a Python error into a Rust panic, which would print a stack of its own.
    os.environ["RUST_BACKTRACE"] = "0"

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        cause = root_cause(error)
        if isinstance(cause, KeyboardInterrupt):
            print(f"{job}: stopped", file=sys.stderr)
        else:
            print(f"{job}: {type(cause).__name__}: {cause}", file=sys.stderr)
            print("(BRAIDFLOW_TRACEBACK=1 shows where)", file=sys.stderr)

    sys.excepthook = report


def root_cause(error: BaseException) -> BaseException:
    """Return what an error was raised from, in the end."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
