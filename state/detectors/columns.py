"""A detector whose state is a few arrays with one column per series."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np

from state.detectors.detector import (
    F64,
    Array,
    check_sizes,
    fill_arrays,
    grown,
    load,
    rows_of,
    save,
)


class ColumnDetector(ABC):
    """Row-by-row detection over named arrays: subclasses give a layout and judge one row.

    Subclasses set `kind`, hand their constructor's arguments to `super().__init__` and implement
    :meth:`_layout` and :meth:`_step`. Everything else of the `Detector` protocol is here.
    """

    kind: ClassVar[str]
    """Names the format of the bytes."""

    def __init__(self, name: str, series: int, parameters: dict[str, float | int | str]) -> None:
        if series < 0:
            raise ValueError(f"the number of series must not be negative, not {series}")
        self.name = name
        self._parameters = parameters | {"name": name}
        self._arrays = self._layout(series)
        self._series = series

    @property
    def series(self) -> int:
        """The number of series, N."""
        return self._series

    @abstractmethod
    def _layout(self, series: int) -> dict[str, Array]:
        """Return the empty arrays; the last axis of each is the series."""

    @abstractmethod
    def _step(self, row: F64, present: Array) -> F64:
        """Score one row, in which values that are not `present` are 0, and fold it in."""

    def update(self, x: F64) -> F64:
        """Take (T, N) rows in time order and return their (T, N) scores."""
        rows = rows_of(x, self._series)
        scores = np.zeros(rows.shape)
        present = ~np.isnan(rows)
        filled = np.where(present, rows, 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for t in range(len(rows)):
                scores[t] = self._step(filled[t], present[t])
        return np.where(present, scores, 0.0)

    def grow(self, series: int) -> None:
        """Add series that start now, on the right."""
        fresh = self._layout(series)
        for name, array in self._arrays.items():
            wide = grown(array, series)
            wide[..., self._series :] = fresh[name][..., self._series :]
            self._arrays[name] = wide
        self._series = series

    def to_bytes(self) -> bytes:
        """Return parameters and state as versioned bytes."""
        return save(self.kind, self._parameters, self._series, self._arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the detector that :meth:`to_bytes` wrote."""
        parameters, series, arrays = load(cls.kind, data)
        try:
            made = cls(**_as_arguments(parameters), series=0)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{cls.kind}: {error}") from None
        check_sizes(cls.kind, arrays, made._arrays, series)
        made.grow(series)
        fill_arrays(cls.kind, arrays, made._arrays)
        return made


def _as_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    if "series" in parameters:
        raise ValueError("the number of series is not a parameter")
    return parameters
