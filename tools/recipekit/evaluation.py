"""Predictions against gold, an article at a time: everything that metrics.json, errors.jsonl and the report say."""

import heapq
import math
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from recipekit import scoring
from recipekit.compare import CLASSES, Comparer, Comparison, Slot
from recipekit.gold import GoldRow
from recipekit.scoring import Estimate, Layout, Tally
from recipekit.task import Task

WORST = 50
EXAMPLES = 3  # of a class and column
LENGTHS = (0, 100, 200, 400, 800, 1600, 3200)  # characters of an article, where a group begins
GROUPS = 200  # of a slice; more are counted as "(other)"


class Case(NamedTuple):
    """One article with its answer, as the report shows it.

    Attributes:
        id: The article's.
        article: Its text without a feed's metadata; None where the articles are not at hand.
        comparison: Answer beside gold.
        prediction: The row of the predictions file.
    """

    id: str
    article: str | None
    comparison: Comparison
    prediction: dict[str, Any]

    @property
    def wrong(self) -> list[Slot]:
        """What is not right; of an answer that breaks the schema at least that."""
        wrong = [slot for slot in self.comparison.slots if not slot.right]
        return wrong or ([] if self.comparison.valid else [Slot("", None, None, 0.0, False, "format")])


class Calibration:
    """How often answers of a given probability are right in all."""

    FINE = 1000

    def __init__(self) -> None:
        self.sums = np.zeros((3, self.FINE))  # answers, right ones, probability

    def add(self, probability: float, right: bool) -> None:
        """Add an answer."""
        place = min(int(probability * self.FINE), self.FINE - 1)
        self.sums[:, place] += 1, right, probability

    def summary(self, bins: int = 10) -> dict[str, Any] | None:
        """Return bins with about equally many answers, and the expected calibration error; None without answers.

        `coverage` tells how good the surest answers are: a share of all articles, and how many of it are right.
        """
        total = self.sums[0].sum()
        if not total:
            return None
        place = np.minimum(((self.sums[0].cumsum() - self.sums[0] / 2) / total * bins).astype(int), bins - 1)
        groups = np.stack([[np.bincount(place, row, bins)] for row in self.sums])[:, 0]
        answers, right, probability = groups[:, groups[0] > 0]
        surest = self.sums[:, ::-1].cumsum(1)
        at = [int(np.searchsorted(surest[0], share * total)) for share in (0.5, 0.8, 0.9, 0.95, 1.0)]
        return {
            "bins": [
                {"answers": int(n), "probability": p / n, "right": r / n}
                for n, r, p in zip(answers, right, probability, strict=True)
            ],
            "expected_calibration_error": float(np.abs(right - probability).sum() / total),
            "coverage": [
                {"share": float(surest[0, i] / total), "right": float(surest[1, i] / surest[0, i])} for i in at
            ],
        }


class Evaluation:
    """The scores of one predictions file, and what the report shows of it.

    Attributes:
        tally: Count vectors of the articles.
        slices: Slice -> group -> count vectors.
        classes: Gold column -> class of error -> number.
        examples: (class, column) -> cases.
    """

    def __init__(self, task: Task, redact: Callable[[Case], Case] | None = None) -> None:
        """Prepare for scoring.

        Args:
            task: Its gold columns and output schema count.
            redact: Takes personal names out of what is shown of an article.
        """
        self.task = task
        self.redact = redact
        self.comparer = Comparer(task)
        self.layout = Layout.of(task)
        self.tally = Tally()
        self.slices: dict[str, dict[str, Tally]] = defaultdict(dict)
        self.classes: dict[str, Counter[str]] = {column: Counter() for column in task.gold_columns}
        self.examples: dict[tuple[str, str], list[Case]] = defaultdict(list)
        self.calibration = Calibration()
        self.near: dict[str, float] = defaultdict(float)  # column -> likeness of wrong pairs, in all
        self._worst: list[tuple[int, _Reversed, int, Case]] = []
        self._number = 0

    def add(self, gold: GoldRow, prediction: dict[str, Any], row: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Score one article; returns its errors as errors.jsonl has them.

        Args:
            gold: What is right.
            prediction: Row of the predictions file.
            row: Row of the articles file, None where it is not at hand.
        """
        article = self.task.clean(row["body"]) if row else None
        comparison = self.comparer.compare(gold, prediction["output"], article)
        negative = gold.is_negative()
        vector = self.layout.vector(comparison, negative)
        self.tally.add(vector)
        for name, group in self._groups(gold, article, row):
            self._slice(name, group).add(vector)
        right = bool(vector[-1])
        mean, tokens = prediction.get("mean_logprob"), prediction.get("tokens")
        if isinstance(mean, int | float) and isinstance(tokens, int) and math.isfinite(mean):
            self.calibration.add(math.exp(min(mean * tokens, 0)), right)
        if right:
            return []
        return self._errors(Case(gold.id, article, comparison, prediction))

    def _groups(self, gold: GoldRow, article: str | None, row: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
        if article is not None:
            yield "length", _length(len(article))
        for name in self.comparer.keys:
            number = len(gold.entities.get(name, ()))
            yield f"number of {name}s", str(number) if number < 3 else "3 and more"
        for name, group in self.task.spec["gold"].get("slices", {}).items():
            if "key" in group:
                if row is not None and row.get(group["key"]) is not None:
                    yield name, str(row[group["key"]])
            elif self.redact and self._is_name(group["column"]):
                continue
            elif value := _first(gold, group["column"]):
                yield name, self.comparer.kinds[group["column"]](value).key

    def _is_name(self, column: str) -> bool:
        return self.task.gold_columns[column]["compare"] == "person_name"

    def _slice(self, name: str, group: str) -> Tally:
        groups = self.slices[name]
        if group not in groups and len(groups) >= GROUPS:
            group = "(other)"
        return groups.setdefault(group, Tally())

    def _errors(self, case: Case) -> list[dict[str, Any]]:
        if self.redact:
            case = self.redact(case)
        for slot in case.wrong:
            if not slot.column:
                continue
            self.classes[slot.column][slot.wrong] += 1
            self.near[slot.column] += slot.alike
            examples = self.examples[slot.wrong, slot.column]
            if len(examples) < EXAMPLES and case.id not in {each.id for each in examples}:
                examples.append(case)
        self._number += 1  # so that no two entries are equal
        entry = (len(case.wrong), _Reversed(case.id), self._number, case)
        if len(self._worst) < WORST:
            heapq.heappush(self._worst, entry)
        elif entry > self._worst[0]:
            heapq.heapreplace(self._worst, entry)
        return [
            {
                "id": case.id, "field": slot.column, "class": slot.wrong, "gold": slot.gold,
                "predicted": slot.predicted, "alike": round(slot.alike, 3),
            }
            for slot in case.wrong
        ]  # fmt: skip

    @property
    def worst(self) -> list[Case]:
        """The articles with most errors, worst first."""
        return [case for *_, case in sorted(self._worst, reverse=True)]

    def estimates(self, resamples: int, seed: int) -> dict[str, Estimate]:
        """Estimate every metric with its interval."""
        return scoring.estimate(self.layout, self.tally, resamples, seed)

    def metrics(self, estimates: Mapping[str, Estimate], resamples: int, seed: int) -> dict[str, Any]:
        """Gather what metrics.json holds; an interval stands beside its metric, as f1_interval beside f1."""
        found: dict[str, Any] = {}
        for name, (value, low, high) in estimates.items():
            _put(found, name, value)
            _put(found, f"{name}_interval", None if low is None else [low, high])
        counts = self.layout.counts(self.tally.sums())
        for name, number in counts.items():
            _put(found, name, number)
        for column, scores in found["fields"].items():
            scores["graded_f1"] = _graded(scores, self.near[column])
        found["micro"]["graded_f1"] = _graded(found["micro"], math.fsum(self.near.values()))
        found["errors"] = {
            column: {name: classes[name] for name in CLASSES if classes[name]}
            for column, classes in self.classes.items()
        }
        found["slices"] = {name: self._scored(groups, resamples, seed) for name, groups in self.slices.items()}
        found["calibration"] = self.calibration.summary()
        found["bootstrap"] = {"resamples": resamples, "seed": seed, "level": scoring.LEVEL}
        return found

    def _scored(self, groups: dict[str, Tally], resamples: int, seed: int) -> dict[str, Any]:
        """Score the groups of a slice: the parts that the report shows."""
        found = {}
        for group in sorted(groups, key=_natural):
            estimates = scoring.estimate(self.layout, groups[group], resamples, seed)
            counts = self.layout.counts(groups[group].sums())
            scores: dict[str, Any] = {key: counts[key] for key in ("articles", "negatives", "false_positives")}
            for name in ("micro.f1", "exact_match_rate", "false_positive_rate"):
                value, low, high = estimates[name]
                scores |= {name: value, f"{name}_interval": None if low is None else [low, high]}
            found[group] = scores
        return found


class _Reversed(str):
    """Text that sorts the other way round, so that of equally bad articles the first ids are kept."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)

    def __gt__(self, other: str) -> bool:
        return str.__lt__(self, other)


def _put(nested: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        nested = nested.setdefault(parent, {})
    nested[last] = value


def _graded(scores: Mapping[str, Any], near: float) -> float | None:
    """Return F1 where a wrong value counts by its likeness to the gold one."""
    total = 2 * scores["tp"] + scores["fp"] + scores["fn"]
    return 2 * (scores["tp"] + near) / total if total else None


def _length(characters: int) -> str:
    place = bisect_right(LENGTHS, characters) - 1
    end = LENGTHS[place + 1] - 1 if place + 1 < len(LENGTHS) else ""
    return f"{LENGTHS[place]}-{end}"


def _natural(group: str) -> tuple[float, str]:
    digits = re.match(r"\d+", group)
    return int(digits[0]) if digits else math.inf, group


def _first(gold: GoldRow, column: str) -> str | None:
    values = gold.sets.get(column) or [e[column] for each in gold.entities.values() for e in each if column in e]
    return values[0] if values else None
