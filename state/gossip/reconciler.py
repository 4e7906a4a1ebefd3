"""Anti-entropy: two peers find out what one has and the other lacks, at a cost that fits it.

A peer holds two tables: what it has seen (a row per origin) and the members (a row per member).
One round of comparison:

    Digest      count and fingerprint of both tables: equal in most rounds, and that is all
    few rows    all of them at once (`Rows`, `Facts`)
    many rows   a `Sketch` of 30 cells; if the difference does not come out of it the other side
                answers with one of twice the cells, up to 480
    still more  `Spans`: sums over 16 parts of the key space, and again over the parts that differ

Rows end it: each side asks for updates that it lacks and offers those that the other lacks; facts
are simply taken in. Nothing depends on a message that is lost: the next round compares again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from state.gossip.members import Members
from state.gossip.messages import (
    MAX_ROWS,
    Digest,
    Fact,
    Facts,
    Have,
    MessageError,
    Range,
    Rows,
    Sketch,
    Span,
    Spans,
)
from state.gossip.port import Port
from state.gossip.seen import Seen
from state.gossip.sketches import FLOOR, Cells
from state.gossip.spreader import Spreader
from state.gossip.tables import FULL, Table

FEW = 40
"""Rows that are sent as they are, without looking for the difference first."""
_LARGEST = 480
_SPANS = 256
_MEMBERS_EVERY = 5.0

UPDATES: Final = 0
MEMBERS: Final = 1
Kind = Literal[0, 1]


class Reconciler:
    """Compares the tables of one peer with those of others."""

    def __init__(self, port: Port, seen: Seen, members: Members, spreader: Spreader) -> None:
        self._port = port
        self._seen = seen
        self._members = members
        self._spreader = spreader
        self._next_members = port.now

    def _table(self, table: Kind) -> Table:
        return self._seen.table if table == UPDATES else self._members.table

    def begin(self, target: str) -> None:
        """Send the digest that begins a comparison."""
        updates, facts = self._seen.table, self._members.table
        news = self._members.news()
        self._port.send(
            target, Digest(updates.count, updates.total, facts.count, facts.total, news)
        )

    def digest(self, sender: str, message: Digest) -> None:
        """Answer a digest where the tables differ."""
        self._members.learn(message.news)
        mine = self._seen.table
        if mine.total == message.updates and mine.count == message.origins:
            self._spreader.knows_all(sender)
        else:
            self._compare(sender, UPDATES, message.origins)
        mine = self._members.table
        if self._port.now >= self._next_members and (
            mine.total != message.facts or mine.count != message.members
        ):
            # News about members rides on other messages: what is left to find is not urgent.
            self._next_members = self._port.now + _MEMBERS_EVERY * self._port.settings.round
            self._compare(sender, MEMBERS, message.members)

    def _compare(self, to: str, table: Kind, theirs: int) -> None:
        mine = self._table(table)
        if mine.count <= FEW:
            self._send_span(to, table, *FULL)
        elif abs(mine.count - theirs) > _LARGEST // 2:
            self._port.send(to, Spans(table, mine.split(*FULL)))
        else:
            self._send_sketch(to, table, FLOOR)

    def _send_sketch(self, to: str, table: Kind, cells: int) -> None:
        self._port.send(to, Sketch(table, self._table(table).sketch(cells).to_bytes()))

    def _send_span(self, to: str, table: Kind, low: int, high: int) -> None:
        """Send all rows whose keys lie in [low, high)."""
        names = self._table(table).inside(low, high)
        self._send_rows(to, table, names, [], (low, high - 1))

    def _send_rows(
        self,
        to: str,
        table: Kind,
        names: Iterable[str],
        wanted: list[int],
        span: tuple[int, int] | None,
    ) -> None:
        if table == MEMBERS:
            self._port.send(to, Facts(self._members.of_names(names)[:MAX_ROWS], wanted, span))
            return
        ranges = [row for name in names for row in self._seen.ranges_of(name)]
        self._port.send(to, Rows(ranges[:MAX_ROWS], wanted, span))

    # -- rows -------------------------------------------------------------------------------------

    def rows(self, sender: str, message: Rows) -> None:
        """Ask for what is missing here, and offer what is missing there."""
        theirs: dict[str, list[Range]] = {}
        for row in message.ranges:
            theirs.setdefault(row.origin, []).append(row)
        self._spreader.offered(sender, message.ranges)
        give: list[Range] = []
        for origin, ranges in theirs.items():
            give += self._seen.beyond(origin, ranges)
        for origin in self._unmentioned(UPDATES, message.wanted, message.span):
            if origin not in theirs:
                give += self._seen.ranges_of(origin)
        for at in range(0, len(give), MAX_ROWS):
            self._port.send(sender, Have(give[at : at + MAX_ROWS]))

    def facts(self, sender: str, message: Facts) -> None:
        """Take in facts, and answer with those that are missing there."""
        give = self._members.learn(message.facts)
        said = {fact.name for fact in message.facts}
        names = self._unmentioned(MEMBERS, message.wanted, message.span)
        give += self._members.of_names(name for name in names if name not in said)
        self.tell(sender, give)

    def tell(self, to: str, facts: list[Fact]) -> None:
        """Send facts that are not to be answered, but where they are known better."""
        for at in range(0, len(facts), MAX_ROWS):
            self._port.send(to, Facts(facts[at : at + MAX_ROWS], [], None))

    def _unmentioned(
        self, table: Kind, wanted: list[int], span: tuple[int, int] | None
    ) -> list[str]:
        names = self._table(table).names_of(wanted) if wanted else []
        if span is not None:
            if span[0] > span[1]:
                raise MessageError(f"the span {span[0]} to {span[1]} is empty")
            names += self._table(table).inside(span[0], span[1] + 1)
        return names

    # -- differences ------------------------------------------------------------------------------

    def sketch(self, sender: str, message: Sketch) -> None:
        """Send the rows in which the tables differ, or look closer."""
        try:
            theirs = Cells.from_bytes(message.cells)
        except ValueError as error:
            raise MessageError(str(error)) from error
        table = self._table(message.table)
        difference = table.sketch(len(theirs)).difference(theirs)
        if difference is not None:
            mine, missing = difference
            if mine or missing:
                names = table.names_of(mine)
                self._send_rows(sender, message.table, names, missing[:MAX_ROWS], None)
        elif len(theirs) * 2 <= _LARGEST:
            self._send_sketch(sender, message.table, len(theirs) * 2)
        else:
            self._port.send(sender, Spans(message.table, table.split(*FULL)))

    def spans(self, sender: str, message: Spans) -> None:
        """Send the rows of small spans that differ, and sums of the parts of large ones.

        Looks at so many spans at most; the next round finds the others.
        """
        table = self._table(message.table)
        finer: list[Span] = []
        for theirs in message.spans[:_SPANS]:
            mine = table.span(theirs.low, theirs.high)
            if mine == theirs:
                continue
            if mine.count <= FEW or theirs.high - theirs.low == 1:
                self._send_span(sender, message.table, theirs.low, theirs.high)
            else:
                finer += table.split(theirs.low, theirs.high)
        for at in range(0, len(finer), _SPANS):
            self._port.send(sender, Spans(message.table, finer[at : at + _SPANS]))
