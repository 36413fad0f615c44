"""Scores of estimated numbers and their intervals, from sums over groups of rows.

All that is scored but Spearman's correlation follows from nine sums of a group's rows (a speaker's, say), so resampling
groups is a product of two matrices: how often each group was drawn, and the groups' sums. Spearman's correlation needs
the ranks of each resample: rows are sorted once, and ranks are running totals of how often each row was drawn.

Conventions: a correlation with predictions or gold values that are all the same is undefined, as is R2 where the gold
values are; undefined is nan here and null in metrics.json. `overall` is the mean over targets, undefined where one is.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from recipekit.release import Difference
from recipekit.scoring import CHUNK, Estimate, interval

METRICS = ("mse", "mae", "r2", "pearson", "spearman", "bias")
LOWER_IS_BETTER = ("mse", "mae")
OVERALL = "overall"
RANKED = 2_500_000_000  # ranks that a bootstrap of Spearman's correlation may take; more rows get fewer resamples
DIGITS = 9  # decimals in which values differ that have different ranks
ALIKE = 1e-12  # variance, of a value's square, below which numbers differ by rounding alone

Array = NDArray[np.float64]


class Pairs(NamedTuple):
    """Gold and predicted values side by side.

    Attributes:
        gold: Float of shape [rows, targets].
        predicted: Float of shape [rows, targets].
        owner: Int of shape [rows], the number of a row's group.
        groups: How many groups there are; each has a row at least.
    """

    gold: Array
    predicted: Array
    owner: NDArray[np.int64]
    groups: int

    def means(self) -> "Pairs":
        """Average the rows of each group, which become one row."""
        rows = np.bincount(self.owner, minlength=self.groups)[:, None]
        gold, predicted = (_by_group(values, self.owner, self.groups) / rows for values in (self.gold, self.predicted))
        return Pairs(gold, predicted, np.arange(self.groups), self.groups)


def sums(pairs: Pairs) -> Array:
    """Return the sums that scores follow from, float of shape [groups, targets, 9].

    Values are centred first, lest squares of large numbers swallow their differences; all predictions of the same gold
    by the same number, so that sums of two of them can be mixed.
    """
    gold, predicted = (values - pairs.gold.mean(0) for values in (pairs.gold, pairs.predicted))
    error = pairs.predicted - pairs.gold
    parts = (
        np.ones_like(gold), error, np.abs(error), error**2, gold, gold**2, predicted, predicted**2, gold * predicted
    )  # fmt: skip
    return np.stack([_by_group(part, pairs.owner, pairs.groups) for part in parts], axis=-1)


def metrics(total: Array, pairs: Pairs) -> dict[str, Array]:
    """Work out every metric but Spearman's correlation.

    Args:
        total: Added sums, float of shape [..., targets, 9].
        pairs: What was summed; tells which differences are mere rounding.

    Returns:
        Metric -> float of shape [..., 1 + targets], the mean over targets first; nan where undefined.
    """
    n, error, absolute, squared, y, yy, p, pp, yp = np.moveaxis(total, -1, 0)
    varied_y, varied_p = _variation(n, y, yy, pairs.gold), _variation(n, p, pp, pairs.predicted)
    found = {
        "mse": squared / n,
        "mae": absolute / n,
        "r2": 1 - squared / varied_y,
        "pearson": (yp - y * p / n) / np.sqrt(varied_y * varied_p),
        "bias": error / n,
    }
    return {name: np.concatenate([v.mean(-1, keepdims=True), v], axis=-1) for name, v in found.items()}


def _variation(n: Array, total: Array, squares: Array, values: Array) -> Array:
    """Return the sum of squared deviations from the mean; nan where it is nothing but rounding."""
    found = squares - total**2 / n
    rounding = ALIKE * (squares + n * np.abs(values).max(0) ** 2)
    return np.where(found > rounding, found, np.nan)


def draws(groups: int, resamples: int, seed: int) -> Iterator[Array]:
    """Draw as many groups as there are, with replacement, again and again.

    Yields:
        How often each was drawn, float of shape [some of the resamples, groups].
    """
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // groups)
    for start in range(0, resamples, step):
        number = min(step, resamples - start)
        drawn = random.integers(groups, size=(number, groups)) + groups * np.arange(number)[:, None]
        yield np.bincount(drawn.ravel(), minlength=number * groups).reshape(number, groups).astype(float)


class Ranker:
    """Spearman's correlation of one target, for any number of times that each group counts.

    Rows of a group that have the same gold value are a class: they count equally often and have the same gold rank, so
    that all sums over rows are products with a sparse matrix, how many rows of a class have a predicted value.

    Args:
        gold: Float of shape [rows].
        predicted: Float of shape [rows].
        owner: Int of shape [rows], the number of a row's group.
    """

    def __init__(self, gold: Array, predicted: Array, owner: NDArray[np.int64]) -> None:
        # Equal values that were averaged differ in their last digits.
        golds, gold_place = np.unique(gold.round(DIGITS), return_inverse=True)
        values, place = np.unique(predicted.round(DIGITS), return_inverse=True)
        classes, of_row = np.unique(owner * len(golds) + gold_place, return_inverse=True)
        self.owner, self.gold = np.divmod(classes, len(golds))
        shape = len(values), len(classes)
        self.predicted = csr_array((np.ones(len(gold)), (place, of_row)), shape)
        sizes, every = np.bincount(of_row).astype(float), np.arange(len(classes))
        self.sizes = csr_array((sizes, (self.gold, every)), (len(golds), len(classes)))

    def correlations(self, drawn: Array) -> Array:
        """Correlate the ranks of each resample; equal values share the mean of their ranks.

        Args:
            drawn: How often each group counts, float of shape [resamples, groups]; not all 0.

        Returns:
            Float of shape [resamples]; nan where undefined.
        """
        step = max(1, CHUNK // (2 * max(self.predicted.shape)))
        parts = [self._correlations(drawn[start : start + step]) for start in range(0, len(drawn), step)]
        return np.concatenate(parts)

    def _correlations(self, drawn: Array) -> Array:
        times = drawn.T[self.owner]
        gold, varied_g = _ranks(self.sizes @ times)
        numbers, products = np.hsplit(self.predicted @ np.hstack([times, times * gold[self.gold]]), 2)
        predicted, varied_p = _ranks(numbers)
        varied = varied_g * varied_p
        return (predicted * products).sum(0) / np.sqrt(np.where(varied > 0, varied, np.nan))


def _ranks(numbers: Array) -> tuple[Array, Array]:
    """Rank values that occur so many times, less the mean rank, and add up the squares over all that occur.

    Args:
        numbers: Float of shape [values, resamples].
    """
    ranks = np.cumsum(numbers, 0) - (numbers - 1) / 2 - (numbers.sum(0) + 1) / 2
    return ranks, (numbers * ranks**2).sum(0)


def rank_resamples(pairs: Pairs, resamples: int) -> int:
    """Tell how many of the resamples Spearman's correlation is worked out for."""
    return min(resamples, max(100, RANKED // pairs.gold.size))


def estimate(pairs: Pairs, resamples: int, seed: int) -> dict[str, list[Estimate]]:
    """Estimate every metric with its percentile interval over groups.

    Args:
        pairs: At least one row.
        resamples: How often groups are drawn anew.
        seed: Of the draws.

    Returns:
        Metric -> one for the mean over targets, and one for each target; a single group gives no interval.
    """
    per_group = sums(pairs)
    rankers = [Ranker(pairs.gold[:, i], pairs.predicted[:, i], pairs.owner) for i in range(pairs.gold.shape[1])]
    values = metrics(per_group.sum(0), pairs) | {"spearman": _ranked(rankers, np.ones((1, pairs.groups)))[0]}
    spread: dict[str, list[Array]] = {name: [] for name in METRICS}
    left = rank_resamples(pairs, resamples)
    for drawn in draws(pairs.groups, resamples, seed) if pairs.groups > 1 else ():
        for name, found in metrics(_add(drawn, per_group), pairs).items():
            spread[name].append(found)
        if left > 0:
            spread["spearman"].append(_ranked(rankers, drawn[:left]))
            left -= len(drawn)
    return {name: _with_intervals(values[name], spread[name]) for name in METRICS}


def compare(a: Pairs, b: Pairs, resamples: int, seed: int) -> dict[str, list[Difference | None]]:
    """Compare two predictions of the same rows: a paired bootstrap over groups, and a permutation test.

    The test exchanges the two predictions of a group by chance. Spearman's correlation is left out.

    Args:
        a: The first predictions.
        b: The second, of the same rows and groups.
        resamples: How often groups are drawn anew, the same ones for both.
        seed: Of the draws.

    Returns:
        Metric -> b - a for the mean over targets and each target; None where it is undefined or there is one group.
    """
    sums_a, sums_b = sums(a), sums(b)
    values = [metrics(found.sum(0), pairs) for found, pairs in ((sums_a, a), (sums_b, b))]
    if a.groups < 2:
        return {name: [None] * len(found) for name, found in values[0].items()}
    drawn = draws(a.groups, resamples, seed)
    spread = _differences(((_add(times, sums_a), _add(times, sums_b)) for times in drawn), a, b)
    chance = _differences(_exchanged(sums_a, sums_b, resamples, seed), a, b)
    return {
        name: [
            difference(values[0][name][i], values[1][name][i], spread[name][:, i], chance[name][:, i])
            for i in range(len(values[0][name]))
        ]
        for name in values[0]
    }


def _by_group(values: Array, owner: NDArray[np.int64], groups: int) -> Array:
    columns = [np.bincount(owner, weights=column, minlength=groups) for column in values.T]
    return np.stack(columns, axis=-1)


def _add(times: Array, per_group: Array) -> Array:
    """Add up groups' sums, float of shape [groups, targets, 9], each as often as its group counts: [resamples, ...]."""
    flat = times @ per_group.reshape(len(per_group), -1)
    return flat.reshape(len(times), *per_group.shape[1:])


def _ranked(rankers: list[Ranker], drawn: Array) -> Array:
    found = np.stack([ranker.correlations(drawn) for ranker in rankers], axis=1)
    return np.concatenate([found.mean(1, keepdims=True), found], axis=1)


def _with_intervals(values: Array, spread: list[Array]) -> list[Estimate]:
    drawn = np.concatenate(spread) if spread else np.empty((0, len(values)))
    return [
        Estimate(None, None, None) if np.isnan(value) else Estimate(float(value), *interval(column))
        for value, column in zip(values, drawn.T, strict=True)
    ]


def _exchanged(a: Array, b: Array, resamples: int, seed: int) -> Iterator[tuple[Array, Array]]:
    """Exchange the sums of two predictions, a group's with a probability of one half."""
    random = np.random.default_rng(seed)
    whole = (a + b).sum(0)
    step = max(1, CHUNK // len(a))
    for start in range(0, resamples, step):
        turned = random.integers(2, size=(min(step, resamples - start), len(a)), dtype=np.int8).astype(float)
        first = a.sum(0) + _add(turned, b - a)
        yield first, whole - first


def _differences(totals: Iterator[tuple[Array, Array]], a: Pairs, b: Pairs) -> dict[str, Array]:
    parts: dict[str, list[Array]] = {}
    for first, second in totals:
        left, right = metrics(first, a), metrics(second, b)
        for name in left:
            parts.setdefault(name, []).append(right[name] - left[name])
    return {name: np.concatenate(found) for name, found in parts.items()}


def difference(a: float, b: float, spread: Array, chance: Array) -> Difference | None:
    """Say how a metric differs between two predictions.

    Args:
        a: The metric of the first.
        b: The metric of the second.
        spread: b - a in each resample.
        chance: b - a where estimates are exchanged by chance.

    Returns:
        None where the metric is undefined.
    """
    low, high = interval(spread)
    if low is None or high is None or np.isnan(a) or np.isnan(b):
        return None
    as_large = (np.abs(np.nan_to_num(chance)) >= abs(b - a) - 1e-12).sum()
    return Difference(float(a), float(b), float(b - a), low, high, float((as_large + 1) / (len(chance) + 1)))
