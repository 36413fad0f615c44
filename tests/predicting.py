"""Helpers of tests that predict."""

import json

import predict
from recipekit.inputs import read_articles

TEXTS = {"type": "string", "maxLength": 6}
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["persons", "places"],
    "properties": {
        "persons": {
            "type": "array", "maxItems": 2,
            "items": {
                "type": "object", "additionalProperties": False, "required": ["name", "real", "kind"],
                "properties": {"name": TEXTS, "real": {"type": "boolean"}, "kind": {"enum": ["法令違反", "過失"]}},
            },
        },
        "places": {"type": "array", "maxItems": 2, "items": TEXTS},
        "more": TEXTS,
    },
}  # fmt: skip


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def options(task, base, **values):
    folder = task.root / "outputs"
    return predict.Options(**{"model": base, "adapter": None, "input": task.test_path("input"),
                              "output": folder / "p.jsonl", "batch_size": 3, **values})  # fmt: skip


def run(task, options, name="run"):
    return predict.predict(task, options, read_articles(options.input)[0], name)


def without_time(row):
    return {key: value for key, value in row.items() if key != "seconds"}
