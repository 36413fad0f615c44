"""What a model wrote -> an answer that the schema allows, or none."""

import re
from typing import Any

import json_repair
import jsonschema_rs
import orjson

MOST_DEPTH, MOST_CHARACTERS = 64, 100_000  # json-repair recurses, and takes seconds for more
NAMED = 5  # repairs named of one answer
BRACKET = re.compile(r"[\[\]{}]")


class Judge:
    """Reads answers of one task.

    Args:
        schema: The task's output_schema.
        mend: Whether answers that are not JSON are mended; for models that nothing held to the schema.
    """

    def __init__(self, schema: dict[str, Any], mend: bool = False) -> None:
        self.is_valid = jsonschema_rs.validator_for(schema).is_valid
        self.is_text = schema.get("type") == "string"
        self.mend = mend
        self.opening = "{" if schema.get("type") == "object" else "{["

    def read(self, raw: str, finished: bool) -> dict[str, Any]:
        """Read an answer: JSON, or plain text where the schema asks for a string.

        Args:
            raw: What the model wrote.
            finished: Whether it came to its end; what was cut off has no output, mended or not.

        Returns:
            "output", None where it is no answer that the schema allows; "raw"; "valid"; and, where something was
            mended, "repaired", what that was.
        """
        output, repaired = None, list[str]()
        if finished and self.is_text:
            output = raw.strip()
        elif finished:
            try:
                output = orjson.loads(raw)
            except orjson.JSONDecodeError:
                output, repaired = mended(raw, self.opening) if self.mend else (None, [])
        good = output is not None and self.is_valid(output)
        found = {"repaired": repaired} if repaired else {}
        return {"output": output if good else None, "raw": raw, "valid": good, **found}


def mended(raw: str, opening: str) -> tuple[Any, list[str]]:
    """Mend JSON as far as can be done without guessing at what it says.

    Text around the JSON and a fence go; quotes, commas, brackets at the end and comments are mended. Nothing is of a
    text without brackets, of two answers in one, of keys that are doubled or lack their value, of what is too deep or
    too long for json-repair, nor where the outcome has no JSON form (1e999, half a surrogate pair).

    Args:
        raw: What the model wrote.
        opening: Brackets that an answer may open with.

    Returns:
        The value and, in short, what was mended; None and nothing where it cannot be.
    """
    start = min((raw.find(bracket) for bracket in opening if bracket in raw), default=-1)
    if start < 0 or len(raw) > MOST_CHARACTERS or _depth(raw) > MOST_DEPTH:
        return None, []
    end = max(raw.rfind("}"), raw.rfind("]")) + 1
    if '"' in raw[end:]:  # more of the answer, which has lost its end
        end = len(raw)
    try:
        both: Any = json_repair.loads(raw[start:end], logging=True, skip_json_loads=True, strict=True)
        value, log = both
        if orjson.loads(orjson.dumps(value)) != value:  # orjson writes NaN as null
            return None, []
    except (ValueError, TypeError, RecursionError):
        return None, []
    around = ["left out the text around the JSON"] if (raw[:start] + raw[end:]).strip() else []
    notes = dict.fromkeys([*around, *(entry["text"].strip()[:120] for entry in log)])
    return value, list(notes)[:NAMED] or ["mended the punctuation"]


def _depth(text: str) -> int:
    """Count how deep brackets are nested, those within strings with the others."""
    depth = deepest = 0
    for match in BRACKET.finditer(text):
        depth = max(0, depth + (1 if match[0] in "[{" else -1))
        deepest = max(deepest, depth)
    return deepest
