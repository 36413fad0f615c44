"""Predictions against the gold CSV: precision, recall and F1 per field, and rates over articles.

    uv run tools/evaluate.py hawks
    uv run tools/evaluate.py hawks --predictions FILE --gold FILE --output DIR

Writes DIR/metrics.json and DIR/errors.jsonl (every missed and spurious value). How values are compared stands in
tools/recipekit/normalise.py, what is counted in tools/recipekit/scoring.py.
"""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import ROOT, runs, scoring
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.gold import GoldRow, read_gold
from recipekit.runs import Step, relative
from recipekit.segments import read_jsonl
from recipekit.task import Task, load_task


def read_predictions(path: Path) -> tuple[dict[str, Any], dict[str, int], list[str]]:
    """Read predictions; a row needs "id" and "output", the parsed answer or null.

    Returns:
        Outputs by id, line numbers by id, and the problems found.
    """
    outputs: dict[str, Any] = {}
    lines: dict[str, int] = {}
    problems: list[str] = []
    try:
        for line, row in read_jsonl(path):
            name = row.get("id")
            if not isinstance(name, str) or "output" not in row:
                problems.append(
                    f"{relative(path)}:{line}: expected the keys 'id' (text) and 'output'; write them with predict.py"
                )
            elif name in lines:
                problems.append(
                    f"{relative(path)}:{line}: id '{name}' stands on line {lines[name]} already; keep one of them"
                )
            else:
                outputs[name], lines[name] = row["output"], line
    except UserError as error:
        problems += error.problems
    return outputs, lines, problems


def read_both(task: Task, predictions: Path, gold: Path) -> tuple[dict[str, GoldRow], dict[str, Any]]:
    """Read gold and predictions and see that both are about the same articles.

    Raises:
        UserError: Everything that is wrong in either file, or ids that stand in one of them only.
    """
    outputs, lines, problems = read_predictions(predictions)
    try:
        rows = read_gold(task, gold)
    except UserError as error:
        raise UserError(problems + error.problems) from None
    if problems:
        raise UserError(problems)
    without = [name for name in rows if name not in outputs]
    unknown = [name for name in outputs if name not in rows]
    if without:
        problems.append(
            f"{relative(gold)}:{rows[without[0]].line}: {_several(without)} no prediction in {relative(predictions)}; "
            f"predict all articles (uv run tools/predict.py {task.name}), or take the rows out of the gold file"
        )
    if unknown:
        problems.append(
            f"{relative(predictions)}:{lines[unknown[0]]}: {_several(unknown)} no row in {relative(gold)}; "
            "use the gold file of the same articles, or take the rows out of the predictions"
        )
    if problems:
        raise UserError(problems)
    return rows, outputs


def _several(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'ids' if len(names) > 1 else 'id'} {shown}{more} {'have' if len(names) > 1 else 'has'}"


def is_bundled(task: Task, gold: Path) -> bool:
    """Tell whether a gold file is the invented sample in the repository, so that its scores say little of real news."""
    sample = task.root / "data" / "samples" / task.name / task.spec["data"]["test"]["gold"]
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
    values |= {key: metrics[key] for key in ("false_positive_rate", "valid_json_rate", "exact_match_rate")}
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(task.name)
        with mlflow.start_run(run_name="evaluate"):
            mlflow.log_params(metrics["data"])
            mlflow.log_metrics({key: value for key, value in values.items() if value is not None})
    except Exception as error:  # MLflow raises what its store raises; the scores are safe in metrics.json
        reason = str(error).splitlines()[0]
        show(
            f"evaluate: scores are not in MLflow ({reason}); mend it and run evaluate.py {task.name} --mlflow",
            style="yellow",
        )


def score_files(task: Task, predictions: Path, gold: Path, output: Path) -> dict[str, Any]:
    """Score a predictions file and write metrics.json and errors.jsonl; returns the metrics."""
    rows, outputs = read_both(task, predictions, gold)
    metrics, errors = scoring.score(task, {name: row.values for name, row in rows.items()}, outputs)
    metrics["data"] = {
        "predictions": relative(predictions),
        "gold": relative(gold),
        "gold_sha256": runs.digest(gold),
        "bundled_sample": is_bundled(task, gold),
    }
    runs.write_jsonl(output / "errors.jsonl", errors)
    runs.write_text(output / "metrics.json", json.dumps(metrics, ensure_ascii=False, indent=2) + "\n")
    return metrics


def make_step(task: Task, predictions: Path, gold: Path, output: Path) -> Step:
    """Name what the scores depend on."""
    kit = ROOT / "tools" / "recipekit"
    code = [kit.parent / "evaluate.py", kit / "gold.py", kit / "scoring.py", kit / "laws.yml", *kit.glob("normal*.py")]
    inputs = {
        "predictions": predictions,
        "gold": gold,
        "columns": task.spec["gold"],
        "schema": task.output_schema,
        **{path.name: path for path in code},
    }
    return Step(task.outputs, "evaluate", inputs, [output / "metrics.json", output / "errors.jsonl"])


def evaluate(
    task: str,
    predictions: Annotated[Path | None, typer.Option(help="JSONL; default outputs/TASK/predictions.jsonl")] = None,
    gold: Annotated[Path | None, typer.Option(help="CSV; default the task's, below data/test/")] = None,
    output: Annotated[Path | None, typer.Option(help="folder; default outputs/TASK/evaluation")] = None,
    mlflow: Annotated[bool | None, typer.Option(help="log to MLflow; default only where all paths are default")] = None,
) -> None:
    """Score a task's predictions against its gold CSV."""
    recipe = load_task(task)
    is_step = predictions is None and gold is None and output is None
    if is_step:
        log_to("evaluate")
    predictions = predictions or recipe.outputs / "predictions.jsonl"
    gold = gold or recipe.test_path("gold")
    output = output or recipe.outputs / "evaluation"
    step = make_step(recipe, predictions, gold, output)
    if is_step and not mlflow and predictions.exists() and gold.exists() and step.done():
        show_scores(recipe, json.loads((output / "metrics.json").read_text(encoding="utf-8")), "up to date")
        return
    metrics = score_files(recipe, predictions, gold, output)
    show_scores(recipe, metrics, f"written to {relative(output)}")
    if is_step if mlflow is None else mlflow:
        log_to_mlflow(recipe, metrics)
    if is_step:
        step.record(micro_f1=metrics["micro"]["f1"])


def show_scores(task: Task, metrics: dict[str, Any], state: str) -> None:
    """Show the table; in a run of the whole pipeline, which ends with it, only a line."""
    if os.environ.get("LOG_DIR"):
        show(f"evaluate: {state}; micro F1 {scoring.percent(metrics['micro']['f1'])}, {scoring.summary(metrics)}")
    else:
        show(scoring.table(metrics, title=task.title))
        show(f"evaluate: {state}")


if __name__ == "__main__":
    main(evaluate)
