"""Streaming anomaly detectors over columns: one algorithm per module.

>>> import numpy as np
>>> detector = Spot(1e-4, calibrate=200, series=2)
>>> isinstance(detector, Detector)
True
>>> x = np.random.default_rng(0).normal(size=(300, 2))
>>> first = detector.update(x[:250])
>>> again = Spot.from_bytes(detector.to_bytes())
>>> bool((again.update(x[250:]) == detector.update(x[250:])).all())
True
"""

from state.detectors.detector import FIRES, Detector
from state.detectors.drawdown import FallWithin
from state.detectors.ensemble import Detection, Ensemble, crash_ensemble
from state.detectors.ewma import RobustEwma
from state.detectors.pareto import fit_pareto
from state.detectors.spot import Spot
from state.detectors.views import SpotViews

__all__ = [
    "FIRES",
    "Detection",
    "Detector",
    "Ensemble",
    "FallWithin",
    "RobustEwma",
    "Spot",
    "SpotViews",
    "crash_ensemble",
    "fit_pareto",
]
