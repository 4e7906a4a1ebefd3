"""Votes, refractory periods, and members that a user wrote."""

import numpy as np
import pytest

from state.detectors import Ensemble, FallWithin, RobustEwma, crash_ensemble


def day(limit: float, series: int = 1) -> FallWithin:
    return FallWithin(limit, 1, name=f"{limit:.0%}", series=series)


FALLS = np.log1p(-np.array([0.01, 0.03, 0.06, 0.03, 0.12, 0.0]))[:, None]


@pytest.mark.parametrize(
    ("votes", "wanted"), [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [4])], ids=["one", "two", "all"]
)
def test_votes(votes: int, wanted: list[int]) -> None:
    detection = Ensemble([day(0.02), day(0.05), day(0.1)], votes=votes).detect(FALLS)
    assert np.flatnonzero(detection.alert[:, 0]).tolist() == wanted
    assert np.flatnonzero(detection.score[:, 0] >= 0.5).tolist() == wanted
    assert detection.fired[4, 0].tolist() == [True, True, True]
    assert detection.fired[2, 0].tolist() == [True, True, False]


def test_refractory_counts_values_of_the_series_not_rows() -> None:
    x = np.full((8, 2), -0.1)
    x[[2, 3], 1] = np.nan
    alert = Ensemble([day(0.05, 2)], refractory=2).detect(x).alert
    assert np.flatnonzero(alert[:, 0]).tolist() == [0, 3, 6]
    assert np.flatnonzero(alert[:, 1]).tolist() == [0, 5]


def test_scores_do_not_rest() -> None:
    rule = Ensemble([day(0.05)], refractory=5)
    assert (rule.update(np.full((4, 1), -0.1)) >= 0.5).all()


class Mine(FallWithin):
    """A user's own detector."""

    kind = "mine"


def test_a_users_own_member_needs_its_class_to_come_back() -> None:
    rule = Ensemble([Mine(0.05, 2, series=1)])
    rule.update(FALLS)
    with pytest.raises(ValueError, match="unknown class 'Mine'"):
        Ensemble.from_bytes(rule.to_bytes())
    again = Ensemble.from_bytes(rule.to_bytes(), [Mine])
    assert isinstance(again.members[0], Mine)
    assert again.to_bytes() == rule.to_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "at least one"),
        ({"members": [day(0.05), day(0.05)]}, "share a name"),
        ({"members": [day(0.05), day(0.1, 2)]}, "differ in series"),
        ({"members": [day(0.05)], "votes": 2}, "votes"),
        ({"members": [day(0.05)], "refractory": -1}, "refractory"),
    ],
)
def test_wrong_parameters(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ensemble(**arguments)


def test_the_default_is_fresh_every_time() -> None:
    a, b = crash_ensemble(), crash_ensemble()
    a.grow(1)
    a.update(FALLS)
    assert b.series == 0
    assert a.names == b.names == ("extreme fall", "robust EWMA", "fall within 10 steps")
    assert isinstance(a.members[1], RobustEwma)
