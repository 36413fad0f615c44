"""The evaluation of rankings: estimated scores of the responses to an odai against those of a gold CSV.

Two questions are answered: how near the scores are (errors over rows), and how well they order the responses of one
odai (means over odai). All intervals draw odai anew, for the rows of an odai are right or wrong together.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from recipekit import ROOT, evaluating, ranking_csv, ranking_data, ranking_report, release, runs, tables
from recipekit import gold as gold_csv
from recipekit import ranking_scores as scores
from recipekit.console import progress, show
from recipekit.evaluating import Options
from recipekit.ranking_data import Scored
from recipekit.ranking_report import Group, Row
from recipekit.ranking_scores import METRICS, Lists
from recipekit.regression_scores import OVERALL, Array
from recipekit.runs import relative
from recipekit.scoring import LEVEL, Estimate
from recipekit.task import Task

KIT = ROOT / "tools" / "recipekit"
MODULES = [
    "evaluating", "gold", "gold_rows", "inputs", "joining", "page", "plots", "ranking_csv", "ranking_data",
    "ranking_evaluation", "ranking_plots", "ranking_report", "ranking_scores", "regression_data", "regression_plots",
    "regression_scores", "release", "scoring", "segments", "tables",
]  # fmt: skip
CODE = [
    *(KIT / name for name in ("ranking_report.html.j2", "page.html.j2", "page.css")),
    *(KIT / f"{name}.py" for name in MODULES),
]
WORST, MISPLACED, EXAMPLES = 50, 20, 5  # rows and groups in errors.jsonl, groups at either end in the report
SHARE, ERROR = (0, 1), (0, math.inf)
RANGES = {
    "ndcg": SHARE, "spearman": (-1, 1), "top1": SHARE, "ndcg_global": SHARE, "mse": ERROR, "rmse": ERROR, "mae": ERROR,
    "r2": (-math.inf, 1),
}  # fmt: skip


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """Name what the scores depend on beside the predictions, gold and articles."""
    return {
        "regression": task.spec["regression"],
        "options": [options.resamples, options.seed, options.redact],
        **{f"baseline {path.stem}": path for path in evaluating.baselines(task, options)},
        **{path.name: path for path in CODE},
    }


def products(task: Task, options: Options) -> list[Path]:
    """Name the files that `score` writes."""
    return [*evaluating.products(task, options), *ranking_csv.paths(task, options.output).values()]


def bars(task: Task, gold: Path) -> dict[str, tuple[float, float]]:
    """Name the metrics that can have a bar, each with the least and the greatest one; slices are those of the gold."""
    rows = gold_csv.csv_rows(gold)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    place = header.index(task.slice) if task.slice in header else math.inf
    slices = sorted({cells[int(place)].strip() for _, cells in rows if place < len(cells)})
    return {f"{part}.{metric}": bounds for part in (OVERALL, *slices) for metric, bounds in RANGES.items()}


def score(task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Score a predictions file and write the products, each whole or not at all.

    Returns:
        The metrics as metrics.json has them, and a line for each bar that is missed.

    Raises:
        UserError: Everything that is wrong in any file.
    """
    evaluating.refuse_redact(task, options)
    files = [predictions, *evaluating.baselines(task, options)]
    with progress("evaluate", 2 * len(files) + 1) as advance:
        scored = ranking_data.read(task, options.gold, options.articles, files)
        advance()
        model, *others = _lists(task, scored)
        estimates = _estimates(model, options)
        metrics = _facts(task, scored, model) | {"scores": _written(estimates), "baselines": {}}
        advance()
        for path, other, unchecked in zip(files[1:], others, scored.unchecked[1:], strict=True):
            own = {"unchecked": unchecked, "scores": _written(_estimates(other, options))}
            advance()
            metrics["baselines"][path.stem] = own | {"difference": _differences(other, model, options)}
            advance()
        metrics["bootstrap"] = {
            "resamples": options.resamples, "seed": options.seed, "level": LEVEL, "drawn": task.group,
        }  # fmt: skip
        metrics["data"] = evaluating.sources(task, predictions, options.gold)
        _write(task, scored, model, metrics, options)
        advance()
    _say_unchecked(files, scored, options)
    named = {
        f"{part}.{metric}": one if one.low is not None else Estimate(one.value, one.value, one.value)
        for part, found in estimates.items()
        for metric, one in found.items()
    }
    return metrics, release.gate(named, options.bars, {})


def compare(task: Task, files: tuple[Path, Path], options: Options) -> Table:
    """Compare two predictions files on the same gold and write compare.json; returns what to show."""
    scored = ranking_data.read(task, options.gold, options.articles, files)
    first, second = _lists(task, scored)
    found = _differences(first, second, options)
    content = {
        "a": relative(files[0]), "b": relative(files[1]), "gold": relative(options.gold), "unchecked": scored.unchecked,
        "resamples": options.resamples, "seed": options.seed, "metrics": found,
    }  # fmt: skip
    runs.write_text(options.output / "compare.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    _say_unchecked(files, scored, options)
    return tables.ranking_differences(found, [relative(path) for path in files])


def line(metrics: Mapping[str, Any]) -> str:
    """Say the scores in one line."""
    return tables.ranking_summary(metrics)


def logged(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the scores as MLflow gets them."""
    return {f"{part}_{metric}": own[metric] for part, own in metrics["scores"].items() for metric in METRICS}


def recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Name the facts that the step's record keeps."""
    own = metrics["scores"][OVERALL]
    return {metric: own[metric] for metric in ("ndcg", "spearman", "mse") if own[metric] is not None}


def _lists(task: Task, scored: Scored) -> list[dict[str, Lists]]:
    """Put the predictions of each file beside gold, by part."""
    parts = ranking_data.parts(scored.gold)
    return [
        {name: part.lists(task, scored.gold, found) for name, part in parts.items()} for found in scored.predictions
    ]


def _estimates(lists: Mapping[str, Lists], options: Options) -> dict[str, dict[str, Estimate]]:
    return {part: scores.estimate(own, options.resamples, options.seed) for part, own in lists.items()}


def _written(estimates: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {part: {} for part in estimates}
    for part, own in estimates.items():
        for metric, (value, low, high) in own.items():
            found[part] |= {metric: value, f"{metric}_interval": None if low is None else [low, high]}
    return found


def _differences(
    first: Mapping[str, Lists], second: Mapping[str, Lists], options: Options
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return part -> metric -> second minus first, its interval and p-value."""
    found = {part: scores.compare(own, second[part], options.resamples, options.seed) for part, own in first.items()}
    return {
        part: {metric: one._asdict() | {"real": one.is_real} for metric, one in own.items()}
        for part, own in found.items()
    }


def _facts(task: Task, scored: Scored, model: Mapping[str, Lists]) -> dict[str, Any]:
    [(target, spec)] = task.targets.items()
    facts = {
        "rows": len(scored.gold.ids), "groups": len(scored.gold.groups), "group_key": task.group,
        "group_title": ranking_csv.group_title(task), "slice_key": task.slice, "target": target, "scale": spec["scale"],
        "invalid": int((~scored.predictions[0].valid).sum()), "unchecked": scored.unchecked[0],
    }  # fmt: skip
    return facts | {"parts": {part: _counts(own) for part, own in model.items()}}


def _counts(lists: Lists) -> dict[str, int]:
    """Count rows and groups of a part, and the groups that have an order to find, or why they have none."""
    rows = np.bincount(lists.pairs.owner)
    ranked = lists.quality.ranked
    return {
        "rows": len(lists.gains), "groups": len(rows), "ranked": int(ranked.sum()),
        "single": int((rows == 1).sum()), "equal": int((~ranked & (rows > 1)).sum()),
    }  # fmt: skip


def _say_unchecked(files: Sequence[Path], scored: Scored, options: Options) -> None:
    if options.articles is None:
        what = "the texts are not at hand (--articles), so ids alone say that predictions are of the same pairs"
        show(f"evaluate: {what}", style="yellow")
        return
    for path, unchecked in zip(files, scored.unchecked, strict=True):
        if unchecked:
            what = f"{unchecked:,} of {len(scored.gold.ids):,} rows have no digest, so only their ids were matched"
            show(f"evaluate: {relative(path)}: {what}", style="yellow")


def _write(
    task: Task, scored: Scored, model: Mapping[str, Lists], metrics: Mapping[str, Any], options: Options
) -> None:
    ranked = _Ranked(scored, model[OVERALL])
    worst, misplaced = ranked.worst(), ranked.misplaced()
    best_first = ranked.by_quality()
    examples = best_first[:EXAMPLES], best_first[EXAMPLES:][-EXAMPLES:][::-1]
    page = ranking_report.render(task, model, worst, (ranked.groups(examples[0]), ranked.groups(examples[1])), metrics)
    errors = [row.error() for row in worst] + [group.error() for group in ranked.groups(misplaced)]
    runs.write_jsonl(options.output / "errors.jsonl", errors)
    runs.write_text(options.output / "report.html", page)
    ranking_csv.write(task, options.output, metrics, (row.cells(task) for row in ranked.every()))
    runs.write_text(options.output / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=2) + "\n")


class _Ranked:
    """The rows of the model's predictions with their ranks, and which of them to show."""

    def __init__(self, scored: Scored, lists: Lists) -> None:
        self.scored, self.lists = scored, lists
        self.gold, self.predicted = lists.pairs.gold[:, 0], lists.pairs.predicted[:, 0]
        self.owner, number = lists.pairs.owner, lists.pairs.groups
        self.rank, self.predicted_rank = (scores.ranks(one, self.owner, number) for one in (self.gold, self.predicted))
        self.rows = np.bincount(self.owner)
        self.order = np.lexsort((self.predicted_rank, self.owner))  # a group's rows, in the predicted order
        self.starts = np.cumsum(self.rows) - self.rows

    def row(self, i: int) -> Row:
        gold, found = self.scored.gold, self.scored.predictions[0]
        return Row(
            gold.ids[i], gold.groups[self.owner[i]], gold.slices[i] if gold.slices else None,
            self.scored.texts.get(gold.ids[i]), float(self.gold[i]), float(self.predicted[i]), bool(found.valid[i]),
            float(self.rank[i]), float(self.predicted_rank[i]),
        )  # fmt: skip

    def every(self) -> Iterator[Row]:
        """Yield all rows, group by group, in the predicted order."""
        yield from map(self.row, self.order.tolist())

    def groups(self, numbers: list[int]) -> list[Group]:
        """Gather groups with their rows in the predicted order."""
        quality = self.lists.quality
        return [
            Group(
                [self.row(i) for i in self.order[self.starts[one] : self.starts[one] + self.rows[one]].tolist()],
                float(quality.ndcg[one]), float(quality.spearman[one]),
            )
            for one in numbers
        ]  # fmt: skip

    def worst(self) -> list[Row]:
        """Find the rows whose estimates are furthest off."""
        off = np.abs(self.predicted - self.gold)
        places = np.argsort(-off, kind="stable")[:WORST]  # of equals the first by id, as gold is in that order
        return [self.row(i) for i in places.tolist()]

    def misplaced(self) -> list[int]:
        """Find the groups whose best row is furthest down in the predicted order, as a share of the group's rows."""
        groups = len(self.rows)
        best = self.rank == _least(self.rank, self.owner, groups)[self.owner]
        place = _least(np.where(best, self.predicted_rank, np.inf), self.owner, groups)
        down = (place - 1) / np.maximum(self.rows - 1, 1)
        order = np.lexsort((-self.rows, -down))
        return [one for one in order.tolist() if self.lists.quality.ranked[one] and down[one] > 0][:MISPLACED]

    def by_quality(self) -> list[int]:
        """Order the groups that have an order to find by their NDCG, best first; of equals those with more rows."""
        quality = self.lists.quality
        order = np.lexsort((-self.rows, -quality.spearman, -quality.ndcg))
        return [one for one in order.tolist() if quality.ranked[one]]


def _least(values: Array, owner: "np.ndarray", groups: int) -> Array:
    found = np.full(groups, np.inf)
    np.minimum.at(found, owner, values)
    return found
