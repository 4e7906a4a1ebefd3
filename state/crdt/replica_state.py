"""The part that all types but `Sequence` share: bytes, and telling what a merge changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from state.crdt.values import decode, encode
from state.mergeable import Algebra, seal, unseal

PAYLOAD_DEPTH = 8


class Change(NamedTuple):
    """One visible change: `old` gave way to `new` at `path`; None stands for "not there".

    The path is () for a register or a counter, (key,) in a map, (element,) in a set, where `old`
    and `new` say whether it is a member, and longer in nested maps.
    """

    path: tuple[Any, ...]
    old: Any
    new: Any


class ReplicaState:
    """A state with a kind, canonical bytes and a list of what each merge changes."""

    algebra: ClassVar[Algebra] = Algebra.SEMILATTICE
    kind: ClassVar[str]
    _observer: Callable[[Self, list[Change]], None] | None = None

    def merge(self, other: Self) -> None:
        """Join a state or a delta into this one.

        Raises:
            ValueError: `other` is of another kind.
        """
        self._check(other)
        self._join(other)

    def follow(self, other: Self) -> list[Change]:
        """Do what `merge` does and return what changed visibly.

        What went comes before what came, each in the order of the encoded paths.

        Raises:
            ValueError: `other` is of another kind.
        """
        self._check(other)
        before = {key: self._look(key) for key in sorted(self._touched(other))}
        self._join(other)
        changes = [
            Change(self._path(key), old, new)
            for key, old in before.items()
            if not _same(old, new := self._look(key))
        ]
        return sorted(changes, key=lambda change: not (change.new is None or change.new is False))

    def apply(self, delta: bytes) -> None:
        """Merge the bytes of a delta or a state; the same again changes nothing.

        Raises:
            ValueError: they are malformed or of another kind; nothing has changed.
        """
        self.merge(self.from_bytes(delta))

    def to_bytes(self) -> bytes:
        """Return the state as bytes, equal for equal states."""
        return seal(self.kind, 1, encode(self._to_plain(), max_depth=PAYLOAD_DEPTH))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote.

        Raises:
            ValueError: `data` is malformed, truncated or of an unknown version.
        """
        payload = unseal(cls.kind, data, versions={1})[1]
        return cls._from_plain(decode(payload, max_depth=PAYLOAD_DEPTH))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]  # a state changes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    if TYPE_CHECKING:
        # Not at run time: it would hide the `value` of a class's second parent.
        @property
        def value(self) -> Any:
            """The plain Python value."""

    def _check(self, other: object) -> None:
        if type(other) is not type(self):
            raise ValueError(f"{self.kind}: cannot merge a {type(other).__name__}")

    def _commit(self, delta: Self) -> Self:
        """Merge a delta made here and return it."""
        if self._observer is None:
            self._join(delta)
        else:
            self._observer(delta, self.follow(delta))
        return delta

    def _join(self, other: Self) -> None:
        raise NotImplementedError

    def _touched(self, other: Self) -> Iterable[Any]:
        """Return the sortable keys under which a merge of `other` may change something."""
        raise NotImplementedError

    def _look(self, key: Any) -> Any:
        """Return what is visible under one of the keys, None for nothing."""
        raise NotImplementedError

    def _path(self, key: Any) -> tuple[Any, ...]:
        """Return such a key as the path of a `Change`."""
        raise NotImplementedError

    def _to_plain(self) -> Any:
        raise NotImplementedError

    @classmethod
    def _from_plain(cls, plain: Any) -> Self:
        raise NotImplementedError


def _same(old: Any, new: Any) -> bool:
    # By encoding: 1, 1.0 and True differ, and NaN does not from itself.
    return (old is None) == (new is None) and encode(old) == encode(new)


def fields(kind: str, plain: Any, n: int) -> list[Any]:
    """Return `plain` if it is a list of `n` fields.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(plain, list) or len(plain) != n:
        raise ValueError(f"{kind}: a row that does not have {n} fields")
    return plain
