"""Predictions against the gold CSV: scores with intervals, every error, and a report to look at.

    uv run tools/evaluate.py hawks
    uv run tools/evaluate.py hawks --predictions FILE --gold FILE --output DIR
    uv run tools/evaluate.py hawks --compare A.jsonl B.jsonl            # is B really better than A?
    uv run tools/evaluate.py hawks --baseline recipes/hawks/baseline.yml   # exit 1 where a metric misses its bar
    uv run tools/evaluate.py companion --judge URL --judge-model NAME   # of a chat: a model judges the replies, too
    uv run tools/evaluate.py companion --ratings ratings.csv            # what people said of them

Writes DIR/metrics.json, errors.jsonl (every wrong value, or the worst estimates), report.html and, of rankings, tables
as CSV. What is compared and counted, and how: docs/evaluation.md.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import (
    chat_evaluation,
    chat_ratings,
    evaluating,
    extraction_evaluation,
    ranking_evaluation,
    regression_evaluation,
    tables,
)
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.evaluating import Judge, Kind, Options
from recipekit.runs import Step, relative
from recipekit.task import Task, load_task

KINDS: dict[str, Kind] = {
    "extraction": extraction_evaluation,
    "regression": regression_evaluation,
    "ranking": ranking_evaluation,
    "chat": chat_evaluation,
}


def make_step(task: Task, predictions: Path, options: Options) -> Step:
    """Name what the scores depend on."""
    files = {
        "predictions": predictions,
        "gold": options.gold,
        "articles": options.articles,
        "evaluate.py": Path(__file__),
    }
    kind = KINDS[task.kind]
    return Step(task.outputs, "evaluate", files | kind.inputs(task, options), kind.products(task, options))


def evaluate(
    task: str,
    predictions: Annotated[Path | None, typer.Option(help="JSONL; default outputs/TASK/predictions.jsonl")] = None,
    gold: Annotated[Path | None, typer.Option(help="CSV, or scenes of a chat; default the task's")] = None,
    articles: Annotated[Path | None, typer.Option(help="as predict.py reads them; default the task's")] = None,
    output: Annotated[Path | None, typer.Option(help="folder; default outputs/TASK/evaluation")] = None,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(help="two predictions files; tests B against A")] = None,
    baseline: Annotated[Path | None, typer.Option(help="YAML of bars; exit 1 where a metric misses its own")] = None,
    redact: Annotated[bool, typer.Option(help="no personal names in errors.jsonl and report.html")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="bootstrap samples for the intervals")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
    judge: Annotated[str | None, typer.Option(help="of a chat: URL of an OpenAI-compatible server of a judge")] = None,
    judge_model: Annotated[str | None, typer.Option(help="the judge's name there")] = None,
    ratings: Annotated[Path | None, typer.Option(help="of a chat: CSV of what people said of the replies")] = None,
    mlflow: Annotated[bool | None, typer.Option(help="log to MLflow; default only where all paths are default")] = None,
) -> None:
    """Score a task's predictions against its gold CSV, or a chat's against its scenes."""
    kind = KINDS[(recipe := load_task(task)).kind]
    asked = chat_options(recipe, articles, judge, judge_model, ratings)
    is_step = not any((predictions, gold, articles, output, compare, judge, ratings))
    if is_step:
        log_to("evaluate", recipe.outputs)
    without = {"--predictions": predictions, "--articles": articles, "--baseline": baseline, "--redact": redact}
    if compare and (given := [name for name, value in without.items() if value]):
        raise UserError(f"--compare does not go with {', '.join(given)}: it only compares; run evaluate.py once more")
    own = recipe.test_path("input")
    right = gold or (own if recipe.kind == "chat" else recipe.test_path("gold"))
    options = Options(
        right, articles or (own if gold is None and own.exists() else None),
        output or recipe.outputs / "evaluation", resamples, seed, redact,
        evaluating.read_bars(baseline, kind.bars(recipe, right)) if baseline else {}, asked,
    )  # fmt: skip
    if ratings or compare:
        only_shown(recipe, compare, ratings, options)
        return
    predictions = predictions or recipe.outputs / "predictions.jsonl"
    step = make_step(recipe, predictions, options)
    if is_step and not (mlflow or baseline) and predictions.exists() and options.gold.exists() and step.done():
        show_scores(recipe, json.loads((options.output / "metrics.json").read_text(encoding="utf-8")), "up to date")
        return
    metrics, failures = kind.score(recipe, predictions, options)
    show_scores(recipe, metrics, f"written to {relative(options.output)}")
    if is_step if mlflow is None else mlflow:
        evaluating.log_to_mlflow(recipe, metrics["data"], kind.logged(metrics))
    if is_step:
        step.record(**kind.recorded(metrics))
    if baseline:
        show_failures(failures, baseline)


def only_shown(task: Task, compare: tuple[Path, Path] | None, ratings: Path | None, options: Options) -> None:
    """Compare two files, or aggregate what people said, and show it."""
    if ratings:
        show(chat_ratings.aggregate(task, ratings, options))
    elif compare:
        show(KINDS[task.kind].compare(task, compare, options))
    show(f"evaluate: written to {relative(options.output / (chat_ratings.RATINGS if ratings else 'compare.json'))}")


def chat_options(
    task: Task, articles: Path | None, url: str | None, model: str | None, ratings: Path | None
) -> Judge | None:
    """Return the judge that is asked, if any.

    Raises:
        UserError: Options do not go together, or with the task's kind.
    """
    problems = []
    given = {"--judge": url, "--judge-model": model, "--ratings": ratings}
    if task.kind != "chat":
        problems = [f"{name} is for tasks of kind chat, {task.name} is not" for name in given if given[name]]
    elif articles:
        problems = ["--articles is for articles; name other scenes of a chat with --gold"]
    if bool(url) != bool(model):
        problems.append("--judge and --judge-model go together: a server's URL, and a model's name there")
    if problems:
        raise UserError(problems)
    return Judge(url, model) if url and model else None


def show_failures(failures: list[str], baseline: Path) -> None:
    """Say which bars are missed, and end the command where some are."""
    for failure in failures:
        show(f"evaluate: {failure}", style="bold red")
    if failures:
        raise typer.Exit(1)
    show(f"evaluate: no bar of {relative(baseline)} is missed", style="green")


def show_scores(task: Task, metrics: dict[str, Any], state: str) -> None:
    """Show the table; in a run of the whole pipeline, which ends with it, only a line."""
    if os.environ.get("LOG_DIR"):
        show(f"evaluate: {state}; {KINDS[task.kind].line(metrics)}")
    else:
        show(tables.OF_KIND[task.kind](metrics, task.title))
        show(f"evaluate: {state}")


if __name__ == "__main__":
    main(evaluate)
