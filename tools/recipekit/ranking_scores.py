"""Scores of rankings: how well estimates order the rows of a group (the responses to one odai), and their intervals.

Each group has an NDCG, a Spearman's correlation and a share of best rows on top, worked out once for all groups by
sorting; their means over groups, as the errors, follow from sums over groups, so resampling groups is a product of two
matrices. NDCG over all rows as one list is no mean over groups: its rows are sorted once, and each resample's ranks are
running totals of how often each row was drawn.

Conventions: rows with equal estimates share what their places are worth, as in scikit-learn's `ndcg_score`, so that
what ranks nothing gets the score of a random order. Gains are linear: gold values less the least of the scale, for
negative gains have no NDCG. A group whose gold values are all the same, which includes one with a single row, has no
order to find: it is left out of `ndcg`, `spearman` and `top1`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recipekit import regression_scores
from recipekit.regression_scores import Array, Pairs, difference, draws
from recipekit.release import Difference
from recipekit.scoring import CHUNK, Estimate, interval

METRICS = ("mse", "rmse", "mae", "r2", "ndcg", "ndcg_global", "spearman", "top1")
OF_GROUPS = ("ndcg", "spearman", "top1")  # means over groups

Places = NDArray[np.int64]


class Quality(NamedTuple):
    """How well the rows of each group are ordered.

    Attributes:
        ndcg: Float of shape [groups].
        spearman: Float of shape [groups]; 0 where all estimates of a group are the same.
        top1: Float of shape [groups], the share of a group's highest estimates whose gold value is the highest.
        ranked: Bool of shape [groups], whether there is an order to find; where there is none, the others are 0.
    """

    ndcg: Array
    spearman: Array
    top1: Array
    ranked: NDArray[np.bool_]


def quality(gold: Array, predicted: Array, owner: Places, groups: int, least: float) -> Quality:
    """Score the order of each group's rows.

    Args:
        gold: Float of shape [rows].
        predicted: Float of shape [rows].
        owner: Int of shape [rows], the number of a row's group.
        groups: How many groups there are; each has a row at least.
        least: The least value of gold's scale.
    """

    def add(values: Array) -> Array:
        return np.asarray(np.bincount(owner, weights=values, minlength=groups), dtype=float)

    rows = np.bincount(owner, minlength=groups)
    worth, rank = _shared(predicted, owner, rows)
    best_worth, best_rank = _shared(gold, owner, rows)
    middle = ((rows + 1) / 2)[owner]
    varied_g, varied_p = add((best_rank - middle) ** 2), add((rank - middle) ** 2)
    ranked = varied_g > 0
    together = add((rank - middle) * (best_rank - middle))
    first, best = (values == _highest(values, owner, groups)[owner] for values in (predicted, gold))
    ndcg = _ratio(add((gold - least) * worth), add((gold - least) * best_worth))
    spearman = _ratio(together, np.sqrt(varied_g * varied_p))
    top1 = add((first & best).astype(float)) / add(first.astype(float))
    ndcg, spearman, top1 = (np.where(ranked, values, 0.0) for values in (ndcg, spearman, top1))
    return Quality(ndcg, spearman, top1, ranked)


def ranks(values: Array, owner: Places, groups: int) -> Array:
    """Rank the rows of each group, the highest first; equal values share the mean of their ranks, from 1."""
    return _shared(values, owner, np.bincount(owner, minlength=groups))[1]


def _shared(values: Array, owner: Places, rows: Places) -> tuple[Array, Array]:
    """Tell what each row's place in its group is worth, and its rank; equal values share the mean of both."""
    order = np.lexsort((-values, owner))
    place = np.arange(len(values)) - np.repeat(np.cumsum(rows) - rows, rows)
    ordered, owners = values[order], owner[order]
    begins = np.concatenate([[True], (ordered[1:] != ordered[:-1]) | (owners[1:] != owners[:-1])])
    run = np.cumsum(begins) - 1
    shared = np.empty((2, len(values)))
    for own, what in zip(shared, (1 / np.log2(place + 2), place + 1.0), strict=True):
        own[order] = (np.bincount(run, weights=what) / np.bincount(run))[run]
    return shared[0], shared[1]


def _highest(values: Array, owner: Places, groups: int) -> Array:
    found = np.full(groups, -np.inf)
    np.maximum.at(found, owner, values)
    return found


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


class WholeList:
    """NDCG of all rows as one list, for any number of times that each group counts.

    Args:
        gains: Float of shape [rows], not negative.
        predicted: Float of shape [rows].
        owner: Int of shape [rows], the number of a row's group.
        groups: How many groups there are.
    """

    def __init__(self, gains: Array, predicted: Array, owner: Places, groups: int) -> None:
        self.rows = np.bincount(owner, minlength=groups)
        self.sides = [_by_value(values, gains, owner, groups) for values in (predicted, gains)]
        self.worth = np.zeros(1)  # of the first so many places together

    def ndcg(self, drawn: Array) -> Array:
        """Score the list of each resample.

        Args:
            drawn: How often each group counts, float of shape [resamples, groups]; not all 0.

        Returns:
            Float of shape [resamples]; nan where there is nothing to gain.
        """
        most = int((drawn @ self.rows).max())
        if most >= len(self.worth):
            self.worth = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, most + 2)))])
        step = max(1, CHUNK // (2 * max(numbers.shape[0] for numbers, _ in self.sides)))
        parts = [self._ndcg(drawn[start : start + step].T) for start in range(0, len(drawn), step)]
        return np.concatenate(parts)

    def _ndcg(self, times: Array) -> Array:
        found, best = (self._gained(numbers @ times, gains @ times) for numbers, gains in self.sides)
        return np.divide(found, best, out=np.full_like(found, np.nan), where=best > 0)

    def _gained(self, numbers: Array, gains: Array) -> Array:
        """Add up gains times what places are worth; rows of one value share their places alike."""
        worth = np.diff(self.worth[np.cumsum(numbers, 0).astype(np.int64)], axis=0, prepend=0.0)
        return (np.divide(gains, numbers, out=gains, where=numbers > 0) * worth).sum(0)


def _by_value(values: Array, gains: Array, owner: Places, groups: int) -> tuple[csr_array, csr_array]:
    """Return how many rows of each group have a value, highest first, and their gains: both [values, groups]."""
    found, place = np.unique(-values, return_inverse=True)
    shape = len(found), groups
    numbers, gained = (csr_array((each, (place, owner)), shape) for each in (np.ones(len(values)), gains))
    return numbers, gained


class Lists:
    """Estimates beside gold values, and what all scores of them follow from.

    Args:
        pairs: Rows of one target, shape [rows, 1]; at least one.
        least: The least value of the target's scale.
    """

    def __init__(self, pairs: Pairs, least: float) -> None:
        self.pairs = pairs
        self.gains = pairs.gold[:, 0] - least
        self.quality = quality(pairs.gold[:, 0], pairs.predicted[:, 0], pairs.owner, pairs.groups, least)
        self.sums = np.hstack([regression_scores.sums(pairs)[:, 0], np.stack(self.quality, axis=1)])
        self.whole = WholeList(self.gains, pairs.predicted[:, 0], pairs.owner, pairs.groups)

    def metrics(self, total: Array, ndcg_global: Array) -> dict[str, Array]:
        """Work out every metric.

        Args:
            total: Added sums, float of shape [resamples, 13].
            ndcg_global: Of the same rows, float of shape [resamples].

        Returns:
            Metric -> float of shape [resamples]; nan where undefined.
        """
        errors = regression_scores.metrics(total[:, None, :-4], self.pairs)
        found = {name: errors[name][:, 1] for name in ("mse", "mae", "r2")}
        ranked = np.where(total[:, -1] > 0, total[:, -1], np.nan)
        found |= {name: total[:, place] / ranked for name, place in zip(OF_GROUPS, (-4, -3, -2), strict=True)}
        found["rmse"] = np.sqrt(found["mse"])
        found["ndcg_global"] = np.where(np.isnan(found["r2"]), np.nan, ndcg_global)
        return {name: found[name] for name in METRICS}

    def scores(self, times: Array) -> dict[str, Array]:
        """Work out every metric for so many times that each group counts, float of shape [resamples, groups]."""
        return self.metrics(times @ self.sums, self.whole.ndcg(times))


def estimate(lists: Lists, resamples: int, seed: int) -> dict[str, Estimate]:
    """Estimate every metric with its percentile interval over groups.

    Args:
        lists: What is scored.
        resamples: How often groups are drawn anew.
        seed: Of the draws.

    Returns:
        Metric -> estimate; a single group gives no interval.
    """
    groups = lists.pairs.groups
    values = lists.scores(np.ones((1, groups)))
    parts = [lists.scores(times) for times in draws(groups, resamples, seed)] if groups > 1 else []
    spread = _joined(parts) if parts else dict.fromkeys(METRICS, np.empty(0))
    return {
        name: Estimate(None, None, None) if np.isnan(value) else Estimate(float(value), *interval(spread[name]))
        for name, [value] in values.items()
    }


def compare(a: Lists, b: Lists, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare two estimates of the same rows: a paired bootstrap over groups, and a permutation test.

    The test exchanges the two estimates of whole groups by chance.

    Args:
        a: The first estimates.
        b: The second, of the same rows and groups.
        resamples: How often groups are drawn anew, the same ones for both.
        seed: Of the draws.

    Returns:
        Metric -> b - a; without those that are undefined, and nothing where there is one group.
    """
    groups = a.pairs.groups
    if groups < 2:
        return {}
    values = [lists.scores(np.ones((1, groups))) for lists in (a, b)]
    spread = _joined(_less(a.scores(times), b.scores(times)) for times in draws(groups, resamples, seed))
    chance = _joined(_exchanged(a, b, resamples, seed))
    found = {name: difference(values[0][name][0], values[1][name][0], spread[name], chance[name]) for name in METRICS}
    return {name: one for name, one in found.items() if one}


def _exchanged(a: Lists, b: Lists, resamples: int, seed: int) -> Iterator[dict[str, Array]]:
    """Exchange the estimates of two predictions, a group's with a probability of one half."""
    random = np.random.default_rng(seed)
    groups = a.pairs.groups
    both = WholeList(
        np.tile(a.gains, 2),
        np.concatenate([lists.pairs.predicted[:, 0] for lists in (a, b)]),
        np.concatenate([a.pairs.owner, a.pairs.owner + groups]),
        2 * groups,
    )
    step = max(1, CHUNK // groups)
    for start in range(0, resamples, step):
        turned = random.integers(2, size=(min(step, resamples - start), groups), dtype=np.int8).astype(float)
        sides = [np.hstack(pair) for pair in ((1 - turned, turned), (turned, 1 - turned))]
        sums = np.vstack([a.sums, b.sums])
        yield _less(*(a.metrics(times @ sums, both.ndcg(times)) for times in sides))


def _less(first: dict[str, Array], second: dict[str, Array]) -> dict[str, Array]:
    return {name: second[name] - first[name] for name in METRICS}


def _joined(parts: Iterator[dict[str, Array]] | list[dict[str, Array]]) -> dict[str, Array]:
    found = list(parts)
    return {name: np.concatenate([part[name] for part in found]) for name in METRICS}
