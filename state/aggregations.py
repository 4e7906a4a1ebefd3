"""What can be aggregated of a column, as sufficient statistics that merge.

Each aggregation knows three sets of Polars expressions: `fold` makes its *parts* (mergeable
statistics) from rows, `join` makes the parts of a union from the parts of its pieces, and `read`
makes the value that people asked for from the parts. A null value is "not known here": every
aggregation of a column skips it.

`dense` makes the same parts as `fold` from rows that are grouped by small integers, several times
faster, or returns None for columns that it leaves to `fold`: those with nulls, NaN or infinities
and those that are not numbers.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from state.dense_groups import DenseGroups

DenseParts: TypeAlias = dict[str, pa.Array] | None
Which: TypeAlias = Literal["min", "max"]


class Count(msgspec.Struct, frozen=True, tag=True):
    """Count the rows or, given a column, its values that are not null. Int64."""

    column: str | None = None

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [] if self.column is None else [self.column]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        counted = pl.len() if self.column is None else pl.col(self.column).count()
        return {"n": counted.cast(pl.Int64)}

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        if self.column is not None and not rows.complete(self.column):
            return None
        return {"n": pa.array(rows.count)}

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        return {"n": pl.col(f"{name}.n").sum()}

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        return pl.col(f"{name}.n")


class Sum(msgspec.Struct, frozen=True, tag=True):
    """Sum a column. Float64 whatever the column is; 0 where there are no values."""

    column: str

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [self.column]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        return {"sum": pl.col(self.column).cast(pl.Float64).sum()}

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        total = rows.total(self.column)
        return None if total is None else {"sum": pa.array(total)}

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        return {"sum": pl.col(f"{name}.sum").sum()}

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        return pl.col(f"{name}.sum")


class _Extreme(msgspec.Struct, frozen=True):
    """Keep the smallest or the largest value of a column."""

    column: str
    _which: ClassVar[Which]

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [self.column]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        return {self._which: _extreme(pl.col(self.column), self._which)}

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        x = rows.numbers(self.column)
        if x is None:
            return None
        found = rows.min(x) if self._which == "min" else rows.max(x)
        return {self._which: rows.typed(found, self.column)}

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        return {self._which: _extreme(pl.col(f"{name}.{self._which}"), self._which)}

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        return pl.col(f"{name}.{self._which}")


class Min(_Extreme, frozen=True, tag=True):
    """Keep the smallest value of a column, in the column's type; null where there is none."""

    _which: ClassVar[Which] = "min"


class Max(_Extreme, frozen=True, tag=True):
    """Keep the largest value of a column, in the column's type; null where there is none."""

    _which: ClassVar[Which] = "max"


class Mean(msgspec.Struct, frozen=True, tag=True):
    """Average a column, or weight its values by another (vwap). Float64.

    Rows in which either is null are skipped. Null where there are no values or the weights sum
    to 0.
    """

    column: str
    weight: str | None = None

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [self.column] if self.weight is None else [self.column, self.weight]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        x = pl.col(self.column).cast(pl.Float64)
        if self.weight is None:
            return {"sum": x.sum(), "weight": x.count().cast(pl.Float64)}
        w = pl.col(self.weight).cast(pl.Float64)
        return {"sum": (x * w).sum(), "weight": pl.when(x.is_not_null()).then(w).sum()}

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        x = rows.floats(self.column)
        if x is None:
            return None
        if self.weight is None:
            return {"sum": pa.array(rows.sum(x)), "weight": pa.array(rows.count.astype(np.float64))}
        w, weight = rows.floats(self.weight), rows.total(self.weight)
        if w is None or weight is None:
            return None
        return {"sum": pa.array(rows.sum(x * w)), "weight": pa.array(weight)}

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        return {part: pl.col(f"{name}.{part}").sum() for part in ("sum", "weight")}

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        weight = pl.col(f"{name}.weight")
        return pl.when(weight != 0).then(pl.col(f"{name}.sum") / weight)


class Var(msgspec.Struct, frozen=True, tag=True):
    """Take the sample variance of a column. Float64; null below two values.

    Parts are count, mean and sum of squared deviations, joined as in T. Chan, G. Golub,
    R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
    (1979), so that values far from zero do not cancel.
    """

    column: str

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [self.column]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        x = pl.col(self.column).cast(pl.Float64)
        n = x.count().cast(pl.Float64)
        return {"n": n, "mean": x.mean().fill_null(0.0), "m2": (x.var(ddof=0) * n).fill_null(0.0)}

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        x = rows.floats(self.column)
        if x is None:
            return None
        n = rows.count.astype(np.float64)
        mean = rows.sum(x) / n
        m2 = rows.sum((x - rows.spread(mean)) ** 2)
        return {"n": pa.array(n), "mean": pa.array(mean), "m2": pa.array(m2)}

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        n, mean, m2 = (pl.col(f"{name}.{part}") for part in ("n", "mean", "m2"))
        # The mean relative to one piece keeps the digits that means far from zero would lose.
        first = mean.filter(n > 0).first()
        total = pl.when(n.sum() > 0).then(first + (n * (mean - first)).sum() / n.sum())
        return {
            "n": n.sum(),
            "mean": total.fill_null(0.0),
            "m2": (m2.sum() + (n * (mean - total).pow(2)).sum()).fill_null(0.0),
        }

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        n = pl.col(f"{name}.n")
        return pl.when(n > 1).then(pl.col(f"{name}.m2") / (n - 1))


class _AtTime(msgspec.Struct, frozen=True):
    """Keep the value of a column at the earliest or the latest time."""

    column: str
    time: str = "time"
    _which: ClassVar[Which]

    def inputs(self) -> list[str]:
        """Return the columns that are read."""
        return [self.column, self.time]

    def fold(self) -> dict[str, pl.Expr]:
        """Return the parts of a group of rows."""
        return self._choose(pl.col(self.column), pl.col(self.time))

    def dense(self, rows: DenseGroups) -> DenseParts:
        """Return what `fold` does, or None if these columns are not for it."""
        x, time = rows.numbers(self.column), rows.numbers(self.time)
        if x is None or time is None:
            return None
        of = rows.min if self._which == "min" else rows.max
        known = of(time)
        there = np.flatnonzero(time == rows.spread(known))
        return {
            "time": rows.typed(known, self.time),
            "value": rows.typed(of(x[there], there), self.column),
        }

    def join(self, name: str) -> dict[str, pl.Expr]:
        """Return the parts of a group of parts."""
        return self._choose(pl.col(f"{name}.value"), pl.col(f"{name}.time"))

    def read(self, name: str) -> pl.Expr:
        """Return the value."""
        return pl.col(f"{name}.value")

    def _choose(self, value: pl.Expr, time: pl.Expr) -> dict[str, pl.Expr]:
        known = _extreme(time.filter(value.is_not_null()), self._which)
        return {"time": known, "value": _extreme(value.filter(time == known), self._which)}


class First(_AtTime, frozen=True, tag=True):
    """Keep the value of a column at the earliest time; of equal times the smallest value.

    The tie-break is by value because arrival order is not the same for all ways to merge.
    """

    _which: ClassVar[Which] = "min"


class Last(_AtTime, frozen=True, tag=True):
    """Keep the value of a column at the latest time; of equal times the largest value."""

    _which: ClassVar[Which] = "max"


def _extreme(values: pl.Expr, which: Which) -> pl.Expr:
    return values.min() if which == "min" else values.max()


Aggregation: TypeAlias = Count | Sum | Min | Max | Mean | Var | First | Last
