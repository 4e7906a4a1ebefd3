"""Replica ids as small numbers, and their order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]


class Replicas:
    """Number replica ids as they come.

    >>> replicas = Replicas()
    >>> replicas.codes(pa.array(["b", "a", "b"])).tolist(), replicas.ranks().tolist()
    ([0, 1, 0], [1, 0])
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        for name in names:
            self._code(name)

    def codes(self, column: pa.Array) -> I64:
        """Return the number of each id.

        Raises:
            ValueError: an id is null.
            TypeError: the column is no strings.
        """
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        if column.null_count or column.dictionary.null_count:
            raise ValueError("a replica is null")
        if not pa.types.is_string(column.type.value_type):
            raise TypeError(f"replicas are strings, not {column.type.value_type}")
        mapped = np.array([self._code(name) for name in column.dictionary.to_pylist()], np.int64)
        indices = column.indices.to_numpy(zero_copy_only=False)
        return mapped[indices] if len(indices) else np.zeros(0, np.int64)

    def ranks(self) -> I64:
        """Return the place of each number's id in the order of all ids, as `str` orders them."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks

    def column(self, codes: I64) -> pa.Array:
        """Return ids by number, as a dictionary column."""
        return pa.DictionaryArray.from_arrays(
            pa.array(codes.astype(np.int32)), pa.array(self.names, pa.string())
        )

    def _code(self, name: str) -> int:
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self.names)
            self.names.append(name)
        return code
