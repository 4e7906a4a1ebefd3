"""Exactly once: which requests of each client were executed, and what came of them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from state.pbft.messages import Count, Digest, Name, Ordinal, Request, digest


class Result(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What became of a request."""

    seq: Ordinal
    """Under which number its batch was executed."""
    history: Digest
    results: list[bytes]

    @property
    def digest(self) -> bytes:
        """The digest of the results."""
        return digest("results", msgspec.msgpack.encode(self.results))


class _Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    client: Name
    low: Count
    results: Annotated[list[tuple[Ordinal, Result]], msgspec.Meta(max_length=1 << 20)]


class Sessions:
    """The sessions of all clients; part of the replicated state.

    A request is executed unless its number was, or lies below what its client said has been
    answered, or too far above it. A client's results are kept until it says that it has them.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._low: dict[str, int] = {}
        self._results: dict[str, dict[int, Result]] = {}

    def result(self, client: str, number: int) -> Result | None:
        """Return what became of a request, if it was executed and that is still kept."""
        return self._results.get(client, {}).get(number)

    def over(self, client: str, number: int) -> bool:
        """Return whether a request has been executed, or never will be."""
        return number < self._low.get(client, 1) or number in self._results.get(client, ())

    def due(self, request: Request) -> bool:
        """Return whether a request is to be executed."""
        low = max(self._low.get(request.client, 1), request.low)
        return not self.over(request.client, request.number) and (
            low <= request.number < low + self._width
        )

    def put(self, request: Request, result: Result) -> None:
        """Note the result of a request that was due."""
        client = request.client
        results = self._results.setdefault(client, {})
        results[request.number] = result
        if request.low > self._low.get(client, 1):
            self._low[client] = request.low
            for number in [each for each in results if each < request.low]:
                del results[number]

    def rows(self) -> list[_Row]:
        """Return everything, in the order of names and numbers."""
        return [
            _Row(client, self._low.get(client, 1), sorted(results.items()))
            for client, results in sorted(self._results.items())
        ]

    def restore(self, rows: list[_Row]) -> None:
        """Take over what `rows` returned."""
        self._low = {row.client: row.low for row in rows}
        self._results = {row.client: dict(row.results) for row in rows}


Row = _Row
