"""The evaluation of extraction tasks: answers in JSON against the values of a gold CSV."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from rich.table import Table

from recipekit import ROOT, evaluating, release, report, runs, tables
from recipekit.compare import Comparer
from recipekit.console import progress, show
from recipekit.evaluating import Options
from recipekit.evaluation import Evaluation
from recipekit.gold import GoldFile
from recipekit.joining import count_lines, join
from recipekit.redact import redact
from recipekit.runs import relative
from recipekit.scoring import Layout, Tally
from recipekit.task import Task

KIT = ROOT / "tools" / "recipekit"
MODULES = [
    "compare", "evaluating", "evaluation", "extract", "extraction_evaluation", "gold", "inputs", "joining", "page",
    "plots", "redact", "report", "scoring", "segments", "spans", "tables",
]  # fmt: skip
CODE = [
    *KIT.glob("normal*.py"),
    KIT / "laws.yml",
    *(KIT / name for name in ("report.html.j2", "page.html.j2", "page.css")),
    *(KIT / f"{name}.py" for name in MODULES),
]

products = evaluating.products


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """Name what the scores depend on beside the predictions, gold and articles."""
    return {
        "columns": task.spec["gold"],
        "schema": task.output_schema,
        "strip": task.spec["prompt"].get("strip"),
        "options": [options.resamples, options.seed, options.redact],
        **{path.name: path for path in CODE},
    }


def bars(task: Task, gold: Path) -> dict[str, tuple[float, float]]:
    """Name the metrics that can have a bar; all are shares."""
    return dict.fromkeys(Layout.of(task).names(), (0.0, 1.0))


def score(task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
    """Score a predictions file and write errors.jsonl, report.html and metrics.json, each whole or not at all.

    Returns:
        The metrics as metrics.json has them, and a line for each bar that is missed.
    """
    evaluation = Evaluation(task, redact(task) if options.redact else None)
    gold = GoldFile(task, options.gold)
    with tempfile.TemporaryFile() as errors, progress("evaluate", count_lines(predictions)) as advance:
        for number, (row, [prediction], article) in enumerate(join(task, gold, [predictions], options.articles), 1):
            for error in evaluation.add(row, prediction, article):
                errors.write(orjson.dumps(error) + b"\n")
            if number % 1000 == 0:
                advance(1000)
        estimates = evaluation.estimates(options.resamples, options.seed)
        metrics = evaluation.metrics(estimates, options.resamples, options.seed)
        metrics["data"] = evaluating.sources(task, predictions, options.gold)
        page = report.render(task, evaluation, metrics)
        errors.seek(0)
        with runs.writing(options.output / "errors.jsonl") as stream:
            shutil.copyfileobj(errors, stream)
        runs.write_text(options.output / "report.html", page)
        runs.write_text(options.output / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=2) + "\n")
    if gold.padded:
        what = "cells have fewer values than there are entities, and gave them to the first ones"
        show(f"evaluate: {gold.padded} {what}; see {gold.first_padded}", style="yellow")
    numbers = evaluation.layout.numbers(evaluation.tally.sums())
    return metrics, release.gate(estimates, options.bars, numbers)


def compare(task: Task, files: tuple[Path, Path], options: Options) -> Table:
    """Compare two predictions files on the same gold and write compare.json; returns what to show."""
    comparer, layout = Comparer(task), Layout.of(task)
    pairs = Tally()
    with progress("compare", count_lines(files[0])) as advance:
        for gold, both, _ in join(task, GoldFile(task, options.gold), list(files), None):
            vectors = [layout.vector(comparer.compare(gold, row["output"]), gold.is_negative()) for row in both]
            pairs.add(vectors[0] + vectors[1])
            advance()
    found = release.compare(layout, pairs, options.resamples, options.seed)
    content = {
        "a": relative(files[0]), "b": relative(files[1]), "gold": relative(options.gold),
        "resamples": options.resamples, "seed": options.seed,
        "metrics": {name: difference._asdict() | {"real": difference.is_real} for name, difference in found.items()},
    }  # fmt: skip
    runs.write_text(options.output / "compare.json", json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    return tables.differences(found, [relative(path) for path in files])


def line(metrics: Mapping[str, Any]) -> str:
    """Say the scores in one line."""
    return f"micro F1 {tables.percent(metrics['micro']['f1'])}, {tables.summary(metrics)}"


def logged(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Name the scores as MLflow gets them."""
    values = {
        f"{name}_{key}": metrics[name][key] for name in ("micro", "macro") for key in ("precision", "recall", "f1")
    }
    values |= {f"f1_{field}": scores["f1"] for field, scores in metrics["fields"].items()}
    values |= {f"f1_whole_{entity}": scores["f1"] for entity, scores in metrics.get("entities", {}).items()}
    return values | {key: metrics[key] for key in ("false_positive_rate", "valid_json_rate", "exact_match_rate")}


def recorded(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Name the facts that the step's record keeps."""
    return {"micro_f1": metrics["micro"]["f1"]}
