import numpy as np
import pytest

from benchmarks.causal_accuracy import METHODS, SETTINGS, TARGETS, reported, score
from benchmarks.systems import RESPONSES, Setting, System, generate


def test_f1_counts_pairs_whatever_the_lag():
    lag = np.zeros((3, 3), int)
    lag[0, 1], lag[1, 2] = 3, 1
    system = System(np.zeros((1, 3)), lag)
    found = np.zeros((3, 3), bool)
    assert score(found, system)["f1"] == 0.0
    found[0, 1] = True
    assert score(found, system)["f1"] == pytest.approx(2 / 3)
    found[1, 2] = True
    assert score(found, system)["f1"] == 1.0
    found[2, 1] = True
    parts = score(found, system)
    assert parts == pytest.approx({"f1": 4 / 5, "precision": 2 / 3, "recall": 1.0})


def test_f1_of_nothing_found_where_nothing_is():
    system = System(np.zeros((1, 2)), np.zeros((2, 2), int))
    assert set(score(np.zeros((2, 2), bool), system).values()) == {1.0}


def test_a_series_own_past_is_not_reported():
    assert not reported(np.zeros((3, 3)))[np.arange(3), np.arange(3)].any()
    assert reported(np.zeros((3, 3))).sum() == 6


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_method_finds_strong_linear_links(method):
    setting = Setting(series=6, rows=2000, links_per_series=0.5, effect=(0.4, 0.5))
    systems = [generate(setting, seed) for seed in range(6)]
    f1 = [score(METHODS[method](system.x), system)["f1"] for system in systems]
    # Every link is found; one false one in three systems is what the level allows.
    assert np.mean(f1) > 0.9


def test_only_hermite_features_see_an_even_response():
    x = np.random.default_rng(2).standard_normal((4000, 3))
    x[1:, 1] += 0.4 * RESPONSES[1](x[:-1, 0])
    assert METHODS["conditional + Hermite"](x)[0, 1]
    assert not METHODS["conditional Granger"](x)[0, 1]


def test_targets_name_rows_of_the_table():
    assert set(TARGETS) < set(SETTINGS)
    assert [SETTINGS[name].noise for name in TARGETS].count("garch") == 1
    assert all((SETTINGS[name].series, SETTINGS[name].rows) == (20, 5000) for name in TARGETS)
