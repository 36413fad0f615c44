"""Articles that are scored and shown in a report, for tests."""

import json

from recipekit import report
from recipekit.evaluation import Evaluation
from recipekit.gold import GoldRow
from recipekit.redact import redact
from recipekit.task import Task

DATA = {"predictions": "p.jsonl", "gold": "g.csv", "gold_sha256": "0" * 64, "bundled_sample": False}
KEYS = {"person_name": "name", "person_age_at_published": "age", "person_address": "address"}
KEYS |= {"person_belongs_company": "affiliation", "person_position_name": "position", "person_violated_law": "act"}


def gold(name, persons=(), places=(), police=()):
    """A gold row of hawks; persons by the properties of an answer."""
    columns = {key: column for column, key in KEYS.items()}
    entities = [{columns[key]: value for key, value in person.items()} for person in persons]
    sets = {"occured_locations": list(places), "police_departments": list(police)}
    return GoldRow(name, 1, {"person": entities} if entities else {}, {key: v for key, v in sets.items() if v})


def answer(persons=(), places=(), police=()):
    """An answer of hawks; what a person lacks is empty."""
    empty = dict.fromkeys(KEYS.values(), "") | {"is_real": True, "is_offender": True, "category": "法令違反"}
    return {
        "persons": [empty | person for person in persons],
        "occured_locations": list(places),
        "police_departments": list(police),
    }


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
