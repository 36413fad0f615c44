"""Scores of extracted values against gold, as plain functions over plain data.

Values are compared as multisets per article and column, in the form that the column's `compare` gives them: two persons
of the same age count twice, order does not matter, and null and empty values count as absent. A prediction that is not
valid JSON of the task's schema counts as empty: all gold values of its article are missed.

Conventions for 0/0: a field with neither gold nor predicted values has no scores (None) and is left out of the macro
mean; elsewhere precision, recall and F1 of nothing are 0, as in scikit-learn; a rate over no articles is None.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jmespath
import jsonschema
from rich import box
from rich.table import Table

from recipekit.errors import UserError
from recipekit.normalise import KINDS, Form
from recipekit.task import Task

Values = Mapping[str, list[str]]  # column -> values


@dataclass(frozen=True)
class Counts:
    """Matched, spurious and missed values."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def scores(self) -> dict[str, Any]:
        """Return precision, recall and F1 (0 to 1, or None where there is nothing to score) and the counts."""
        if not (self.tp or self.fp or self.fn):
            precision = recall = f1 = None
        else:
            precision = self.tp / max(self.tp + self.fp, 1)
            recall = self.tp / max(self.tp + self.fn, 1)
            f1 = 2 * self.tp / (2 * self.tp + self.fp + self.fn)
        return {"precision": precision, "recall": recall, "f1": f1, "tp": self.tp, "fp": self.fp, "fn": self.fn}


def predicted_values(task: Task, output: Any) -> dict[str, list[str]]:
    """Take every gold column's values out of one answer.

    Raises:
        UserError: A column's path leads to an object instead of values.
    """
    found = {}
    for name, column in task.spec["gold"]["columns"].items():
        leaves = list(_leaves(jmespath.search(column["path"], output)))
        if any(isinstance(leaf, dict) for leaf in leaves):
            raise UserError(
                f"recipes/{task.name}/task.yml: gold.columns.{name}.path: leads to an object, not to its values"
            )
        found[name] = [text for text in (str(leaf).strip() for leaf in leaves if leaf is not None) if text]
    return found


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def unmatched(values: list[str], against: list[str], normalise: Callable[[str], Form]) -> list[str]:
    """Return the values, as they are written, that have no partner of the same normal form in the other list."""
    left = Counter(map(normalise, against))
    alone = []
    for value in values:
        key = normalise(value)
        if left[key] > 0:
            left[key] -= 1
        else:
            alone.append(value)
    return alone


def compare_article(task: Task, gold: Values, predicted: Values) -> dict[str, tuple[list[str], list[str]]]:
    """Return the missed and the spurious values of every column."""
    kinds = {name: KINDS[column["compare"]] for name, column in task.spec["gold"]["columns"].items()}
    return {
        name: (unmatched(gold[name], predicted[name], kind), unmatched(predicted[name], gold[name], kind))
        for name, kind in kinds.items()
    }


def score(task: Task, gold: Mapping[str, Values], outputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict]]:
    """Score answers against gold.

    Args:
        task: Its gold columns and output schema count.
        gold: Article id -> column -> values.
        outputs: Article id -> parsed answer, None where none could be parsed; has every id of gold.

    Returns:
        The metrics, as metrics.json keeps them, and one entry per article and field with missed or spurious values.
    """
    validator = jsonschema.Draft202012Validator(task.output_schema)
    counts = dict.fromkeys(task.spec["gold"]["columns"], Counts())
    errors: list[dict] = []
    negatives = false_positives = exact = valid = 0
    for article, values in gold.items():
        is_valid = outputs[article] is not None and validator.is_valid(outputs[article])
        predicted = predicted_values(task, outputs[article] if is_valid else None)
        differences = compare_article(task, values, predicted)
        for field, (missed, spurious) in differences.items():
            counts[field] += Counts(len(values[field]) - len(missed), len(spurious), len(missed))
            if missed or spurious:
                errors.append(
                    {"id": article, "field": field, "missed": missed, "spurious": spurious, "valid": is_valid}
                )
        negative = not any(values.values())
        negatives += negative
        false_positives += negative and any(predicted.values())
        valid += is_valid
        exact += is_valid and not any(missed or spurious for missed, spurious in differences.values())
    rates = {
        "false_positive_rate": _rate(false_positives, negatives),
        "valid_json_rate": _rate(valid, len(gold)),
        "exact_match_rate": _rate(exact, len(gold)),
    }
    tallies = {
        "articles": len(gold),
        "negatives": negatives,
        "false_positives": false_positives,
        "valid": valid,
        "exact": exact,
    }
    return {**aggregate(counts), **rates, **tallies}, errors


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def aggregate(counts: Mapping[str, Counts]) -> dict[str, Any]:
    """Return scores per field, micro (all values alike) and macro (mean of the fields that have scores)."""
    fields = {name: count.scores() for name, count in counts.items()}
    scored = [scores for scores in fields.values() if scores["f1"] is not None]
    means = {
        key: sum(s[key] for s in scored) / len(scored) if scored else None for key in ("precision", "recall", "f1")
    }
    return {"fields": fields, "micro": sum(counts.values(), Counts()).scores(), "macro": means}


def percent(value: float | None) -> str:
    """Write a rate for people."""
    return "-" if value is None else f"{100 * value:.1f}%"


def table(metrics: Mapping[str, Any], title: str) -> Table:
    """Lay metrics out for the screen."""
    result = Table(title=title, caption=summary(metrics), box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    result.title_justify = result.caption_justify = "left"
    result.add_column("field", min_width=max(map(len, metrics["fields"])))
    for heading in ("precision", "recall", "F1", "matched", "spurious", "missed"):
        result.add_column(heading, justify="right")
    rows = [*metrics["fields"].items(), ("micro", metrics["micro"]), ("macro", metrics["macro"])]
    for name, scores in rows:
        if name == "micro":
            result.add_section()
        cells = [percent(scores[key]) for key in ("precision", "recall", "f1")]
        result.add_row(name, *cells, *(str(scores.get(key, "")) for key in ("tp", "fp", "fn")))
    return result


def summary(metrics: Mapping[str, Any]) -> str:
    """Say in one line what counts for articles as a whole."""
    return (
        f"{metrics['articles']:,} articles: {percent(metrics['exact_match_rate'])} all right, "
        f"false positives on {metrics['false_positives']} of {metrics['negatives']} negatives "
        f"({percent(metrics['false_positive_rate'])}), valid JSON {percent(metrics['valid_json_rate'])}"
    )
