"""A map that nests replicated sets, registers, counters and maps, add-wins and without tombstones.

Removing a key removes, at any depth, the entries that are known where it is removed. What others
write concurrently stays, and with it the key:

==============  ==================================================================
nested          what survives a concurrent removal of its key
==============  ==================================================================
`ORSet`         the elements added concurrently, and no others
`MVRegister`    the values assigned concurrently, and no others
`LWWRegister`   the value assigned concurrently, whatever the stamps
`PNCounter`     the whole row of each replica that counted concurrently
`ORMap`         each key by these same rules
==============  ==================================================================

A key is there as long as something is in it: an empty nested set or map is no key.

A key used with two kinds is an error where the other kind is known. Replicas that choose
concurrently keep both; all show the one whose name sorts first, and `conflicts` names the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar, cast

from state.crdt.causal_state import CausalState
from state.crdt.dots import MAX_PATH, DotStore, Entry, Path
from state.crdt.places import (
    CountPlace,
    LatestPlace,
    Owner,
    Place,
    SetPlace,
    ValuesPlace,
    check_payload,
)
from state.crdt.values import decode_key, encode_key

P = TypeVar("P", bound="Place[Any]")


class MapPlace(Place[Owner]):
    """A map from hashable plain values to what is nested under them."""

    leaf = b"or-map"

    @property
    def value(self) -> dict[Any, Any]:
        """The map; of keys that Python holds equal, like 1 and True, one is in it: see `items`."""
        return dict(self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """Yield (key, plain value) in the order of the keys' encodings."""
        for key in self._store.children(self._prefix):
            kind = self._store.children((*self._prefix, key))[0]
            yield decode_key(key), self._nested(_PLACES[kind], (*self._prefix, key, kind)).value

    def __len__(self) -> int:
        return self._store.count(self._prefix)

    def __contains__(self, key: Any) -> bool:
        return self._store.has((*self._prefix, encode_key(key)))

    def kind_of(self, key: Any) -> str | None:
        """Return the kind that `key` shows, or None where it is not there."""
        kinds = self._store.children((*self._prefix, encode_key(key)))
        return kinds[0].decode() if kinds else None

    def conflicts(self) -> dict[Any, list[str]]:
        """Return the keys that replicas used with several kinds, with the names of these."""
        found = {}
        for key in self._store.children(self._prefix):
            kinds = self._store.children((*self._prefix, key))
            if len(kinds) > 1:
                found[decode_key(key)] = [kind.decode() for kind in kinds]
        return found

    def set(self, key: Any) -> SetPlace[Owner]:
        """Return the add-wins set at `key`, to read and to edit.

        Raises:
            ValueError: `key` shows another kind, or is no hashable plain value.
        """
        return self._open(SetPlace, key)

    def register(self, key: Any) -> ValuesPlace[Owner]:
        """Return the register at `key` that keeps all concurrent values.

        Raises:
            ValueError: `key` shows another kind, or is no hashable plain value.
        """
        return self._open(ValuesPlace, key)

    def latest(self, key: Any) -> LatestPlace[Owner]:
        """Return the register at `key` where the last concurrent value by stamp shows.

        Raises:
            ValueError: `key` shows another kind, or is no hashable plain value.
        """
        return self._open(LatestPlace, key)

    def counter(self, key: Any) -> CountPlace[Owner]:
        """Return the counter at `key`.

        Raises:
            ValueError: `key` shows another kind, or is no hashable plain value.
        """
        return self._open(CountPlace, key)

    def map(self, key: Any) -> MapPlace[Owner]:
        """Return the map at `key`.

        Raises:
            ValueError: `key` shows another kind, or is no hashable plain value.
        """
        return self._open(MapPlace, key)

    def remove(self, key: Any) -> Owner:
        """Remove what is known here under `key`, of every kind, and return the delta.

        Raises:
            ValueError: `key` is no hashable plain value.
        """
        dots = self._store.under((*self._prefix, encode_key(key)))
        return self._edit(self._store.without(dots))

    def clear(self) -> Owner:
        """Remove all that is known here and return the delta."""
        return self._clear()

    def _open(self, place: type[P], key: Any) -> P:
        shown = self.kind_of(key)
        if shown is not None and shown != place.leaf.decode():
            raise ValueError(f"or-map: {key!r} is a {shown}, not a {place.leaf.decode()}")
        return self._nested(place, (*self._prefix, encode_key(key), place.leaf))

    def _nested(self, place: type[P], prefix: Path) -> P:
        nested = place.__new__(_HANDLES[place.leaf])
        nested._prefix = prefix
        nested._owner = getattr(self, "_owner", self)
        return cast(P, nested)


class _Handle(Place[Any]):
    """A place that is not the root: it edits its owner."""

    _owner: CausalState

    @property
    def _store(self) -> DotStore:  # type: ignore[override]  # the owner's
        return self._owner._store

    def _edit(self, delta: DotStore) -> Any:
        return self._owner._edit(delta)

    def __repr__(self) -> str:
        return f"{self.leaf.decode()} {self.value!r}"  # type: ignore[attr-defined]  # every kind has it


_PLACES: dict[bytes, type[Any]] = {
    place.leaf: place for place in (SetPlace, ValuesPlace, LatestPlace, CountPlace, MapPlace)
}
_HANDLES: dict[bytes, type[Any]] = {
    leaf: type(f"Nested{place.__name__}", (_Handle, place), {}) for leaf, place in _PLACES.items()
}


class ORMap(CausalState, MapPlace["ORMap"]):
    """A map of replicated values, nested up to 16 deep; see the module for its removals.

    >>> ann, bob = ORMap(), ORMap()
    >>> bob.merge(ann.map("user").set("tags").add("new", "ann"))
    >>> removed, added = bob.remove("user"), ann.map("user").counter("visits").increment("ann")
    >>> ann.merge(removed), bob.merge(added), ann.value, ann == bob
    (None, None, {'user': {'visits': 1}}, True)
    """

    kind = "or-map"

    def _touched(self, other: Self) -> Iterable[Path]:
        touched = self._store.touched(other._store)
        whole: set[Path] = set()
        for path in touched:
            for end in range(1, len(path), 2):
                kinds = {*self._store.children(path[:end]), *other._store.children(path[:end])}
                if len(kinds) > 1:  # which kind shows may change, for all that is below
                    whole.add(path[:end])
                    break
                if path[end] != MapPlace.leaf:
                    break
        for prefix in whole:
            for store in (self._store, other._store):
                touched.update(store.entries[dot][0] for dot in store.under(prefix))
        return touched

    def _look(self, key: Path) -> Any:
        absent = False if len(key) % 2 else None  # only a set's element comes after a kind
        for end in range(1, len(key), 2):
            if self._store.children(key[:end])[:1] != [key[end]]:
                return absent
            if key[end] == SetPlace.leaf:
                return self._store.has(key)
            if key[end] != MapPlace.leaf:
                return self._nested(_PLACES[key[end]], key).value
        return absent

    def _path(self, key: Path) -> tuple[Any, ...]:
        names = [decode_key(part) for part in key[::2]]
        return tuple(names)

    @classmethod
    def _check_entry(cls, entry: Entry) -> None:
        path, payload = entry
        for end in range(1, min(len(path), MAX_PATH), 2):
            decode_key(path[end - 1])
            kind = path[end]
            if kind not in _PLACES:
                raise ValueError("or-map: a nested value of an unknown kind")
            if kind != MapPlace.leaf:
                if len(path) != end + 1 + (kind == SetPlace.leaf):
                    raise ValueError("or-map: a path that goes on after its end")
                if kind == SetPlace.leaf:
                    decode_key(path[-1])
                check_payload(kind, payload)
                return
        raise ValueError("or-map: a path without an end")
