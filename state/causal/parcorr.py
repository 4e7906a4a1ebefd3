"""PCMCI with linear partial correlation, computed from lagged cross-moments alone.

PCMCI finds lagged causal links in two steps. *PC1* chooses, for every series, a small superset
of its lagged parents: a candidate is dropped as soon as it is not significant given the
strongest others. *MCI* then tests every link given the parents of both of its ends, which takes
out the autocorrelation that makes plain lagged correlation find links everywhere.

Every test is a partial correlation, and all of them are functions of one correlation matrix of
lag-embedded rows. So nothing here touches the rows: each round of PC1, and all of MCI, is a stack
of small Cholesky factors.

Source: J. Runge, P. Nowack, M. Kretschmer, S. Flaxman, D. Sejdinovic, "Detecting and quantifying
causal associations in large nonlinear time series datasets", Science Advances 5(11), 2019,
https://doi.org/10.1126/sciadv.aau4996. The conventions (ties, rows, limits) are those of the
authors' own `tigramite`, and the results equal it.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from state.causal.corrections import benjamini_hochberg
from state.causal.partial import Bools, Correlations, Floats, Ints

if TYPE_CHECKING:
    from state.moments import LaggedMoments

AUTOMATIC = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""The levels that `alpha=None` chooses from, per series, by Akaike's criterion."""


class Status(enum.IntEnum):
    """Why an entry of a result is, or is not, a number."""

    TESTED = 0
    """`value` and `p` are those of the test."""

    NOT_TESTED = 1
    """Outside the lags asked for: value 0 and p 1, as in `tigramite`."""

    CONSTANT = 2
    """One end of the link never changes: NaN."""

    COLLINEAR = 3
    """A test that the entry rests on is singular, its variables being linearly dependent: NaN."""

    SHORT = 4
    """No degree of freedom is left: NaN."""


@dataclass(frozen=True, slots=True)
class PcmciResult:
    """Links between N series at lags 0..L; arrays are (N, N, L + 1), [cause, effect, lag].

    Attributes:
        value: partial correlation of the MCI test, in [-1, 1].
        p: its two-sided p-value (Student's t with `df` degrees of freedom).
        q: Benjamini-Hochberg corrected over the family asked for, NaN outside of it.
        df: degrees of freedom: `rows` - 2 - number of conditions; 0 where nothing was tested.
        status: a `Status` for every entry; `value` and `p` are NaN from `CONSTANT` upwards.
        parents: per series, the (cause, lag) that PC1 kept, strongest first.
        alpha: per series, the level at which PC1 kept them.
        rows: lag-embedded rows that every test used, T - 2L of them.
    """

    value: Floats
    p: Floats
    q: Floats
    df: Ints
    status: npt.NDArray[np.int8]
    parents: tuple[tuple[tuple[int, int], ...], ...]
    alpha: tuple[float, ...]
    rows: int

    @property
    def singular(self) -> Bools:
        """Where the answer is undefined and therefore NaN."""
        undefined: Bools = self.status >= Status.CONSTANT
        return undefined

    def links(self, level: float = 0.05) -> Bools:
        """Return the links found at false discovery rate `level`, (N, N, L + 1)."""
        found: Bools = self.q <= level
        return found


def pcmci(
    moments: LaggedMoments,
    max_lag: int,
    *,
    min_lag: int = 1,
    alpha: float | Sequence[float] | None = 0.05,
    max_conds_dim: int | None = None,
    max_combinations: int = 1,
    max_conds_py: int | None = None,
    max_conds_px: int | None = None,
    family: Literal["lagged", "cross", "all"] = "lagged",
) -> PcmciResult:
    """Find lagged causal links by momentary conditional independence (PCMCI, ParCorr).

    A link is causal only if no unobserved series drives both of its ends and relations are
    linear. A series that never changes is left out of all conditions, and the links at either
    end of it are `Status.CONSTANT`. Where a test of PC1 is singular (a series that is a linear
    function of others) the parents of its target are unknown: all links into and out of that
    target are `Status.COLLINEAR`, and the other links stand.

    Args:
        moments: the lagged moments of N series; `moments.max_lag` must be at least 2 `max_lag`,
            because the conditions of a cause at lag L reach back L further.
        max_lag: the largest lag L of a link, in rows.
        min_lag: the smallest; 0 adds undirected contemporaneous links, given lagged parents.
        alpha: level of PC1. Several levels, or None for `AUTOMATIC`: each series takes the level
            whose parents have the least Akaike criterion.
        max_conds_dim: the most conditions in PC1; None for no limit.
        max_combinations: condition sets of each size that PC1 tries per candidate.
        max_conds_py: the most parents of the effect that MCI conditions on.
        max_conds_px: the most parents of the cause that MCI conditions on.
        family: what `q` corrects over: "lagged" all links at lags >= 1, a series' own past
            included (`tigramite`'s default); "cross" those with cause != effect; "all" the
            contemporaneous ones too.

    Raises:
        ValueError: an argument is out of range, `moments` reaches back too little or is not
            finite.

    >>> import numpy as np
    >>> from state.moments import LaggedMoments
    >>> noise = np.random.default_rng(7).standard_normal((500, 3))
    >>> x = noise.copy()
    >>> for t in range(2, 500):
    ...     x[t, 1] += 0.6 * x[t - 1, 0]
    ...     x[t, 2] += 0.6 * x[t - 2, 1]
    >>> found = pcmci(LaggedMoments.from_rows(x, 4), 2)
    >>> np.argwhere(found.links()).tolist()
    [[0, 1, 1], [1, 2, 2]]
    >>> found.parents
    ((), ((0, 1),), ((1, 2),))
    """
    levels = _levels(alpha)
    if not 0 <= min_lag <= max_lag or max_lag < 1:
        raise ValueError(f"lags must be 0 <= min_lag <= max_lag >= 1, not {min_lag} and {max_lag}")
    if moments.max_lag < 2 * max_lag:
        raise ValueError(
            f"links up to lag {max_lag} need moments up to lag {2 * max_lag}, "
            f"these stop at {moments.max_lag}"
        )
    for name, limit, least in (
        ("max_conds_dim", max_conds_dim, 0),
        ("max_combinations", max_combinations, 1),
        ("max_conds_py", max_conds_py, 0),
        ("max_conds_px", max_conds_px, 0),
    ):
        if limit is not None and limit < least:
            raise ValueError(f"{name} must be at least {least}, not {limit}")
    if family not in ("lagged", "cross", "all"):
        raise ValueError(f"family must be 'lagged', 'cross' or 'all', not {family!r}")

    tests = Correlations(moments.scatter(2 * max_lag), max_lag)
    lowest = max(1, min_lag)
    if max_conds_dim is None:
        max_conds_dim = tests.series * (max_lag - lowest + 1)
    chosen = _select(tests, levels, lowest, max_conds_dim, max_combinations)
    value, p, df, status = _mci(tests, chosen, min_lag, max_conds_py, max_conds_px)
    n = tests.series
    return PcmciResult(
        value=value,
        p=p,
        q=_corrected(p, status, family),
        df=df,
        status=status,
        parents=tuple(
            tuple((int(node) % n, int(node) // n) for node in nodes[:count])
            for nodes, count in zip(chosen.nodes, chosen.count, strict=True)
        ),
        alpha=tuple(float(a) for a in chosen.alpha),
        rows=tests.rows,
    )


@dataclass(slots=True)
class _Chosen:
    """Parents of each series: `nodes` (N, most) of which the first `count` (N,) hold."""

    nodes: Ints
    count: Ints
    alpha: Floats
    collinear: Bools


def _select(
    tests: Correlations, levels: Floats, min_lag: int, max_conds_dim: int, max_combinations: int
) -> _Chosen:
    """Choose the parents of every series (the PC1 step), all series and levels side by side."""
    n, lags = tests.series, np.arange(min_lag, tests.max_lag + 1)
    # Ties keep this order: by cause, then by lag.
    candidates = (lags * n + np.arange(n)[:, None]).ravel()
    target = np.repeat(np.arange(n), len(levels))
    alpha = np.tile(levels, n)
    kept = ~tests.constant[candidates] & ~tests.constant[target][:, None]
    weakest = np.full(kept.shape, np.inf)
    collinear = np.zeros(len(target), np.bool_)
    order = np.broadcast_to(np.arange(len(candidates)), kept.shape)

    for dim in range(max_conds_dim + 1):
        count = kept.sum(axis=1)
        active = (count > dim) & ~collinear
        if not active.any():
            break
        if tests.rows - 2 - dim < 1:
            kept[active] = False
            break
        ranked = candidates[order]
        # One test per (series and level, candidate at that rank); rank tells its conditions.
        row, rank = np.nonzero(active[:, None] & (np.arange(kept.shape[1]) < count[:, None]))
        for combination in range(max_combinations):
            if not len(row):
                break
            others, row, rank = _conditions(count, row, rank, dim, combination)
            nodes = np.empty((len(row), dim + 2), np.intp)
            nodes[:, :dim] = ranked[row[:, None], others]
            nodes[:, dim] = ranked[row, rank]
            nodes[:, dim + 1] = target[row]
            value, p, singular = tests.partial(nodes)
            collinear[row[singular]] = True
            place = order[row, rank]
            weakest[row, place] = np.fmin(weakest[row, place], np.abs(value))
            dependent = p <= alpha[row]
            kept[row[~dependent], place[~dependent]] = False
            row, rank = row[dependent], rank[dependent]
        order = np.argsort(np.where(kept, -weakest, np.inf), axis=1, kind="stable")

    kept[collinear] = False
    count = kept.sum(axis=1)
    most = int(count.max(initial=0))
    nodes = candidates[order[:, :most]]
    best = np.arange(n) * len(levels)
    if len(levels) > 1:
        best += _criterion(tests, target, nodes, count).reshape(n, -1).argmin(axis=1)
    unknown: Bools = np.logical_or.reduce(collinear.reshape(n, -1), axis=1)
    return _Chosen(nodes[best], np.where(unknown, 0, count[best]), alpha[best], unknown)


def _conditions(
    count: Ints, row: Ints, rank: Ints, dim: int, combination: int
) -> tuple[Ints, Ints, Ints]:
    """Return the ranks (B, dim) of the given combination of conditions, and who has one.

    Combinations are in lexicographic order over the other candidates, strongest first.
    """
    if combination == 0:
        first = np.arange(dim)
        # The strongest `dim` others: those ranked at or behind the candidate move up by one.
        return first + (first >= rank[:, None]), row, rank
    sets: dict[int, Ints | None] = {}
    for others in np.unique(count[row] - 1):
        found = next(
            itertools.islice(itertools.combinations(range(others), dim), combination, None), None
        )
        sets[int(others)] = None if found is None else np.array(found, np.intp)
    has = np.array([sets[int(others)] is not None for others in count[row] - 1], np.bool_)
    row, rank = row[has], rank[has]
    chosen = [sets[int(others)] for others in count[row] - 1]
    ranks = np.array(chosen, np.intp).reshape(len(row), dim)
    return ranks + (ranks >= rank[:, None]), row, rank


def _criterion(tests: Correlations, target: Ints, nodes: Ints, count: Ints) -> Floats:
    """Return Akaike's criterion of regressing each target on its parents."""
    score = np.empty(len(target))
    for k in np.unique(count):
        at = np.flatnonzero(count == k)
        last = tests.factor(np.column_stack([nodes[at, :k], target[at]]))[0][:, -1]
        with np.errstate(divide="ignore"):
            score[at] = tests.rows * np.log(tests.rows * last**2) + 2.0 * (k + 1)
    return score


def _mci(
    tests: Correlations,
    chosen: _Chosen,
    min_lag: int,
    max_conds_py: int | None,
    max_conds_px: int | None,
) -> tuple[Floats, Floats, Ints, npt.NDArray[np.int8]]:
    """Test every link given the parents of both its ends (the MCI step)."""
    n = tests.series
    shape = (n, n, tests.max_lag + 1)
    value, p = np.zeros(shape), np.ones(shape)
    df = np.zeros(shape, np.intp)
    status = np.full(shape, Status.NOT_TESTED, np.int8)

    wanted = np.ones(shape, np.bool_)
    wanted[:, :, :min_lag] = False
    wanted[np.arange(n), np.arange(n), 0] = False
    cause, effect, lag = np.nonzero(wanted)
    x = lag * n + cause
    known = np.arange(chosen.nodes.shape[1]) < chosen.count[:, None]
    of_effect = chosen.nodes[effect, :max_conds_py]
    of_cause = chosen.nodes[cause, :max_conds_px] + (lag * n)[:, None]
    use_effect = known[effect, :max_conds_py] & (of_effect != x[:, None])
    member = np.zeros((n, tests.size), np.bool_)
    rows, columns = np.nonzero(known[:, :max_conds_py])
    member[rows, chosen.nodes[rows, columns]] = True
    use_cause = known[cause, :max_conds_px] & ~member[effect[:, None], of_cause]
    use_cause &= ~tests.constant[of_cause]

    conditions = np.concatenate([of_effect, of_cause], axis=1)
    use = np.concatenate([use_effect, use_cause], axis=1)
    count = use.sum(axis=1)
    freedom = tests.rows - 2 - count
    outcome = np.full(len(x), Status.TESTED, np.int8)
    outcome[freedom < 1] = Status.SHORT
    outcome[chosen.collinear[effect] | chosen.collinear[cause]] = Status.COLLINEAR
    outcome[tests.constant[x] | tests.constant[effect]] = Status.CONSTANT
    if tests.rows < 3:
        outcome[:] = Status.SHORT

    r, prob = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for k in np.unique(count[outcome == Status.TESTED]):
        at = np.flatnonzero((count == k) & (outcome == Status.TESTED))
        nodes = np.empty((len(at), k + 2), np.intp)
        nodes[:, :k] = conditions[at][use[at]].reshape(len(at), k)
        nodes[:, k] = x[at]
        nodes[:, k + 1] = effect[at]
        r[at], prob[at], singular = tests.partial(nodes)
        outcome[at[singular]] = Status.COLLINEAR

    value[wanted], p[wanted], status[wanted] = r, prob, outcome
    df[wanted] = np.maximum(freedom, 0)
    # A contemporaneous link has no direction: the test with the larger p stands for both.
    upper, lower = np.triu_indices(n, 1)
    worst = np.where(np.isnan(p[:, :, 0]), np.inf, p[:, :, 0])
    larger = worst[upper, lower] >= worst[lower, upper]
    for array in (value, df, status, p):
        here, there = array[upper, lower, 0], array[lower, upper, 0]
        array[upper, lower, 0] = array[lower, upper, 0] = np.where(larger, here, there)
    return value, p, df, status


def _corrected(p: Floats, status: npt.NDArray[np.int8], family: str) -> Floats:
    """Correct the p-values of `family` for how many they are."""
    among = status == Status.TESTED
    if family != "all":
        among[:, :, 0] = False
    if family == "cross":
        among[np.arange(len(p)), np.arange(len(p))] = False
    return benjamini_hochberg(np.where(among, p, np.nan))


def _levels(alpha: float | Sequence[float] | None) -> Floats:
    levels = np.atleast_1d(np.asarray(AUTOMATIC if alpha is None else alpha, np.float64))
    if levels.ndim != 1 or not len(levels) or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f"alpha must be within 0 and 1, not {alpha!r}")
    return levels
