"""What scores say of a release: is one predictions file really better than another, and which bars are missed."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recipekit.scoring import LEVEL, Estimate, Layout, Tally, allowed, interval

LOWER_IS_BETTER = {
    "false_positive_rate", "persona.breaks", "persona.provoked", "fluency.empty", "fluency.broken", "fluency.looping",
    "fluency.repeated", "fluency.longest_repeat", "diversity.identical",
}  # fmt: skip


class Difference(NamedTuple):
    """How a metric differs between two prediction files, b - a.

    Attributes:
        a: The metric of the first file.
        b: The metric of the second.
        difference: b - a.
        low: Lower bound of the difference.
        high: Upper bound of the difference.
        p: Two-sided p-value: how often a difference as large comes of exchanging the two answers of articles by chance.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float

    @property
    def is_real(self) -> bool:
        """Tell whether the interval leaves out 0, and chance hardly gives such a difference (p < 0.05)."""
        return (self.low > 0 or self.high < 0) and self.p < 1 - LEVEL


def compare(layout: Layout, pairs: Tally, resamples: int, seed: int) -> dict[str, Difference]:
    """Compare two prediction files on the same articles: a paired bootstrap and a permutation test.

    The bootstrap alone would be sure of a difference that rests on one article: all resamples that have it agree.

    Args:
        layout: What the vectors count.
        pairs: Vectors of both files one after the other, an article an entry.
        resamples: How often articles are drawn anew, the same ones for both files.
        seed: Of the draws.

    Returns:
        Metric's dotted name -> difference; metrics that either file lacks are left out.
    """
    half = layout.size
    sums = pairs.sums()
    a, b = layout.metrics(sums[:half]), layout.metrics(sums[half:])
    parts = [(layout.metrics(s[:, :half]), layout.metrics(s[:, half:])) for s in pairs.resample(resamples, seed)]
    chance = [(layout.metrics(s[:, :half]), layout.metrics(s[:, half:])) for s in pairs.swap(resamples, seed)]
    found = {}
    for name in a:
        low, high = interval(np.concatenate([second[name] - first[name] for first, second in parts]))
        if low is None or high is None or np.isnan(a[name]) or np.isnan(b[name]):
            continue
        difference = float(b[name] - a[name])
        turned = np.nan_to_num(np.concatenate([second[name] - first[name] for first, second in chance]))
        as_large = (np.abs(turned) >= abs(difference) - 1e-12).sum()
        p = float((as_large + 1) / (len(turned) + 1))
        found[name] = Difference(float(a[name]), float(b[name]), difference, low, high, p)
    return found


def lower_is_better(metric: str) -> bool:
    """Tell whether less of a metric is better."""
    return metric in LOWER_IS_BETTER or metric.endswith((".mse", ".rmse", ".mae"))


def gate(metrics: Mapping[str, Estimate], bars: Mapping[str, float], numbers: Mapping[str, int]) -> list[str]:
    """Say which metrics miss their bar by more than their interval.

    Where all or nothing is right, resampling gives no width, and the interval is what that many values still allow.

    Args:
        metrics: From `estimate`.
        bars: Metric's dotted name -> least value, or greatest where less is better; every name is in metrics.
        numbers: Metric's dotted name -> of how many it is a share, from `Layout.numbers`.

    Returns:
        One line each; a metric that has no value misses its bar.
    """
    failures = []
    for name, bar in bars.items():
        value, low, high = metrics[name]
        if value in (0, 1) and numbers.get(name):
            low, high = allowed(value, numbers[name])
        side, bound = ("above", low) if lower_is_better(name) else ("below", high)
        if value is None or low is None or high is None:
            failures.append(f"{name}: nothing to score, bar {bar}")
        elif bound is not None and (bound > bar if lower_is_better(name) else bound < bar):
            failures.append(f"{name}: {value:.3f} [{low:.3f}, {high:.3f}] is {side} its bar {bar}")
    return failures
