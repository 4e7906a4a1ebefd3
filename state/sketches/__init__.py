"""Sketches: small mergeable states that answer questions about columns within a stated error."""

from state.sketches.count_min import CountMin
from state.sketches.heavy_hitters import HeavyHitters
from state.sketches.histogram import Histogram
from state.sketches.hll import Hll
from state.sketches.kll import Kll
from state.sketches.moments import Moments
from state.sketches.reservoir import Reservoir

__all__ = ["CountMin", "HeavyHitters", "Histogram", "Hll", "Kll", "Moments", "Reservoir"]
