"""Data files to validate, and a task whose tokenizer needs no file."""

import json

import pytest

from recipekit import rowcheck, validation
from recipekit.task import load_task
from rows import Characters

LIMIT = validation.Limit("base", None, 200, "phase1")


def sample(number, body="", *names):
    return {
        "id": f"A{number}",
        "body": body or f"花火大会{number}。",
        "label": {"persons": [{"name": n} for n in names]},
    }


def line(value):
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def check(task, path, copy=None, measure=LIMIT):
    """Validate a file; returns the report and the findings."""
    found = []
    report = validation.validate(task, path, measure, lambda _, finding: found.append(finding), lambda _: None, copy)
    return report, found


def mend(task, path, drop=False):
    copy = validation.Copy(path.with_suffix(".fixed.jsonl"), path.with_suffix(".fixes.jsonl"), drop)
    report, _ = check(task, path, copy)
    fixes = [json.loads(text) for text in copy.fixes.read_text(encoding="utf-8").splitlines()]
    return copy.path, fixes, report


def places(found):
    return [(finding.line, finding.kind, finding.path) for finding in found]


@pytest.fixture
def counted_task(mini, monkeypatch):
    monkeypatch.setattr(rowcheck, "load_tokenizer", lambda *_: Characters())
    return load_task("mini", mini)
