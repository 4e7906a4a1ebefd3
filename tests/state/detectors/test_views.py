"""SPOT on views: each kind of anomaly is seen, and what each view is."""

import numpy as np
import pytest

from state.detectors import Spot, SpotViews


def anomalous(kind: str) -> np.ndarray:
    x = np.random.default_rng(11).normal(size=1560)
    match kind:
        case "spike":
            x[1500] = 15.0
        case "level":
            x[1500:] += 6.0
        case "flat":
            x[1500:1560] = 0.001 * x[1500:1560]
        case "noise":
            x[1500:1560] *= 8.0
        case "nothing":
            pass
    return x[:, None]


def test_a_flat_stretch_scores_more_than_usual() -> None:
    x = anomalous("flat")
    quiet = SpotViews(calibrate=900, series=1).update(anomalous("nothing"))[1500:1560, 0]
    flat = SpotViews(calibrate=900, series=1).update(x)[1500:1560, 0]
    # One view of six sees it, so it does not fire by itself.
    assert 1.5 * np.median(quiet) < flat[-20:].min() < 0.5


@pytest.mark.parametrize("kind", ["spike", "level", "noise"])
def test_the_default_limit(kind: str) -> None:
    scores = SpotViews(calibrate=900, series=1).update(anomalous(kind))[:, 0]
    assert (scores[:1500] < 0.5).all()
    assert (scores[1500:1540] >= 0.5).any()


def test_the_warm_up_scores_nothing() -> None:
    x = anomalous("nothing")
    x[60:100] = 40.0
    assert (SpotViews(calibrate=50, series=1).update(x[: 71 + 50]) == 0).all()


def test_views_are_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    x = anomalous("nothing")[:200]
    seen: list[np.ndarray] = []
    update = Spot.update

    def spy(self: Spot, views: np.ndarray) -> np.ndarray:
        seen.append(views)
        return update(self, views)

    monkeypatch.setattr(Spot, "update", spy)
    SpotViews(series=1).update(x)
    t, v = 150, x[:, 0]
    last = v[: t + 1]
    np.testing.assert_allclose(
        seen[0][t],
        [
            v[t],
            abs(v[t] - v[t - 1]),
            v[t] - np.median(last[-25:]),
            last[-12:].mean() - last[-72:-12].mean(),
            np.log(last[-24:].std() + 1e-3 * last.std()),
            last[-24:].mean(),
        ],
    )
    assert np.isnan(seen[0][70]).all()
    assert np.isfinite(seen[0][71:]).all()


def test_wrong_limits() -> None:
    with pytest.raises(ValueError, match="limit"):
        SpotViews(1.0)
