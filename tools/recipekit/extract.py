"""The values of an answer, as a gold row has them: by the paths of task.yml."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jmespath

from recipekit.errors import UserError
from recipekit.gold import Entity
from recipekit.task import Task


class Extractor:
    """Takes entities and sets out of answers.

    Args:
        task: Its gold columns count.

    Attributes:
        keys: Entity's name -> the column that tells one from another.
        columns: Entity's name -> its columns, and what takes their value out of an object.
        sets: Columns without an entity, and what takes their values out of an answer.
    """

    def __init__(self, task: Task) -> None:
        gold = task.spec["gold"]
        entities = gold.get("entities", {})
        self._place = place = f"recipes/{task.name}/task.yml: gold"
        self._entities = {name: _getter(spec["path"], f"{place}.entities.{name}") for name, spec in entities.items()}
        paths = {
            column: (spec.get("entity"), _getter(spec["path"], f"{place}.columns.{column}"))
            for column, spec in task.gold_columns.items()
        }
        self.keys = {name: spec["key"] for name, spec in entities.items()}
        self.columns = {name: {c: get for c, (owner, get) in paths.items() if owner == name} for name in entities}
        self.sets = {column: get for column, (owner, get) in paths.items() if owner is None}
        self._separator = gold["separator"]

    def values(self, output: Any) -> tuple[dict[str, list[Entity]], dict[str, list[str]]]:
        """Take entities and sets out of an answer, as a gold row has them.

        Raises:
            UserError: A column's path leads to an object instead of values.
        """
        entities = {}
        for name in self._entities:
            objects = self._objects(name, output)
            if objects:
                columns = self.columns[name].items()
                found = [{column: self._texts(column, get(each)) for column, get in columns} for each in objects]
                filled = [
                    {column: self._separator.join(texts) for column, texts in each.items() if texts} for each in found
                ]
                entities[name] = [each for each in filled if each]
        sets = {c: self._texts(c, get(output)) for c, get in self.sets.items()}
        return entities, {column: texts for column, texts in sets.items() if texts}

    def _objects(self, name: str, output: Any) -> list[dict[str, Any]]:
        objects = self._entities[name](output) or []
        if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
            raise UserError(f"{self._place}.entities.{name}.path: expected it to lead to a list of objects")
        return objects

    def _texts(self, column: str, value: Any) -> list[str]:
        if value is None or value == "" or value == []:
            return []
        if isinstance(value, str):
            return [text] if (text := value.strip()) else []
        if isinstance(value, list):
            return [text for item in value for text in self._texts(column, item)]
        if isinstance(value, dict):
            raise UserError(f"{self._place}.columns.{column}.path: leads to an object, not to its values")
        return [json.dumps(value)]


def predicted_values(task: Task, output: Any) -> dict[str, list[str]]:
    """Take every gold column's values out of one answer, whichever entity they belong to.

    Raises:
        UserError: A column's path leads to an object instead of values.
    """
    found = Extractor(task).values(output)
    flat = {column: [e[column] for e in found[0].get(name, []) if column in e] for name, column in _owners(task)}
    return {column: found[1].get(column, []) if column not in flat else flat[column] for column in task.gold_columns}


def properties_of(path: str) -> list[str]:
    """Name the properties that a JMESPath takes values from, outermost first, without those that a filter looks at."""
    return list(_fields(jmespath.compile(path).parsed))


def _fields(node: Mapping[str, Any]) -> Iterator[str]:
    if node["type"] == "field":
        yield node["value"]
    for child in node["children"][: 2 if node["type"] == "filter_projection" else None]:
        if isinstance(child, dict):
            yield from _fields(child)


def _owners(task: Task) -> list[tuple[str, str]]:
    return [(spec["entity"], column) for column, spec in task.gold_columns.items() if "entity" in spec]


def _getter(path: str, place: str) -> Callable[[Any], Any]:
    """Compile a JMESPath; a plain key, which most are, is looked up directly."""
    if path.isidentifier():
        return lambda value: value.get(path) if isinstance(value, Mapping) else None
    compiled = jmespath.compile(path)

    def search(value: Any) -> Any:
        try:
            return compiled.search(value)
        except jmespath.exceptions.JMESPathError as error:
            raise UserError(f"{place}.path: {str(error).splitlines()[0]}") from None

    head = re.fullmatch(r"([A-Za-z_]\w*)\[[^\[\]|]*\](?:\.\w+)*", path)
    if head is None:
        return search
    # Nothing can be picked out of an empty list, which most articles have, and jmespath takes its time to say so.
    return lambda value: search(value) if isinstance(value, Mapping) and value.get(head[1]) else None
