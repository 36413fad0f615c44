"""What evaluations of all kinds share: their options, the bars that scores must reach, and MLflow."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import rapidfuzz
from rich.table import Table

from recipekit import hub, runs, yamlfile
from recipekit.console import show
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task


class Judge(NamedTuple):
    """A model that judges replies, behind an OpenAI-compatible server.

    Attributes:
        url: Base URL, http://localhost:8000/v1.
        model: Its name there.
    """

    url: str
    model: str


@dataclass(frozen=True)
class Options:
    """What is scored and how.

    Attributes:
        gold: CSV file.
        articles: What was predicted, as predict.py reads it; without it the report shows no texts.
        output: Folder to write to.
        resamples: How often articles, or groups of rows, are drawn anew for the intervals.
        seed: Of the draws.
        redact: Whether personal names are taken out of errors.jsonl and report.html.
        bars: Metric's dotted name -> what it must reach.
        judge: Of a chat: the model that judges replies; None: none is asked.
    """

    gold: Path
    articles: Path | None
    output: Path
    resamples: int = 1000
    seed: int = 0
    redact: bool = False
    bars: Mapping[str, float] = field(default_factory=dict)
    judge: Judge | None = None


class Kind(Protocol):
    """The evaluation of tasks of one kind, a module."""

    def inputs(self, task: Task, options: Options) -> dict[str, Any]:
        """Name what the scores depend on beside the predictions, gold and articles."""

    def products(self, task: Task, options: Options) -> list[Path]:
        """Name the files that `score` writes."""

    def bars(self, task: Task, gold: Path) -> dict[str, tuple[float, float]]:
        """Name the metrics that can have a bar, each with the least and the greatest one."""

    def score(self, task: Task, predictions: Path, options: Options) -> tuple[dict[str, Any], list[str]]:
        """Score a predictions file and write the products.

        Returns:
            The metrics as metrics.json has them, and a line for each bar that is missed.
        """

    def compare(self, task: Task, files: tuple[Path, Path], options: Options) -> Table:
        """Compare two predictions files on the same gold and write compare.json; returns what to show."""

    def line(self, metrics: Mapping[str, Any]) -> str:
        """Say the scores in one line."""

    def logged(self, metrics: Mapping[str, Any]) -> dict[str, float | None]:
        """Name the scores as MLflow gets them."""

    def recorded(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Name the facts that the step's record keeps."""


def products(task: Task, options: Options) -> list[Path]:
    """Name the files that evaluations of every kind write."""
    return [options.output / name for name in ("metrics.json", "errors.jsonl", "report.html")]


def baselines(task: Task, options: Options) -> list[Path]:
    """Name the baselines' predictions, which are of the task's own test set."""
    return sorted(task.baselines.glob("*.jsonl")) if options.gold == task.test_path("gold") else []


def refuse_redact(task: Task, options: Options) -> None:
    """Refuse what only an extraction has.

    Raises:
        UserError: Names are to be hidden, and the task's answers are numbers.
    """
    if options.redact:
        raise UserError(f"--redact hides the names of an extraction's answers; a {task.kind} has none, leave it away")


def is_bundled(task: Task, gold: Path) -> bool:
    """Tell whether a gold file is the invented sample in the repository, or was made of it: its scores say little."""
    found = runs.digest(gold)
    test = task.spec["data"]["test"]
    sample = task.sample_dir / test.get("gold", "scenes.jsonl")
    if sample.exists() and ("gold" in test or runs.digest(sample) == found):
        return runs.digest(sample) == found
    made = runs.read_record(task.outputs / "state" / "regenerate.json")
    source = made.get("source")
    if source == relative(task.captioned_dir):
        source = runs.read_record(task.outputs / "state" / "caption.json").get("source")
    return source == relative(task.sample_dir) and found in made.get("products", {}).values()


def sources(task: Task, predictions: Path, gold: Path) -> dict[str, Any]:
    """Name the files that were scored, as metrics.json does."""
    return {
        "predictions": relative(predictions),
        "gold": relative(gold),
        "gold_sha256": runs.digest(gold),
        "bundled_sample": is_bundled(task, gold),
    }


def read_bars(path: Path, known: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Read the bars that metrics must not miss: YAML, a metric's dotted name and a number a line.

    Args:
        path: The YAML file.
        known: Metric's dotted name -> the least and the greatest bar.

    Raises:
        UserError: The file is missing or no YAML, a name is no metric, or a bar no number in range; all at once.
    """
    bars, lines = yamlfile.load(path)
    problems = []
    for name, bar in bars.items():
        place = f"{relative(path)}:{lines.get((name,), 1)}: {name}"
        if name not in known:
            near = rapidfuzz.process.extractOne(str(name), list(known), score_cutoff=70)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(known)}"
            problems.append(f"{place}: no such metric; {hint}")
            continue
        low, high = known[name]
        if isinstance(bar, bool) or not isinstance(bar, int | float) or not low <= bar <= high:
            problems.append(f"{place}: found {bar!r}, expected a number from {low:g} to {high:g}")
    if problems or not bars:
        example = f"write one a line, such as {next(iter(known))}: 0.9"
        raise UserError(problems or f"{relative(path)}:1: no bars in it; {example}")
    return bars


def log_to_mlflow(task: Task, facts: Mapping[str, Any], scores: Mapping[str, float | None]) -> None:
    """Log the scores as run "evaluate" in the task's MLflow experiment; where that fails, say so and go on."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{task.root / 'mlflow.db'}"
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(task.name)
        with mlflow.start_run(run_name="evaluate"):
            mlflow.log_params(dict(facts))
            mlflow.log_metrics({key: value for key, value in scores.items() if value is not None})
    except Exception as error:  # MLflow raises what its store raises; the scores are safe in metrics.json
        reason = hub.masked((str(error).splitlines() or [type(error).__name__])[0])
        show(
            f"evaluate: scores are not in MLflow ({reason}); mend it and run evaluate.py {task.name} --mlflow",
            style="yellow",
        )
