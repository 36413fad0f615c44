"""What answers hold: how often each path is filled, with which values, and how many items a list has."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

MOST_VALUES = 100_000  # different values of a path that are told apart; of more, the rare ones are forgotten
MOST_PATHS = 500  # in answers whose keys are free
LONGEST = 200  # characters of a value that are told apart
BRANCHES = ("allOf", "anyOf", "oneOf")


class Values:
    """Counts values, the frequent ones exactly.

    Attributes:
        exact: False once values were forgotten: then a count may be short by what a value had when it was.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.exact = True

    def add(self, value: str) -> None:
        """Count a value."""
        self.counts[value[:LONGEST]] += 1
        if len(self.counts) > MOST_VALUES:
            self.counts = Counter(dict(self.counts.most_common(MOST_VALUES // 2)))
            self.exact = False


class Fields:
    """What the paths of answers hold. A path is `persons[].name`; `persons[]` is each item of the list.

    Attributes:
        schemas: The paths that an output schema names -> their part of it.
        rows: Path -> rows in which it is filled at least once.
        items: Path -> places where it stands, filled or not.
        filled: Path -> places where it is filled: not null, "", [] or {}.
        values: Path -> its texts, numbers and booleans.
        lists: A list's path -> number of items -> rows.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schemas: dict[str, dict[str, Any]] = {}
        for path, part in _schema_paths(schema, schema, "", ()):
            self.schemas[path] = {**part, **self.schemas.get(path, {})}  # of anyOf, what its branches say together
        self.rows: Counter[str] = Counter()
        self.items: Counter[str] = Counter()
        self.filled: Counter[str] = Counter()
        self.values: defaultdict[str, Values] = defaultdict(Values)
        self.lists: defaultdict[str, Counter[int]] = defaultdict(Counter)

    @property
    def paths(self) -> list[str]:
        """Every path: the schema's, in its order, then those that only answers have."""
        return list(dict.fromkeys([*self.schemas, *self.items]))

    def add(self, answer: Any) -> None:
        """Count an answer."""
        filled = set()
        for path, value in _nodes(answer, ""):
            if path not in self.items and len(self.items) >= MOST_PATHS:
                continue
            self.items[path] += 1
            if value in (None, "", [], {}) or (isinstance(value, str) and not value.strip()):
                continue
            filled.add(path)
            self.filled[path] += 1
            if not isinstance(value, list | dict):
                self.values[path].add(value if isinstance(value, str) else json.dumps(value))
        self.rows.update(filled)
        for key, value in answer.items() if isinstance(answer, dict) else ():
            if isinstance(value, list):
                self.lists[f"{key}[]"][len(value)] += 1

    def categories(self) -> dict[str, dict[str, int]]:
        """Count the values of what the schema has as an enum, constant or boolean, also those that never occur."""
        found = {}
        for path, schema in self.schemas.items():
            known = schema.get("enum", [schema["const"]] if "const" in schema else [])
            if not known and "boolean" in schema.get("type", ""):
                known = [True, False]
            names = [value if isinstance(value, str) else json.dumps(value) for value in known if value != ""]
            if names:
                found[path] = {name: self.values[path].counts[name[:LONGEST]] for name in names}
        return found


def _schema_paths(
    schema: Any, root: Mapping[str, Any], path: str, within: tuple[str, ...]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the paths that a JSON Schema names, each with its part of the schema; what refers to itself is left out."""
    if not isinstance(schema, Mapping):
        return
    pointer = schema.get("$ref", "")
    if pointer.startswith("#/") and pointer not in within:
        yield from _schema_paths(_resolve(root, pointer), root, path, (*within, pointer))
    branches = [part for key in BRANCHES for part in schema.get(key, ())]
    for branch in branches:
        yield from _schema_paths(branch, root, path, within)
    properties, items = schema.get("properties", {}), schema.get("items")
    is_leaf = not (pointer or branches or properties) and items is None
    if path and (is_leaf or (properties and path.endswith("[]"))):
        yield path, schema
    for name, inner in properties.items():
        yield from _schema_paths(inner, root, f"{path}.{name}" if path else name, within)
    if items is not None:
        yield from _schema_paths(items, root, f"{path}[]", within)


def _resolve(root: Any, pointer: str) -> Any:
    for key in pointer.removeprefix("#/").split("/"):
        root = root.get(key.replace("~1", "/").replace("~0", "~")) if isinstance(root, Mapping) else None
    return root


def _nodes(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each place of an answer that has a path of its own: items of lists, and what is no list."""
    if isinstance(value, dict):
        if path.endswith("[]"):
            yield path, value
        for key, inner in value.items():
            yield from _nodes(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner, f"{path}[]")
    elif path:
        yield path, value
