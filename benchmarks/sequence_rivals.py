"""Replicated text in three libraries, behind one face: ours, pycrdt (Yjs) and loro."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import loro
import pycrdt

from state.crdt.sequence import Sequence


class Replica(Protocol):
    """What the replay does with a replica of any library."""

    def edit(self, index: int, deleted: int, text: str) -> bytes:
        """Make one operation and return it as bytes."""

    def apply(self, delta: bytes) -> object:
        """Take in another replica's operation."""

    def text(self) -> str:
        """Return the text."""

    def save(self) -> bytes:
        """Return the whole state as bytes."""


class Ours:
    """A `Sequence`."""

    def __init__(self, agent: int) -> None:
        self.sequence = Sequence(f"agent{agent}")
        self.apply = self.sequence.apply
        self.text = self.sequence.text
        self.save = self.sequence.to_bytes

    def edit(self, index: int, deleted: int, text: str) -> bytes:
        """Make one operation and return it as bytes."""
        if deleted:
            return self.sequence.delete(index, deleted)
        return self.sequence.insert(index, text)


class Pycrdt:
    """A `pycrdt.Doc` with one text, whose transactions hand over their updates."""

    def __init__(self, agent: int) -> None:
        self.document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=1 + agent)
        self.content = self.document.get("text", type=pycrdt.Text)
        self.updates: list[bytes] = []
        self.subscription = self.document.observe(self.keep)
        self.save: Callable[[], bytes] = self.document.get_update
        self.apply: Callable[[bytes], None] = self.document.apply_update

    def keep(self, event: pycrdt.TransactionEvent) -> None:
        """Note the update of a transaction."""
        self.updates.append(event.update)

    def edit(self, index: int, deleted: int, text: str) -> bytes:
        """Make one operation and return it as bytes."""
        with self.document.transaction():
            if deleted:
                del self.content[index : index + deleted]
            else:
                self.content.insert(index, text)
        return self.updates[-1]

    def text(self) -> str:
        """Return the text."""
        return str(self.content)


class Loro:
    """A `loro.LoroDoc` with one text, exported from version to version."""

    def __init__(self, agent: int) -> None:
        self.document: Any = loro.LoroDoc()  # type: ignore[no-untyped-call]
        self.document.peer_id = 1 + agent
        self.content = self.document.get_text("text")
        self.updates: list[bytes] = []
        self.subscription = self.document.subscribe_local_update(self.keep)
        self.apply: Callable[[bytes], object] = self.document.import_
        self.text: Callable[[], str] = self.content.to_string
        self.save: Callable[[], bytes] = functools.partial(
            self.document.export, loro.ExportMode.Snapshot()
        )

    def keep(self, update: bytes) -> bool:
        """Note the update of a transaction, and ask for the next."""
        self.updates.append(update)
        return True

    def edit(self, index: int, deleted: int, text: str) -> bytes:
        """Make one operation and return it as bytes."""
        if deleted:
            self.content.delete(index, deleted)
        else:
            self.content.insert(index, text)
        self.document.commit()
        return self.updates[-1]
