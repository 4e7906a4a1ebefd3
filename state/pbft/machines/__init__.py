"""Machines to replicate: a key-value store and a lock service."""

from state.pbft.machines.locks import FencedResource, Locks, StaleToken
from state.pbft.machines.store import Store

__all__ = ["FencedResource", "Locks", "StaleToken", "Store"]
