"""Crash alerts that several market monitors share with no centre.

Every monitor watches its own feed and adds its alerts to a set in a document that all of them
replicate by gossip (`flows.gossip`); adding wins, so a monitor that was killed and replays its feed
adds nothing twice. `shared_alerts.ndjson` holds what this one knows, sorted: the rows of
`alerts.ndjson` with the monitor that raised them.

A monitor whose feed has ended writes the digest of its set into the document whenever it is another
one. When all `MARKET_GOSSIP_MONITORS` have written the same digest, all have all alerts, since each
has its own: then each leaves.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bytewax.operators as op
import msgspec
import pyarrow as pa
from bytewax.dataflow import Dataflow, Stream
from bytewax.operators import StatefulLogic
from typing_extensions import override

from connectors.files.atomic import replacing
from connectors.marks import opening
from connectors.mesh import Meshes
from jobs.gossip_network import Command, connect, make_mesh
from jobs.gossip_peer import said
from jobs.market_settings import MarketSettings
from jobs.watch import Steps, Watch
from operators.gossip import Begin, Edit, Finish, Look, Refused, State
from state.crdt.document import Document
from state.gossip import Stopped

FILE = "shared_alerts.ndjson"
_ALERTS, _AGREED = "alerts", "agreed"
_LOOK = 0.25
"""Seconds between two looks at what has come."""


def share(
    flow: Dataflow, alerts: Stream[pa.RecordBatch], settings: MarketSettings, out: Path
) -> None:
    """Share a monitor's alerts, and keep its file of all monitors' alerts.

    The peer is in one process: `-w` may be given, `-a` not.

    Raises:
        ValueError: an address or a certificate cannot be used.
        OSError: a file of the keys cannot be read.
    """
    assert settings.gossip_name is not None
    assert settings.gossip_listen is not None
    name = settings.gossip_name
    meshes = Meshes(
        [
            make_mesh(
                settings.gossip_transport,
                name,
                settings.gossip_listen,
                settings.gossip_advertise,
                keys=settings.gossip_keys,
            )
        ]
    )
    monitor = _Monitor(settings, meshes, out)
    own = op.flat_map("own_alerts", alerts, lambda batch: _lines(batch, name))
    begin = op.map("feed_begins", opening("feed_open", flow), lambda _: (name, None))
    ended = op.stateful("feed", op.merge("fed", begin, own), _Feed)
    commands = op.merge(
        "commands",
        op.input("monitor", flow, Steps(monitor.steps)),
        op.map_value("shared", own, lambda line: _edit("add", _ALERTS, element=line)),
    )
    document = connect(flow, meshes, commands, settings.gossip_round)
    seen = op.merge("seen", document.states, document.refused, document.members, ended)
    op.output("know", op.map("event", seen, lambda item: item[1]), Watch(monitor.saw))


def _lines(batch: pa.RecordBatch, name: str) -> Iterator[tuple[str, str]]:
    for row in batch.to_pylist():
        yield name, msgspec.json.encode({**row, "monitor": name}).decode()


def _edit(verb: str, name: str, **fields: Any) -> Edit:
    return Edit({"op": verb, "name": name, **fields})


class _FeedEnded(NamedTuple):
    own: frozenset[str]
    """All alerts of this monitor."""


class _Feed(StatefulLogic[str | None, _FeedEnded, frozenset[str]]):
    """Remembers a feed's alerts, and tells them when it has ended: in each life of the process."""

    def __init__(self, own: frozenset[str] | None) -> None:
        self._own = set(own or ())

    @override
    def on_item(self, value: str | None) -> tuple[list[_FeedEnded], bool]:
        if value is not None:
            self._own.add(value)
        return [], StatefulLogic.RETAIN

    @override
    def on_eof(self) -> tuple[list[_FeedEnded], bool]:
        return [_FeedEnded(frozenset(self._own))], StatefulLogic.RETAIN

    @override
    def snapshot(self) -> frozenset[str]:
        return frozenset(self._own)


class _Monitor:
    """What a monitor does among the others, from its begin to its end."""

    def __init__(self, settings: MarketSettings, meshes: Meshes, out: Path) -> None:
        assert settings.gossip_name is not None
        self.name = settings.gossip_name
        self._stopped = False
        self._settings, self._meshes, self._out = settings, meshes, out
        self._stay = settings.gossip_stay.total_seconds()
        self._others = set(settings.gossip_monitors)
        self._own: frozenset[str] | None = None
        """All alerts of its own, once the feed has ended."""
        self._ended_at = 0.0
        self._known: list[str] | None = None
        self._digest = ""
        self._agreed: dict[str, str] = {}

    def steps(self) -> Iterator[list[Command]]:
        """Yield what its peer is to do, from its begin to its end.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._meshes.start()
        address = f"{self.name}@{self._meshes.by_name[self.name].address}"
        print(f"market: monitor {address} begins", file=sys.stderr, flush=True)
        contacts = tuple(self._settings.gossip_bootstrap)
        yield [(self.name, Begin(address, int(time.time() * 1000), contacts))]
        looked = told = None
        while not self._may_leave():
            items: list[Command] = []
            now = time.monotonic()
            if looked is None or now - looked >= _LOOK:
                looked = now
                items.append((self.name, Look()))
            if self._complete and told != self._digest:
                told = self._digest
                items.append((self.name, _edit("put", _AGREED, key=self.name, value=told)))
            yield items
        yield [(self.name, Look()), (self.name, Finish())]
        while not self._stopped:
            yield []

    def _may_leave(self) -> bool:
        if self._own is None:
            return False
        return self._all_agree or time.monotonic() - self._ended_at >= self._stay

    @property
    def _complete(self) -> bool:
        """Whether its feed has ended and all its alerts are in the document."""
        return self._own is not None and self._known is not None and self._own <= {*self._known}

    @property
    def _all_agree(self) -> bool:
        if not self._others or not self._complete:
            return False
        return {self._agreed.get(name) for name in self._others} == {self._digest}

    def saw(self, event: Any) -> None:
        """Take note of what happened."""
        if isinstance(event, State):
            self._know(Document.from_bytes(event.state).value)
        elif isinstance(event, _FeedEnded):
            self._own, self._ended_at = event.own, time.monotonic()
        elif isinstance(event, Refused):
            print(f"market: {event.origin or event.source}: {event.reason}", file=sys.stderr)
        elif isinstance(event, Stopped):
            self._end()
        else:
            print(f"market: {said(event)}", file=sys.stderr, flush=True)

    def _know(self, value: dict[str, Any]) -> None:
        self._agreed = value.get(_AGREED, {})
        known = sorted(line for line in value.get(_ALERTS, ()) if isinstance(line, str))
        if known == self._known:
            return
        self._known = known
        data = "".join(f"{line}\n" for line in known).encode()
        self._digest = hashlib.sha256(data).hexdigest()
        with replacing(self._out / FILE) as file:
            file.write(data)

    def _end(self) -> None:
        count = len(self._known or ())
        print(f"market: {count:,} shared alerts ({self._digest[:12]}): {self._out / FILE}")
        lacking = sorted(n for n in self._others if self._agreed.get(n) != self._digest)
        if lacking:
            print(f"market: not known to have the same alerts: {', '.join(lacking)}")
        self._stopped = True
        self._meshes.finish()
