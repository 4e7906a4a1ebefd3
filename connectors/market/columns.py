"""Turn the columns of a price file, text or typed, into ticks and rejected rows.

Whole columns are parsed at once; only rejected rows are looked at one by one, to say why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

Form = Literal["auto", "long", "wide"]

TIME_NAMES = ("time", "timestamp", "datetime", "date", "ts", "", "__index_level_0__")
"""Accepted names of the time column, the last two being what pandas writes for an index."""
SERIES_NAMES = ("series", "symbol", "ticker", "instrument")
PRICE_NAMES = ("price", "close", "adj close", "adj_close", "last")
SIZE_NAMES = ("size", "volume", "qty", "quantity")

_FIRST = -62_135_596_800_000_000  # year 1 and year 9999: what Python's datetime can show
_LAST = 253_402_300_799_999_999

_ISO = r"^\d{4}-?\d{2}-?\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?( ?(Z|[+-]\d{2}(:?\d{2})?))?)?$"
_ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")
_NAIVE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_DAYS = ("%Y-%m-%d", "%Y%m%d")


@dataclass(frozen=True, slots=True)
class Roles:
    """Which column is what. Without `series` the whole file is one series of that `name`."""

    form: Literal["long", "wide"]
    time: str
    price: tuple[str, ...]
    series: str | None = None
    size: str | None = None
    name: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return [c for c in (self.time, *self.price, self.series, self.size) if c is not None]


def find_roles(header: Sequence[str], form: Form, name: str) -> Roles:
    """Tell the form of a file by its header.

    Long: a time and a price column; without a series column the file is one series, called
    `name`. Wide: a time column, and every other column is a series.

    Raises:
        ValueError: saying what the header lacks.

    >>> find_roles(["Date", "Open", "Close", "Volume"], "auto", "ACME").price
    ('Close',)
    >>> find_roles(["time", "ACME", "INIT"], "auto", "prices").form
    'wide'
    """
    known = {column.strip().lower(): column for column in reversed(header)}
    twice = {column for column in header if list(header).count(column) > 1}
    if header[0]:
        twice.discard("")  # columns without a name are not read
    if twice:
        raise ValueError(f"column {min(twice)!r} is there twice")

    def first(names: Sequence[str]) -> str | None:
        return next((known[n] for n in names if n in known), None)

    time = first(TIME_NAMES)
    if time is None or (not time and header[0]):
        raise ValueError(
            f"no header line with a time column (one of {', '.join(TIME_NAMES[:5])}); "
            f"the first line reads {','.join(header)[:80]!r}"
        )
    price, series = first(PRICE_NAMES), first(SERIES_NAMES)
    if form == "long" or (form == "auto" and price is not None):
        if price is None:
            raise ValueError(f"no price column (one of {', '.join(PRICE_NAMES)}) in {list(header)}")
        return Roles("long", time, (price,), series, first(SIZE_NAMES), name)
    if form == "auto" and series is not None:
        raise ValueError(
            f"a series column {series!r} but no price column (one of {', '.join(PRICE_NAMES)})"
        )
    others = tuple(column for column in header if column != time and column.strip())
    if not others:
        raise ValueError(f"no price column beside {time!r}")
    return Roles("wide", time, others)


@dataclass(frozen=True, slots=True)
class Parsed:
    """Good rows (time, series, price, size, line) and (line, reason) of each rejected one."""

    ticks: pl.DataFrame
    rejects: list[tuple[int, str]]


def parse(columns: Mapping[str, pl.Series], lines: pl.Series, roles: Roles) -> Parsed:
    """Parse the rows of one piece of a file; `lines` are their numbers in it."""
    time = parse_times(columns[roles.time])
    rejects: list[tuple[int, str]] = []
    parts = []
    no_time = time.is_null()
    for line, raw in _where(no_time, lines, columns[roles.time]):
        rejects.append((line, "no time" if _blank(raw) else f"time {str(raw)!r} is not a time"))
    for column in roles.price:
        raw = columns[column]
        price = parse_numbers(raw)
        wanted = ~no_time
        if roles.form == "wide":
            wanted &= ~_is_blank(raw)
            series = pl.repeat(column.strip(), len(raw), dtype=pl.String, eager=True)
        elif roles.series is None:
            series = pl.repeat(roles.name, len(raw), dtype=pl.String, eager=True)
        else:
            series = columns[roles.series].cast(pl.String).str.strip_chars()
        size = pl.repeat(None, len(raw), dtype=pl.Float64, eager=True)
        bad_size = pl.repeat(False, len(raw), dtype=pl.Boolean, eager=True)
        if roles.size is not None:
            size = parse_numbers(columns[roles.size])
            bad_size = ~_is_blank(columns[roles.size]) & ~_true(size.is_finite() & (size >= 0))
        bad_price = ~_true(price.is_finite() & (price > 0))
        bad_series = ~_true(series != "")
        good = wanted & ~bad_price & ~bad_series & ~bad_size
        where = f"series {column.strip()!r}: " if roles.form == "wide" else ""
        for line, text, number, nameless, wrong in _where(
            wanted & ~good, lines, raw, price, bad_series, bad_price
        ):
            if nameless:
                reason = "no series"
            elif wrong:
                reason = where + _price_reason(text, number)
            else:
                reason = "the size is not a number of 0 or more"
            rejects.append((line, reason))
        frame = pl.DataFrame(
            {"time": time, "series": series, "price": price, "size": size, "line": lines}
        )
        parts.append(frame.filter(good))
    return Parsed(pl.concat(parts), rejects)


def _price_reason(raw: object, number: float | None) -> str:
    if _blank(raw):
        return "no price"
    what = "a number" if number is None else "finite and positive"
    return f"price {str(raw)!r} is not {what}"


def _blank(raw: object) -> bool:
    return raw is None or not str(raw).strip()


def _is_blank(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column.is_null() | (column.str.strip_chars() == "").fill_null(True)
    return column.is_null()


def _true(mask: pl.Series) -> pl.Series:
    return mask.fill_null(False)


def _where(mask: pl.Series, *columns: pl.Series) -> Iterator[tuple[Any, ...]]:
    yield from zip(*(column.filter(mask).to_list() for column in columns), strict=True)


def parse_numbers(column: pl.Series) -> pl.Series:
    """Return the column as floats, null where it is not a number."""
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    return column.cast(pl.Float64, strict=False)


def parse_times(column: pl.Series) -> pl.Series:
    """Return the column as UTC microseconds, null where it is not a time.

    Text is ISO 8601 (a date of eight digits included), or an epoch number. The unit of an epoch
    number is told by its size: seconds below 1e11, milliseconds below 1e14, microseconds below
    1e17, then nanoseconds. A time without a zone is UTC. Sub-microseconds are cut off.

    >>> parse_times(pl.Series(["2020-01-01", "1577836800000", "soon"])).to_list()
    [datetime.datetime(2020, 1, 1, 0, 0, tzinfo=...), datetime.datetime(2020, 1, 1, ...), None]
    """
    if column.dtype == pl.String:
        micros = _text_times(column.str.strip_chars())
    elif column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        micros = column.cast(pl.Datetime("us"), strict=False).cast(pl.Int64)
        if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
            utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            micros = utc.cast(pl.Datetime("us"), strict=False).cast(pl.Int64)
    else:
        micros = _epochs(column)
    inside = micros.is_between(_FIRST, _LAST)
    kept = pl.select(pl.when(inside).then(micros)).to_series().cast(pl.Datetime("us"))
    return kept.dt.replace_time_zone("UTC")


def _text_times(text: pl.Series) -> pl.Series:
    iso = text.str.contains(_ISO).fill_null(False)
    if not iso.any():
        return _epochs(text)
    if iso.all():
        micros = pl.repeat(None, len(text), dtype=pl.Int64, eager=True)
    else:
        micros = _epochs(pl.select(pl.when(~iso).then(text)).to_series())
    rest = pl.select(pl.when(iso).then(text)).to_series()
    plain = rest.str.replace(" ", "T").str.replace(" ", "").str.replace("Z", "+0000")
    for formats, kind in (
        (_DAYS, plain.str.len_chars() <= 10),
        (_ZONED, plain.str.contains(r"T.*[+-]")),
        (_NAIVE, plain.str.contains(r"T[^+-]*$")),
    ):
        todo = pl.select(pl.when(kind).then(plain)).to_series()
        zoned = formats is _ZONED
        for form in formats:
            if todo.null_count() == len(todo):
                break
            kept = pl.Datetime("us", "UTC") if zoned else pl.Datetime("us")
            found = todo.str.to_datetime(form, strict=False, time_unit="us").cast(kept)
            micros = pl.select(pl.coalesce(micros, found.cast(pl.Int64))).to_series()
            todo = pl.select(pl.when(found.is_null()).then(todo)).to_series()
    return micros


def _epochs(column: pl.Series) -> pl.Series:
    whole = column.cast(pl.Int64, strict=False)
    size = whole.abs()
    number = column.cast(pl.Float64, strict=False)
    fraction = pl.when(number.is_finite() & (number.abs() < 1e11)).then((number * 1e6).round())
    return pl.select(
        pl.when(whole.is_null() | (whole.cast(pl.Float64) != number))
        .then(fraction.cast(pl.Int64, strict=False))
        .when(size < 10**11)
        .then(whole * 1_000_000)
        .when(size < 10**14)
        .then(whole * 1000)
        .when(size < 10**17)
        .then(whole)
        .otherwise(whole // 1000)
    ).to_series()
