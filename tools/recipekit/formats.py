"""Raw rows of other shapes -> {"id", "body", "label"}, and "pair" of rankings, as data.rows of task.yml says."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
import orjson

from recipekit.errors import UserError
from recipekit.task import Task

Row = dict[str, Any]
ALPACA = {"body": "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}", "label": "output"}
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
SPEAKERS = {"user": "ユーザー", "assistant": "アシスタント"}
NAMES: dict[str, type] = {"string": str, "boolean": bool, "integer": int, "number": float, "null": type(None)}
TRUTHS = {"true": True, "1": True, "はい": True, "false": False, "0": False, "いいえ": False}


class Converter:
    """Makes {"id", "body", "label"} of a raw row; what else the row has stays.

    Args:
        task: Its output schema says of what type values are, gold.separator what stands between several in one.
        spec: data.rows of task.yml, or `rows` of a data set.
    """

    def __init__(self, task: Task, spec: Mapping[str, Any]) -> None:
        self.task = task
        self.schema = task.output_schema
        self.separator = task.spec["gold"]["separator"] if not task.estimates else "|"
        self.as_is = not spec
        self.numbers = task.estimates
        self.as_text = task.answers_are_text and not self.numbers
        self.messages = spec.get("format") == "messages"
        given = {**(ALPACA if spec.get("format") == "alpaca" else {}), **spec}
        self.id = given.get("id", "id")
        self.label = given.get("label", "label")
        self.body = _text(given, "body")
        self.pair = _text(given, "pair") if task.is_paired else None

    def __call__(self, row: Row) -> Row:
        """Convert a row.

        Raises:
            UserError: The row lacks a key that task.yml names, or its messages are no conversation.
        """
        if self.as_is:
            for key in ("id", "body", "label"):
                row.setdefault(key)
            if row["label"] is None and self.numbers:
                row["label"] = row.get("labels")  # as regenerate writes them
            if isinstance(row["label"], str) and not self.as_text:  # a cell of a CSV
                row["label"] = typed(row["label"], self.schema, self.separator)
            return row
        if self.messages:
            row = _exchange(row)
        name = row.get(self.id)
        made = {"id": None if name in (None, "") else str(name), "body": self.body(row)}
        if self.pair:
            made["pair"] = self.pair(row)
        return {**row, **made, "label": self._label(self.label, row, self.schema)}

    def names(self) -> list[str]:
        """Name the keys that the label is made of."""
        return list(_leaves(self.label))

    def _label(self, spec: Any, row: Row, schema: Any) -> Any:
        if isinstance(spec, Mapping):
            parts = schema.get("properties", {}) if isinstance(schema, Mapping) else {}
            return {key: self._label(inner, row, parts.get(key, {})) for key, inner in spec.items()}
        if spec not in row:
            raise UserError(f"key '{spec}': not there, and task.yml makes the label of it; add it or remove the row")
        return typed(row[spec], schema, self.separator)


def typed(value: Any, schema: Any, separator: str) -> Any:
    """Give a text the type that a schema asks for; what is none of it stays text, for the schema to refuse.

    A list is split at the separator, objects are read as JSON; an empty text is null where null is allowed.
    """
    kinds = _types(schema)
    if value is None and "null" not in kinds and "string" in kinds:
        return ""
    if not isinstance(value, str) or "string" in kinds:
        return value
    text = unicodedata.normalize("NFKC", value).strip()
    if not text and "null" in kinds:
        return None
    if "array" in kinds and not text.startswith("["):
        parts = [part.strip() for part in value.split(separator)]
        return [typed(part, schema.get("items", {}), separator) for part in parts if part]
    if "boolean" in kinds:
        return TRUTHS.get(text.lower(), value)
    try:
        if {"integer", "number"} & kinds:
            digits = text.replace(",", "") if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?", text) else text
            return int(digits) if re.fullmatch(r"[+-]?\d{1,18}", digits) else orjson.loads(digits)
        return orjson.loads(value)
    except ValueError:
        return value


def _types(schema: Any) -> set[str]:
    """Name the JSON types that a schema allows; text where it does not say."""
    if not isinstance(schema, Mapping):
        return {"string"}
    if "type" in schema:
        return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    if "properties" in schema:
        return {"object"}
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [])
    found = {name for choice in choices for name in NAMES if isinstance(choice, NAMES[name])}
    found -= {"integer", "number"} if any(isinstance(choice, bool) for choice in choices) else set()
    found |= {name for key in ("anyOf", "oneOf") for inner in schema.get(key, []) for name in _types(inner)}
    return found or {"string"}


def orderer(schema: Any) -> Callable[[Any], Any]:
    """Make a function that puts an answer's keys into the order of the schema's properties.

    Constrained decoding writes them in that order, and a model that learned another would be held to one that it never
    saw. What the schema does not know comes last.
    """
    return _orderer(schema) or (lambda value: value)


def _orderer(schema: Any) -> Callable[[Any], Any] | None:
    if not isinstance(schema, Mapping):
        return None
    if inner := _orderer(schema["items"]) if isinstance(schema.get("items"), dict) else None:
        return lambda value: [inner(item) for item in value] if isinstance(value, list) else value
    parts = schema.get("properties")
    if not parts:
        return None
    within = {key: inside for key in parts if (inside := _orderer(parts[key]))}

    def order(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = [key for key in parts if key in value]
        if known != [*value]:
            value = {key: value[key] for key in known} | value
        for key, inside in within.items():
            if key in value:
                value[key] = inside(value[key])
        return value

    return order


def _text(given: Mapping[str, Any], key: str) -> Callable[[Row], Any]:
    """Read a text, "body" or "pair", off the key that data.rows names, or render it where that is a template."""
    spec = given.get(key, key)
    if "{{" not in spec and "{%" not in spec:

        def lookup(row: Row) -> Any:
            if key in given and spec not in row:
                raise UserError(f"key '{spec}': not there, and task.yml takes the {key} from it; add it")
            return row.get(spec)

        return lookup
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(spec)

    def render(row: Row) -> str:
        try:
            return template.render(row)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise UserError(f"data.rows.{key} in task.yml: {error}; the keys here are {', '.join(row)}") from None

    return render


def _leaves(spec: Any) -> Iterator[str]:
    if isinstance(spec, Mapping):
        for inner in spec.values():
            yield from _leaves(inner)
    else:
        yield spec


def _exchange(row: Row) -> Row:
    """Make body and label of a conversation: its last reply is learned, all before it is read.

    A single question is the body as it stands; a longer conversation is told by speakers, a system message comes first.
    """
    turns = row.get("messages", row.get("conversations"))
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise UserError("key 'messages' (or 'conversations'): expected a list of turns; mend or remove the row")
    said: list[tuple[str, str]] = []
    for number, turn in enumerate(turns):
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if role not in ROLES or not isinstance(text, str):
            expected = f"role (or from) of {', '.join(ROLES)} and content (or value), a text"
            raise UserError(f"messages[{number}]: expected {expected}, found {str(turn)[:60]}; mend or remove the row")
        said.append((ROLES[role], text))
    if said[-1][0] != "assistant" or len(said) < 2:
        raise UserError(f"messages[{len(said) - 1}]: expected a reply by the assistant to something at the end")
    system = [text for role, text in said if role == "system"]
    before = [(role, text) for role, text in said[:-1] if role != "system"]
    told = [text if len(before) == 1 else f"{SPEAKERS[role]}: {text}" for role, text in before]
    return {**row, "body": "\n".join([*system, *told]), "label": said[-1][1]}
