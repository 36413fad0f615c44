"""What is wrong with a label: by the task's output schema, and beside the article that it is of."""

from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema_rs

from recipekit import spans
from recipekit.extract import properties_of
from recipekit.task import Task

LONGEST = 200  # characters of a message, which may quote a whole label
Place = str  # where something stands in a row: label.persons[0].age


class LabelChecker:
    """Checks the labels of one task.

    Attributes:
        is_valid: Tells fast whether a label fits the task's output_schema.
        copied: Properties whose values stand in the article word for word.
    """

    def __init__(self, task: Task) -> None:
        self.is_valid = jsonschema_rs.validator_for(task.output_schema).is_valid
        self.copied = copied_properties(task)
        self._schema = task.output_schema

    def problems(self, label: Any) -> list[tuple[Place, str]]:
        """Tell where a label does not fit the schema, and why."""
        if self.is_valid(label):
            return []
        import jsonschema  # has words for what is wrong, and takes its time

        faults = jsonschema.Draft202012Validator(self._schema).iter_errors(label)
        return [(place(("label", *fault.absolute_path)), _cut(fault.message)) for fault in faults]

    def missing(self, label: Any, article: str) -> Iterator[tuple[Place, str]]:
        """Yield the values, and where they stand, that a label should have copied from an article, which has them not.

        Width and white space do not matter; blank values are none.
        """
        for path, value in _strings(label, ("label",), self.copied, False):
            if value.strip() and not spans.contains(article, value):
                yield place(path), value


def copied_properties(task: Task) -> set[str]:
    """Name the properties of an answer that repeat words of the article.

    They are those that a gold column takes values from, but for columns compared as law, which labels write in another
    way than articles, and for properties that the schema gives a choice of values. `verbatim` of a column in task.yml
    says otherwise.
    """
    if task.estimates:
        return set()
    columns = task.gold_columns.values()
    paths = [spec["path"] for spec in columns if spec.get("verbatim", spec["compare"] != "law")]
    return {name for path in paths for name in properties_of(path)} - set(_choices(task.output_schema))


def place(path: Iterable[str | int]) -> Place:
    """Write a path as label.persons[0].age."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def _strings(value: Any, path: tuple[str | int, ...], names: set[str], inside: bool) -> Iterator[tuple[Any, str]]:
    if isinstance(value, str) and inside:
        yield path, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _strings(item, (*path, number), names, inside)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, (*path, key), names, key in names)


def _choices(schema: Any) -> Iterator[str]:
    """Yield the properties for which a schema lists the values."""
    if isinstance(schema, dict):
        for name, own in schema.get("properties", {}).items():
            items = own.get("items") if isinstance(own, dict) else None
            if any(isinstance(each, dict) and ("enum" in each or "const" in each) for each in (own, items)):
                yield name
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _choices(inner)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
