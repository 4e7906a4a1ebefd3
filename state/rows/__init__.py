"""Replicated maps and sets as columns: millions of rows in one state.

These are the columnar twins of `state.crdt`'s `LWWMap` and `ORSet`: what a batch of rows says is
what a delta of theirs says, and merging gives the same. A state holds its rows in NumPy arrays; a
hash index (`KeyIndex`) finds a row by its key. They are `Foldable`: `update` merges a batch of
rows, `merge` another state.
"""

from state.rows.key_index import KeyIndex
from state.rows.lww_rows import LwwRows, lww_schema
from state.rows.or_rows import OrRows, or_schema

__all__ = ["KeyIndex", "LwwRows", "OrRows", "lww_schema", "or_schema"]
