"""What the elements of a sequence are: code points of a text, or plain values of a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from state.crdt.sequence_span import Content, Edit
from state.crdt.values import decode, encode

Kind = Literal["text", "list"]
KINDS: tuple[Kind, ...] = ("text", "list")


def to_content(kind: Kind, elements: Any) -> Content:
    """Return what a caller passed as a `str`, or as a tuple that shares nothing with it.

    Raises:
        TypeError: a text is wanted, and it is not a `str`.
        ValueError: an element is not a plain value.
    """
    if kind == "list":
        return tuple(decode(encode(list(elements))))
    if not isinstance(elements, str):
        raise TypeError(f"sequence: a text takes str, not {type(elements).__name__}")
    return elements


def encode_content(kind: Kind, contents: Iterable[Content]) -> bytes:
    """Return contents, joined, as bytes.

    Raises:
        ValueError: a text has surrogates, which are no characters.
    """
    if kind == "text":
        return "".join(contents).encode()
    return encode([element for content in contents for element in content])


def decode_content(kind: Kind, data: bytes) -> Content:
    """Return the content that `encode_content` wrote; ValueError where it did not."""
    if kind == "text":
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ValueError("sequence: text that is not UTF-8") from None
    elements = decode(data)
    if not isinstance(elements, list | tuple):
        raise ValueError("sequence: the elements are not a list")
    return tuple(elements)


def difference(before: Any, after: Any) -> list[Edit]:
    """Return at most one edit that makes `after` of `before`, and keeps both equal ends.

    >>> difference("abcd", "abxd")
    [Edit(index=2, deleted=1, inserted='x')]
    """
    shorter = min(len(before), len(after))
    start = next((k for k in range(shorter) if before[k] != after[k]), shorter)
    rest = shorter - start
    end = next((k for k in range(rest) if before[-1 - k] != after[-1 - k]), rest)
    deleted, inserted = len(before) - end - start, after[start : len(after) - end]
    return [Edit(start, deleted, inserted)] if deleted or len(inserted) else []
