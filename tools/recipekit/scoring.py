"""Scores and their intervals, from counts per article.

What counts in one article are small whole numbers (a vector: matched, spurious and missed values per field, persons,
flags). Articles with equal vectors are kept as one vector and a number, so memory does not grow with the articles, and
resampling articles is drawing from a multinomial distribution over the vectors that occur.

Conventions for 0/0: a field with neither gold nor predicted values has no scores (None) and is left out of the macro
mean; elsewhere precision, recall and F1 of nothing are 0, as in scikit-learn; a rate over no articles is None.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recipekit.compare import Comparison
from recipekit.task import Task

LEVEL = 0.95
CHUNK = 4_000_000  # numbers drawn at a time

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A metric with its bootstrap interval; all None where there is nothing to score."""

    value: float | None
    low: float | None
    high: float | None


class Layout:
    """Which place of an article's vector counts what, and the metrics that follow from sums of vectors.

    Args:
        columns: Gold columns.
        entities: Names of entities.
    """

    def __init__(self, columns: Sequence[str], entities: Sequence[str]) -> None:
        self.columns = list(columns)
        self.entities = list(entities)
        self.places = {name: 3 * place for place, name in enumerate(self.columns)}
        first = 3 * len(self.columns)
        self.entity_places = {name: first + 3 * place for place, name in enumerate(self.entities)}
        self.flags = first + 3 * len(self.entities)
        self.size = self.flags + 5

    @classmethod
    def of(cls, task: Task) -> "Layout":
        """Lay out what task.yml compares."""
        return cls(list(task.gold_columns), list(task.spec["gold"].get("entities", {})))

    def vector(self, comparison: Comparison, negative: bool) -> tuple[int, ...]:
        """Count one article."""
        counts = [0] * self.size
        clean = True
        for slot in comparison.slots:
            place = self.places[slot.column]
            if slot.right:
                counts[place] += 1
                continue
            clean = False
            counts[place + 1] += slot.predicted is not None
            counts[place + 2] += slot.gold is not None
        for name, (gold, predicted, right) in comparison.entities.items():
            place = self.entity_places[name]
            counts[place : place + 3] = right, predicted - right, gold - right
        found = negative and any(slot.predicted is not None for slot in comparison.slots)
        flags = (1, negative, found, comparison.valid, comparison.valid and clean)
        counts[self.flags :] = map(int, flags)
        return tuple(counts)

    def metrics(self, sums: Array) -> dict[str, Array]:
        """Work out every metric.

        Args:
            sums: Summed vectors, float of shape [..., size].

        Returns:
            Metric's dotted name -> float of shape [...]; nan where there is nothing to score.
        """
        names = {f"fields.{name}": place for name, place in self.places.items()}
        names |= {f"entities.{name}": place for name, place in self.entity_places.items()}
        found: dict[str, Array] = {}
        for name, place in names.items():
            scores = prf(sums[..., place], sums[..., place + 1], sums[..., place + 2])
            found |= {f"{name}.{key}": value for key, value in scores.items()}
        values = sums[..., : 3 * len(self.columns)].reshape(*sums.shape[:-1], len(self.columns), 3).sum(-2)
        micro = prf(values[..., 0], values[..., 1], values[..., 2])
        found |= {f"micro.{key}": value for key, value in micro.items()}
        for key in micro:
            fields = np.stack([found[f"fields.{name}.{key}"] for name in self.columns])
            scored = (~np.isnan(fields)).sum(0)
            found[f"macro.{key}"] = _rate(np.nansum(fields, axis=0), scored)
        articles, negatives, found_in, valid, exact = (sums[..., self.flags + i] for i in range(5))
        found["false_positive_rate"] = _rate(found_in, negatives)
        found["valid_json_rate"] = _rate(valid, articles)
        found["exact_match_rate"] = _rate(exact, articles)
        return found

    def names(self) -> list[str]:
        """Name the metrics."""
        return list(self.metrics(np.zeros(self.size)))

    def counts(self, sums: Array) -> dict[str, int]:
        """Name the counts that metrics come from."""
        triples = {f"fields.{name}": place for name, place in self.places.items()}
        triples |= {f"entities.{name}": place for name, place in self.entity_places.items()}
        named = {f"{n}.{key}": int(sums[p + i]) for n, p in triples.items() for i, key in enumerate(("tp", "fp", "fn"))}
        for i, key in enumerate(("tp", "fp", "fn")):
            named[f"micro.{key}"] = int(sum(sums[place + i] for place in self.places.values()))
        flags = ("articles", "negatives", "false_positives", "valid", "exact")
        return named | {name: int(sums[self.flags + i]) for i, name in enumerate(flags)}

    def numbers(self, sums: Array) -> dict[str, int]:
        """Tell for each metric but the macro means of how many values or articles it is a share."""
        counts = self.counts(sums)
        owners = [*(f"fields.{n}" for n in self.columns), *(f"entities.{n}" for n in self.entities), "micro"]
        found = {"false_positive_rate": counts["negatives"]}
        found |= dict.fromkeys(("valid_json_rate", "exact_match_rate"), counts["articles"])
        for name in owners:
            tp, fp, fn = (counts[f"{name}.{key}"] for key in ("tp", "fp", "fn"))
            found |= {f"{name}.precision": tp + fp, f"{name}.recall": tp + fn, f"{name}.f1": tp + fp + fn}
        return found


def prf(tp: Array, fp: Array, fn: Array) -> dict[str, Array]:
    """Return precision, recall and F1; 0 where only one side is empty, nan where both are."""
    nothing = tp + fp + fn == 0
    scores = {"precision": _rate(tp, tp + fp), "recall": _rate(tp, tp + fn), "f1": _rate(2 * tp, 2 * tp + fp + fn)}
    return {key: np.where(nothing, np.nan, np.nan_to_num(value)) for key, value in scores.items()}


def _rate(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


class Tally:
    """Vectors of articles, equal ones counted together."""

    def __init__(self) -> None:
        self.vectors: Counter[tuple[int, ...]] = Counter()

    def add(self, vector: tuple[int, ...]) -> None:
        """Add an article."""
        self.vectors[vector] += 1

    def sums(self) -> Array:
        """Return the sum over articles, float of shape [size]."""
        return sum((n * np.array(v, dtype=float) for v, n in self.vectors.items()), np.zeros(1))

    def resample(self, resamples: int, seed: int) -> Iterator[Array]:
        """Draw as many articles as there are, with replacement, again and again.

        The order in which articles were added does not matter.

        Yields:
            Sums over the articles drawn, float of shape [some of the resamples, size].
        """
        ordered = sorted(self.vectors)
        vectors = np.array(ordered, dtype=float)
        numbers = np.array([self.vectors[vector] for vector in ordered])
        random = np.random.default_rng(seed)
        step = max(1, CHUNK // len(ordered))
        for start in range(0, resamples, step):
            drawn = random.multinomial(numbers.sum(), numbers / numbers.sum(), size=min(step, resamples - start))
            yield drawn @ vectors

    def swap(self, resamples: int, seed: int) -> Iterator[Array]:
        """Exchange the two halves of vectors, an article's with a probability of one half, again and again.

        Yields:
            Sums over the articles, float of shape [some of the resamples, size].
        """
        ordered = sorted(self.vectors)
        vectors = np.array(ordered, dtype=float)
        half = vectors.shape[1] // 2
        turn = np.hstack([vectors[:, half:], vectors[:, :half]]) - vectors
        numbers = np.array([self.vectors[vector] for vector in ordered])
        random = np.random.default_rng(seed)
        step = max(1, CHUNK // len(ordered))
        for start in range(0, resamples, step):
            turned = random.binomial(numbers, 0.5, size=(min(step, resamples - start), len(ordered)))
            yield numbers @ vectors + turned @ turn


def estimate(layout: Layout, tally: Tally, resamples: int, seed: int) -> dict[str, Estimate]:
    """Estimate every metric with its percentile interval.

    Args:
        layout: What the vectors count.
        tally: The articles; at least one.
        resamples: How often articles are drawn anew.
        seed: Of the draws.
    """
    values = layout.metrics(tally.sums())
    parts = [layout.metrics(sums) for sums in tally.resample(resamples, seed)]
    found = {}
    for name, value in values.items():
        low, high = interval(np.concatenate([part[name] for part in parts]))
        found[name] = Estimate(None, None, None) if np.isnan(value) else Estimate(float(value), low, high)
    return found


def interval(draws: Array) -> tuple[float | None, float | None]:
    """Return the bounds that hold the middle 95% of resamples, those without a score left out."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return None, None
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def allowed(value: float, number: int) -> tuple[float, float]:
    """Return the true rates that still give none (value 0) or all (1) of a number of cases, in 5% of all samples."""
    least = (1 - LEVEL) ** (1 / number)
    return (least, 1.0) if value else (0.0, 1 - least)
