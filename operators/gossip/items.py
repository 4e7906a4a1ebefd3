"""What goes into a gossiping peer and comes out of it, and the replica that it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Heard(NamedTuple):
    """A message of another peer."""

    sender: str
    """The address under which it is a member; the transport vouches for it."""
    data: bytes


class Say(NamedTuple):
    """A message to another peer."""

    to: str
    """Its address."""
    data: bytes
    reliable: bool
    """Whether the transport should send it again when it is lost."""


class Begin(NamedTuple):
    """Start the peer; in the middle of its life: start it anew, with the replica as it is.

    Args:
        address: Where others reach it, as the transport writes it.
        incarnation: Greater than any before, under this name: a clock's milliseconds do.
        bootstrap: Addresses of members of the group; none for the first one.
    """

    address: str
    incarnation: int
    bootstrap: tuple[str, ...] = ()


class Edit(NamedTuple):
    """An operation on the replica, in whatever form it takes them."""

    operation: Any
    origin: str = ""
    """Where it comes from, for whoever reads of its refusal."""


class Look(NamedTuple):
    """Emit the replica's state, as `State`."""


class Expel(NamedTuple):
    """Tell the group that a member is gone for good, so that no one waits for it any longer."""

    member: str
    """Its name."""
    origin: str = ""
    """Where this comes from, for whoever reads of its refusal."""


class Finish(NamedTuple):
    """Tell the others, hand over what they lack, and leave."""


class State(NamedTuple):
    """What a replica was when it was asked for by `Look`."""

    state: bytes
    seen: dict[str, int]
    """For each replica id, up to which number all its updates are in it."""
    neighbours: tuple[str, ...]


class Refused(NamedTuple):
    """An edit, an update or an expulsion that could not be carried out; nothing has changed."""

    source: str
    """The replica whose update it was; for a command, the peer's name."""
    content: Any
    reason: str
    origin: str = ""
    """The command's."""


PeerCommand = Begin | Edit | Look | Expel | Finish


class Replica(Protocol):
    """A state that is edited here, and elsewhere."""

    def edit(self, operation: Any, now_ms: int) -> bytes | None:
        """Carry out an operation; return what other replicas need to know of it, if anything.

        Raises:
            ValueError: it is no operation that can be carried out; nothing has changed.
        """

    def deliver(self, update: bytes) -> None:
        """Take in another replica's update, in any order.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """

    def to_bytes(self) -> bytes:
        """Return the whole state."""

    def restore(self, state: bytes, *, replace: bool) -> None:
        """Merge another replica's whole state, or put it in the place of this one.

        Raises:
            ValueError: it is malformed; nothing has changed.
        """

    def compact(self, cut: Mapping[str, int]) -> None:
        """Forget what is not needed once every replica knows these updates.

        Args:
            cut: For each replica id, how many of its updates every member knows.
        """

    def changes(self) -> Sequence[Any]:
        """Return what has changed since the last call, in order, to be emitted."""
