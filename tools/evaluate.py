"""Predictions against the gold CSV: scores with intervals, every error, and a report to look at.

    uv run tools/evaluate.py hawks
    uv run tools/evaluate.py hawks --predictions FILE --gold FILE --output DIR
    uv run tools/evaluate.py hawks --compare A.jsonl B.jsonl            # is B really better than A?
    uv run tools/evaluate.py hawks --baseline recipes/hawks/baseline.yml   # exit 1 where a metric misses its bar

Writes DIR/metrics.json, errors.jsonl (every wrong value) and report.html. What is compared and counted, and how:
docs/evaluation.md.
"""

import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import rapidfuzz
import typer

from recipekit import ROOT, hub, release, report, runs, tables, yamlfile
from recipekit.compare import Comparer
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.evaluation import Evaluation
from recipekit.gold import GoldFile
from recipekit.joining import count_lines, join
from recipekit.redact import redact
from recipekit.release import Difference
from recipekit.runs import Step, relative
from recipekit.scoring import Layout, Tally
from recipekit.task import Task, load_task

KIT = ROOT / "tools" / "recipekit"
MODULES = [
    "compare", "evaluation", "extract", "gold", "inputs", "joining", "page", "plots", "redact", "report", "scoring",
    "segments", "spans", "tables",
]  # fmt: skip
CODE = [
    Path(__file__),
    *KIT.glob("normal*.py"),
    KIT / "laws.yml",
    *(KIT / name for name in ("report.html.j2", "page.html.j2", "page.css")),
    *(KIT / f"{name}.py" for name in MODULES),
]


def is_bundled(task: Task, gold: Path) -> bool:
    """Tell whether a gold file is the invented sample in the repository, so that its scores say little of real news."""
    sample = task.sample_dir / task.spec["data"]["test"]["gold"]
    return sample.exists() and runs.digest(sample) == runs.digest(gold)


def log_to_mlflow(task: Task, metrics: dict[str, Any]) -> None:
    """Log the scores as run "evaluate" in the task's MLflow experiment; where that fails, say so and go on."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{task.root / 'mlflow.db'}"
    values = {
        f"{name}_{key}": metrics[name][key] for name in ("micro", "macro") for key in ("precision", "recall", "f1")
    }
    values |= {f"f1_{field}": scores["f1"] for field, scores in metrics["fields"].items()}
    values |= {f"f1_whole_{entity}": scores["f1"] for entity, scores in metrics.get("entities", {}).items()}
    values |= {key: metrics[key] for key in ("false_positive_rate", "valid_json_rate", "exact_match_rate")}
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(task.name)
        with mlflow.start_run(run_name="evaluate"):
            mlflow.log_params(metrics["data"])
            mlflow.log_metrics({key: value for key, value in values.items() if value is not None})
    except Exception as error:  # MLflow raises what its store raises; the scores are safe in metrics.json
        reason = hub.masked((str(error).splitlines() or [type(error).__name__])[0])
        show(
            f"evaluate: scores are not in MLflow ({reason}); mend it and run evaluate.py {task.name} --mlflow",
            style="yellow",
        )


@dataclass(frozen=True)
class Options:
    """What is scored and how.

    Attributes:
        gold: CSV file.
        articles: JSONL file of what was predicted; without it no error is told to be hallucinated.
        output: Folder to write to.
        resamples: How often articles are drawn anew for the intervals.
        seed: Of the draws.
        redact: Whether personal names are taken out of errors.jsonl and report.html.
        bars: Metric's dotted name -> what it must reach.
    """

    gold: Path
    articles: Path | None
    output: Path
    resamples: int = 1000
    seed: int = 0
    redact: bool = False
    bars: dict[str, float] = field(default_factory=dict)


def score_files(task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
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
        metrics["data"] = {
            "predictions": relative(predictions),
            "gold": relative(options.gold),
            "gold_sha256": runs.digest(options.gold),
            "bundled_sample": is_bundled(task, options.gold),
        }
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


def compare_files(task: Task, files: tuple[Path, Path], options: Options) -> dict[str, Difference]:
    """Compare two predictions files on the same gold and write compare.json."""
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
    return found


def read_bars(path: Path, known: list[str]) -> dict[str, float]:
    """Read the bars that metrics must not miss: YAML, a metric's dotted name and a number a line.

    Raises:
        UserError: The file is missing or no YAML, a name is no metric, or a bar no number from 0 to 1; all at once.
    """
    bars, lines = yamlfile.load(path)
    problems = []
    for name, bar in bars.items():
        place = f"{relative(path)}:{lines.get((name,), 1)}: {name}"
        if name not in known:
            near = rapidfuzz.process.extractOne(str(name), known, score_cutoff=70)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"
            problems.append(f"{place}: no such metric; {hint}")
        elif isinstance(bar, bool) or not isinstance(bar, int | float) or not 0 <= bar <= 1:
            problems.append(f"{place}: found {bar!r}, expected a number from 0 to 1")
    if problems or not bars:
        raise UserError(problems or f"{relative(path)}:1: no bars in it; write one a line, such as micro.f1: 0.9")
    return bars


def make_step(task: Task, predictions: Path, options: Options) -> Step:
    """Name what the scores depend on."""
    inputs = {
        "predictions": predictions,
        "gold": options.gold,
        "articles": options.articles,
        "columns": task.spec["gold"],
        "schema": task.output_schema,
        "strip": task.spec["prompt"].get("strip"),
        "options": [options.resamples, options.seed, options.redact],
        **{path.name: path for path in CODE},
    }
    products = [options.output / name for name in ("metrics.json", "errors.jsonl", "report.html")]
    return Step(task.outputs, "evaluate", inputs, products)


def evaluate(
    task: str,
    predictions: Annotated[Path | None, typer.Option(help="JSONL; default outputs/TASK/predictions.jsonl")] = None,
    gold: Annotated[Path | None, typer.Option(help="CSV; default the task's, below data/test/")] = None,
    articles: Annotated[
        Path | None, typer.Option(help="as predict.py reads them; default the task's, where gold is")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="folder; default outputs/TASK/evaluation")] = None,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(help="two predictions files; tests B against A")] = None,
    baseline: Annotated[Path | None, typer.Option(help="YAML of bars; exit 1 where a metric misses its own")] = None,
    redact: Annotated[bool, typer.Option(help="no personal names in errors.jsonl and report.html")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="bootstrap samples for the intervals")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
    mlflow: Annotated[bool | None, typer.Option(help="log to MLflow; default only where all paths are default")] = None,
) -> None:
    """Score a task's predictions against its gold CSV."""
    recipe = load_task(task)
    is_step = not any((predictions, gold, articles, output, compare))
    if is_step:
        log_to("evaluate")
    without = {"--predictions": predictions, "--articles": articles, "--baseline": baseline, "--redact": redact}
    if compare and (given := [name for name, value in without.items() if value]):
        raise UserError(f"--compare does not go with {', '.join(given)}: it only compares; run evaluate.py once more")
    own = recipe.test_path("input")
    options = Options(
        gold or recipe.test_path("gold"), articles or (own if gold is None and own.exists() else None),
        output or recipe.outputs / "evaluation", resamples, seed, redact,
        read_bars(baseline, Layout.of(recipe).names()) if baseline else {},
    )  # fmt: skip
    if compare:
        show(tables.differences(compare_files(recipe, compare, options), [relative(path) for path in compare]))
        show(f"evaluate: written to {relative(options.output / 'compare.json')}")
        return
    predictions = predictions or recipe.outputs / "predictions.jsonl"
    step = make_step(recipe, predictions, options)
    if is_step and not (mlflow or baseline) and predictions.exists() and options.gold.exists() and step.done():
        show_scores(recipe, json.loads((options.output / "metrics.json").read_text(encoding="utf-8")), "up to date")
        return
    metrics, failures = score_files(recipe, predictions, options)
    show_scores(recipe, metrics, f"written to {relative(options.output)}")
    if is_step if mlflow is None else mlflow:
        log_to_mlflow(recipe, metrics)
    if is_step:
        step.record(micro_f1=metrics["micro"]["f1"])
    for failure in failures:
        show(f"evaluate: {failure}", style="bold red")
    if failures:
        raise typer.Exit(1)
    if baseline:
        show(f"evaluate: no bar of {relative(baseline)} is missed", style="green")


def show_scores(task: Task, metrics: dict[str, Any], state: str) -> None:
    """Show the table; in a run of the whole pipeline, which ends with it, only a line."""
    if os.environ.get("LOG_DIR"):
        show(f"evaluate: {state}; micro F1 {tables.percent(metrics['micro']['f1'])}, {tables.summary(metrics)}")
    else:
        show(tables.scores(metrics, title=task.title))
        show(f"evaluate: {state}")


if __name__ == "__main__":
    main(evaluate)
