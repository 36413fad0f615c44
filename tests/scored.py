"""Articles that are scored and shown in a report, for tests."""

import json

from recipekit import report
from recipekit.evaluation import Evaluation
from recipekit.redact import redact
from recipekit.task import Task

DATA = {"predictions": "p.jsonl", "gold": "g.csv", "gold_sha256": "0" * 64, "bundled_sample": False}


def predicted(name, output, **more):
    """A row of a predictions file."""
    return {"id": name, "output": output, "raw": json.dumps(output, ensure_ascii=False)} | more


def report_of(task: Task, rows, hide=False, data=DATA):
    """Score (gold row, prediction, article) and write the report.

    Returns:
        HTML, metrics, and errors as errors.jsonl has them.
    """
    evaluation = Evaluation(task, redact(task) if hide else None)
    errors = []
    for right, prediction, article in rows:
        row = None if article is None else {"id": right.id, "body": article, "kind": "arrest"}
        errors += evaluation.add(right, prediction, row)
    metrics = evaluation.metrics(evaluation.estimates(100, 0), 100, 0) | {"data": data}
    return report.render(task, evaluation, metrics), metrics, errors
