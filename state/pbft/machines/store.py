"""A key-value store as a replicated state machine.

Operations and results are msgpack arrays, each with its tag. What is answered depends on nothing
but the operations so far: reasons are constants, never the text of a library's error.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from state.pbft.machine import Operation

MAX_KEY: Final = 1024
MAX_VALUE: Final = 1 << 20
MAX_LISTED: Final = 1000
"""Keys in one :class:`Listed`."""
MAX_BYTES: Final = 128 << 20
"""Bytes of a state, each pair with `OVERHEAD` besides its key and value."""
OVERHEAD: Final = 32
_VERSION = 1

Key = Annotated[bytes, msgspec.Meta(max_length=MAX_KEY)]
Value = Annotated[bytes, msgspec.Meta(max_length=MAX_VALUE)]


class _Form(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Get(_Form, frozen=True, tag=1):
    """Ask for the value of a key: :class:`Found`."""

    key: Key


class Put(_Form, frozen=True, tag=2):
    """Give a key a value, whatever it had: :class:`Written`."""

    key: Key
    value: Value


class Delete(_Form, frozen=True, tag=3):
    """Remove a key: :class:`Written`, not done if it was not there."""

    key: Key


class CompareAndSet(_Form, frozen=True, tag=4):
    """Give a key another value if it has the expected one: :class:`Written`.

    None stands for no value, on either side.
    """

    key: Key
    expected: Value | None
    value: Value | None


class List(_Form, frozen=True, tag=5):
    """Ask for the keys that begin with a prefix, in order, after a given one: :class:`Listed`."""

    prefix: Key = b""
    after: Key | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_LISTED)] = MAX_LISTED


class Found(_Form, frozen=True, tag=1):
    """The value, or None."""

    value: bytes | None


class Written(_Form, frozen=True, tag=2):
    """Whether the state is what was asked for, by this operation."""

    done: bool
    value: bytes | None = None
    """What :class:`CompareAndSet` found, if that was not what it expected."""


class Listed(_Form, frozen=True, tag=3):
    """Keys, and how many begin with the prefix in all, listed or not."""

    keys: list[bytes]
    total: int


class Refused(_Form, frozen=True, tag=4):
    """The operation makes no sense or has no room, and changed nothing."""

    reason: str


StoreOperation = Get | Put | Delete | CompareAndSet | List
StoreResult = Found | Written | Listed | Refused

_encoder = msgspec.msgpack.Encoder()
_operations: msgspec.msgpack.Decoder[StoreOperation] = msgspec.msgpack.Decoder(StoreOperation)
_results: msgspec.msgpack.Decoder[StoreResult] = msgspec.msgpack.Decoder(StoreResult)
_snapshots = msgspec.msgpack.Decoder(tuple[int, list[tuple[Key, Value]]])
_MALFORMED = _encoder.encode(Refused("this is no operation of a store"))
_FULL = _encoder.encode(Refused("the store is full"))
_DONE, _NOT_DONE = _encoder.encode(Written(True)), _encoder.encode(Written(False))


def operation(asked: StoreOperation) -> bytes:
    """Return the bytes to submit."""
    return _encoder.encode(asked)


def result(data: bytes) -> StoreResult:
    """Return what the bytes of a result say.

    Raises:
        ValueError: they are none of a store.
    """
    try:
        return _results.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no result of a store: {error}") from None


class Store:
    """Keys and values, both bytes.

    Args:
        max_bytes: of the state, as in `MAX_BYTES`; the same at all replicas.

    >>> store = Store()
    >>> def ask(*asked: StoreOperation) -> list[StoreResult]:
    ...     return [result(r) for r in store.apply([Operation("me", operation(a)) for a in asked])]
    >>> ask(Put(b"river", b"Rakaia"), Get(b"river"), CompareAndSet(b"river", None, b"Waimakariri"))
    [Written(done=True, value=None), Found(value=b'Rakaia'), Written(done=False, value=b'Rakaia')]
    >>> ask(List(b"ri"))
    [Listed(keys=[b'river'], total=1)]
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._values: dict[bytes, bytes] = {}
        self._bytes = 0
        self._sorted: list[bytes] | None = []  # the keys; None when some have come or gone

    def __len__(self) -> int:
        return len(self._values)

    def apply(self, batch: Sequence[Operation]) -> list[bytes]:
        """Carry out operations; see :class:`~state.pbft.machine.StateMachine`."""
        return [self._carry_out(each.data) for each in batch]

    def snapshot(self) -> bytes:
        """Return the pairs, in the order of their keys."""
        return _encoder.encode((_VERSION, [(key, self._values[key]) for key in self._keys()]))

    def restore(self, snapshot: bytes) -> None:
        """Take over a snapshot's state.

        Raises:
            ValueError: it is none, or none that `snapshot` would write, or larger than
                `max_bytes`; nothing has changed.
        """
        try:
            version, pairs = _snapshots.decode(snapshot)
        except msgspec.DecodeError as error:
            raise ValueError(f"no snapshot of a store: {error}") from None
        if version != _VERSION:
            raise ValueError(f"a store's snapshot of version {version}; this is {_VERSION}")
        keys = [key for key, _ in pairs]
        if any(a >= b for a, b in pairwise(keys)):
            raise ValueError("a store's snapshot whose keys are not in order")
        if _encoder.encode((version, pairs)) != snapshot:
            raise ValueError("a store's snapshot in another form than the one it is written in")
        size = sum(_size(key, value) for key, value in pairs)
        if size > self._max_bytes:
            raise ValueError(f"a store's snapshot of {size} bytes; at most {self._max_bytes} fit")
        self._values, self._sorted, self._bytes = dict(pairs), keys, size

    def _carry_out(self, data: bytes) -> bytes:
        try:
            asked = _operations.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _MALFORMED
        if isinstance(asked, Put):
            return self._set(asked.key, asked.value)
        if isinstance(asked, Get):
            return _encoder.encode(Found(self._values.get(asked.key)))
        if isinstance(asked, CompareAndSet):
            found = self._values.get(asked.key)
            if found != asked.expected:
                return _encoder.encode(Written(False, found))
            return self._set(asked.key, asked.value)
        if isinstance(asked, Delete):
            return self._set(asked.key, None) if asked.key in self._values else _NOT_DONE
        return _encoder.encode(self._list(asked.prefix, asked.after, asked.limit))

    def _set(self, key: bytes, value: bytes | None) -> bytes:
        old = self._values.get(key)
        if old is not None and value is not None:
            more = len(value) - len(old)
        else:
            more = _size(key, value) - _size(key, old)
            self._sorted = None
        if more > 0 and self._bytes + more > self._max_bytes:
            return _FULL
        self._bytes += more
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value
        return _DONE

    def _list(self, prefix: bytes, after: bytes | None, limit: int) -> Listed:
        keys = self._keys()
        first = bisect_left(keys, prefix)
        end = bisect_right(keys, prefix, lo=first, key=lambda key: key[: len(prefix)])
        begin = first if after is None else max(first, bisect_right(keys, after, hi=end))
        return Listed(keys[begin : min(begin + limit, end)], end - first)

    def _keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._values)
        return self._sorted


def _size(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value) + OVERHEAD
