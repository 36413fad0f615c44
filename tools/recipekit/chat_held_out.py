"""Held-out losses of a task's models, and how well they tell good replies from bad ones: outputs/TASK/held_out.json."""

import math
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task

_NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
SCHEMA = {
    "type": "object",
    "required": ["losses", "models", "sets"],
    "properties": {
        "losses": {"type": "object", "additionalProperties": _NUMBERS},
        "models": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "sets": {"type": "object", "additionalProperties": {"type": "object"}},
        "preferences": {
            "type": "object",
            "additionalProperties": {
                "type": "object", "required": ["pairs", "margin", "accuracy"],
                "properties": {key: {"type": "number"} for key in ("pairs", "margin", "accuracy")},
            },
        },
    },
}  # fmt: skip


def path_of(task: Task) -> Path:
    """Name the file."""
    return task.outputs / "held_out.json"


def read(task: Task) -> dict[str, Any] | None:
    """Read a task's held-out losses, and tell which phase forgot what.

    Returns:
        What the file says, and `forgotten` (data set -> loss of the last phase less that of the set's own phase); None
        where there is no file.

    Raises:
        UserError: The file is torn, or is not what it should be.
    """
    path = path_of(task)
    if not path.exists():
        return None
    try:
        found = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{relative(path)}: not valid JSON: {error}; remove it, and make it anew") from None
    problems = [
        f"{relative(path)}: {'.'.join(map(str, one.absolute_path)) or 'top'}: {one.message[:200]}; make it anew"
        for one in jsonschema.Draft202012Validator(SCHEMA).iter_errors(found)
    ]
    if problems:
        raise UserError(problems)
    return found | {"forgotten": _forgotten(found)}


def _forgotten(found: dict[str, Any]) -> dict[str, float]:
    last = found["models"][-1]
    result = {}
    for name, facts in found["sets"].items():
        before, after = (found["losses"].get(model, {}).get(name, math.nan) for model in (facts.get("phase"), last))
        if facts.get("phase") != last and math.isfinite(after - before):
            result[name] = after - before
    return result
