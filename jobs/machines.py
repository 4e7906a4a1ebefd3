"""The machines that a group can replicate, and their operations as people write them.

    {"op": "put", "key": "river", "value": "Rakaia"}          store: get, put, delete,
    {"op": "compare_and_set", "key": "river", "expected": "Rakaia", "value": null}    list
    {"op": "acquire", "name": "leader", "ttl_ms": 5000}       locks: acquire, renew, release,
    {"op": "release", "name": "leader", "token": 7}                  inspect

The fields are those of `state.pbft.machines`. Bytes are text where they are UTF-8, or else
``{"hex": "00ff"}``, in operations and in results.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from state.pbft import StateMachine
from state.pbft.machines import Locks, Store, locks, store


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class Machine:
    """A machine, and the forms of what it is asked and answers.

    Args:
        make: Makes one.
        asked: The union of its operations' types.
        answered: That of its results.
    """

    def __init__(self, make: Callable[[], StateMachine], asked: Any, answered: Any) -> None:
        self.make = make
        self._asked = asked
        self._operations = msgspec.msgpack.Decoder(asked)
        self._results = msgspec.msgpack.Decoder(answered)

    @property
    def operations(self) -> dict[str, type[msgspec.Struct]]:
        """The operations' types, by the word that a line of JSON has under "op"."""
        return {_snake(kind.__name__): kind for kind in get_args(self._asked)}

    def operation(self, words: Any) -> bytes:
        """Return the bytes to submit for an operation in words.

        Raises:
            ValueError: it is none; the message says what is wrong.
        """
        if not isinstance(words, dict):
            raise ValueError(f'{words!r} is no operation: {{"op": ...}} is wanted')
        operations = self.operations
        kind = operations.get(words.get("op", ""))
        if kind is None:
            known = ", ".join(operations)
            raise ValueError(f"{words.get('op')!r} is no operation; these are: {known}")
        given = {name: value for name, value in words.items() if name != "op"}
        types = {field.name: field for field in msgspec.structs.fields(kind)}
        if unknown := given.keys() - types.keys():
            raise ValueError(f"{words['op']} has no {', '.join(sorted(unknown))}")
        values = {
            name: _bytes(value) if "bytes" in str(types[name].type) else value
            for name, value in given.items()
        }
        try:
            data = msgspec.msgpack.encode(kind(**values))
            msgspec.msgpack.decode(data, type=kind)
        except (TypeError, msgspec.ValidationError) as error:
            raise ValueError(f"{words['op']}: {error}") from None
        return data

    def words(self, data: bytes) -> Any:
        """Return an operation as it could be submitted, or bytes that are none as text."""
        return _words(data, self._operations, "op")

    def result(self, data: bytes) -> Any:
        """Return a result: its kind under "result", and its fields."""
        return _words(data, self._results, "result")


def _words(data: bytes, kinds: msgspec.msgpack.Decoder[Any], tag: str) -> Any:
    try:
        found = kinds.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _text(data)
    values = msgspec.structs.asdict(found)
    kind = {tag: _snake(type(found).__name__)}
    return kind | {name: _plain(value) for name, value in values.items()}


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"hex"}:
        return bytes.fromhex(value["hex"])
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _text(value) if isinstance(value, bytes) else value


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


MACHINES = {
    "store": Machine(Store, store.StoreOperation, store.StoreResult),
    "locks": Machine(Locks, locks.LockOperation, locks.LockResult),
}
"""By name."""
