"""The evaluation of regression tasks: estimated numbers against the columns of a gold CSV.

Scores are worked out on two levels: "row", and "group", where the estimates of a group's rows (a speaker's, say) are
averaged first. Intervals draw groups anew on both, for the rows of a group are right or wrong together.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from recipekit import ROOT, evaluating, regression_data, regression_report, release, runs, tables
from recipekit import regression_scores as scores
from recipekit.console import progress
from recipekit.evaluating import Options
from recipekit.regression_data import Gold, Predictions
from recipekit.regression_report import Row
from recipekit.regression_scores import OVERALL, Pairs
from recipekit.release import Difference
from recipekit.runs import relative
from recipekit.scoring import LEVEL, Estimate
from recipekit.task import Task

KIT = ROOT / "tools" / "recipekit"
MODULES = [
    "evaluating", "gold", "inputs", "joining", "page", "plots", "regression_data", "regression_evaluation",
    "regression_plots", "regression_report", "regression_scores", "release", "scoring", "segments", "tables",
]  # fmt: skip
CODE = [
    *(KIT / name for name in ("regression_report.html.j2", "page.html.j2", "page.css")),
    *(KIT / f"{name}.py" for name in MODULES),
]
WORST = 50
RANGES = {"mse": (0, math.inf), "mae": (0, math.inf), "r2": (-math.inf, 1), "pearson": (-1, 1), "spearman": (-1, 1)}

products = evaluating.products


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """Name what the scores depend on beside the predictions, gold and articles."""
    return {
        "regression": task.spec["regression"],
        "options": [options.resamples, options.seed, options.redact],
        **{f"baseline {path.stem}": path for path in evaluating.baselines(task, options)},
        **{path.name: path for path in CODE},
    }


def levels(task: Task) -> list[str]:
    """Name the levels of scores; the last one is what counts first."""
    return ["row", "group"] if task.group else ["row"]


def bars(task: Task, gold: Path) -> dict[str, tuple[float, float]]:
    """Name the metrics that can have a bar, each with the least and the greatest one."""
    return {
        f"{level}.{target}.{metric}": bounds
        for level in reversed(levels(task))
        for target in (OVERALL, *task.targets)
        for metric, bounds in RANGES.items()
    }


def score(task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Score a predictions file and write errors.jsonl, report.html and metrics.json, each whole or not at all.

    Returns:
        The metrics as metrics.json has them, and a line for each bar that is missed.

    Raises:
        UserError: Everything that is wrong in any file.
    """
    evaluating.refuse_redact(task, options)
    files = [predictions, *evaluating.baselines(task, options)]
    with progress("evaluate", 2 * len(files) + 2) as advance:
        gold, (model, *others) = regression_data.read(task, options.gold, files)
        advance()
        facts, estimates = _scored(task, gold, model, options)
        metrics: dict[str, Any] = {
            "rows": len(gold.ids), "groups": len(gold.groups), "group_key": task.group,
            "invalid": int((~model.valid).sum()), "targets": task.targets, **facts,
            "spread": _spread(task, gold, model), "baselines": {},
        }  # fmt: skip
        advance()
        for path, other in zip(files[1:], others, strict=True):
            metrics["baselines"][path.stem] = _scored(task, gold, other, options)[0]
            advance()
            metrics["baselines"][path.stem]["difference"] = _differences(task, gold, (model, other), options)
            advance()
        metrics["bootstrap"] = _bootstrap(task, gold, model, options)
        metrics["data"] = evaluating.sources(task, predictions, options.gold)
        worst = _worst(task, gold, model, options)
        page = regression_report.render(task, _at_levels(task, gold, model), worst, metrics)
        errors = [error for row in worst for error in row.errors(task.group)]
        runs.write_jsonl(options.output / "errors.jsonl", errors)
        runs.write_text(options.output / "report.html", page)
        runs.write_text(options.output / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=2) + "\n")
        advance()
    return metrics, release.gate(estimates, options.bars, {})


def compare(task: Task, files: tuple[Path, Path], options: Options) -> Table:
    """Compare two predictions files on the same gold and write compare.json; returns what to show."""
    gold, both = regression_data.read(task, options.gold, files)
    found = _differences(task, gold, (both[0], both[1]), options)
    content = {
        "a": relative(files[0]), "b": relative(files[1]), "gold": relative(options.gold),
        "resamples": options.resamples, "seed": options.seed, "metrics": found,
    }  # fmt: skip
    runs.write_text(options.output / "compare.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return tables.estimate_differences(found, [relative(path) for path in files], levels(task)[-1])


def line(metrics: Mapping[str, Any]) -> str:
    """Say the scores in one line."""
    return tables.estimates_summary(metrics)


def logged(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the scores as MLflow gets them."""
    return {
        f"{level}_{target}_{metric}": values[metric]
        for level in ("row", "group")
        for target, values in metrics.get(level, {}).items()
        for metric in scores.METRICS
    }


def recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Name the facts that the step's record keeps."""
    overall = metrics[tables.level(metrics)][OVERALL]
    return {metric: overall[metric] for metric in ("mae", "r2", "pearson") if overall[metric] is not None}


def _at_levels(task: Task, gold: Gold, predictions: Predictions) -> dict[str, Pairs]:
    rows = gold.pairs(predictions.values)
    return {"row": rows, "group": rows.means()} if task.group else {"row": rows}


def _scored(
    task: Task, gold: Gold, predictions: Predictions, options: Options
) -> tuple[dict[str, Any], dict[str, Estimate]]:
    """Return scores as metrics.json has them, and by dotted name for bars."""
    found: dict[str, Any] = {}
    named: dict[str, Estimate] = {}
    for level, pairs in _at_levels(task, gold, predictions).items():
        estimates = scores.estimate(pairs, options.resamples, options.seed)
        found[level] = {target: {} for target in (OVERALL, *task.targets)}
        for metric, values in estimates.items():
            for target, (value, low, high) in zip(found[level], values, strict=True):
                found[level][target] |= {metric: value, f"{metric}_interval": None if low is None else [low, high]}
                bounds = (value, value) if low is None else (low, high)
                named[f"{level}.{target}.{metric}"] = Estimate(value, *bounds)
    return found, named


def _differences(
    task: Task, gold: Gold, both: tuple[Predictions, Predictions], options: Options
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return level -> target -> metric -> second minus first, its interval and p-value."""
    first, second = (_at_levels(task, gold, predictions) for predictions in both)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for level, pairs in first.items():
        differences = scores.compare(pairs, second[level], options.resamples, options.seed)
        found[level] = {
            target: {metric: _difference(values[i]) for metric, values in differences.items() if values[i]}
            for i, target in enumerate((OVERALL, *task.targets))
        }
    return found


def _difference(found: Difference | None) -> dict[str, Any]:
    return found._asdict() | {"real": found.is_real} if found else {}


def _bootstrap(task: Task, gold: Gold, model: Predictions, options: Options) -> dict[str, Any]:
    ranked = {
        level: scores.rank_resamples(pairs, options.resamples) for level, pairs in _at_levels(task, gold, model).items()
    }
    return {
        "resamples": options.resamples, "seed": options.seed, "level": LEVEL, "drawn": task.group or "id",
        "spearman_resamples": ranked,
    }  # fmt: skip


def _spread(task: Task, gold: Gold, model: Predictions) -> dict[str, dict[str, dict[str, float]]]:
    """Return level -> target -> mean and standard deviation of gold and predicted values."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for level, pairs in _at_levels(task, gold, model).items():
        sides = {"gold": pairs.gold, "predicted": pairs.predicted}
        values = {f"{name}_mean": side.mean(0) for name, side in sides.items()}
        values |= {f"{name}_sd": side.std(0) for name, side in sides.items()}
        found[level] = {
            target: {name: float(value[i]) for name, value in values.items()} for i, target in enumerate(task.targets)
        }
    return found


def _worst(task: Task, gold: Gold, model: Predictions, options: Options) -> list[Row]:
    """Find the rows whose estimates are furthest off, by the mean over targets, with their texts where at hand."""
    off = np.abs(model.values - gold.values).mean(1)
    least = np.sort(off)[-min(WORST, len(off))]
    places = sorted(np.flatnonzero(off >= least).tolist(), key=lambda i: (-off[i], gold.ids[i]))[:WORST]
    wanted = [gold.ids[i] for i in places]
    texts = regression_data.read_texts(options.articles, wanted) if options.articles else {}
    return [
        Row(
            gold.ids[i], gold.groups[gold.owner[i]], texts.get(gold.ids[i], {}).get("body"), float(off[i]),
            dict(zip(task.targets, gold.values[i].tolist(), strict=True)),
            dict(zip(task.targets, model.values[i].tolist(), strict=True)), bool(model.valid[i]),
        )
        for i in places
    ]  # fmt: skip
