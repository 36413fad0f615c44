"""The rows of every split of a task, with what is needed to tell which of them share something."""

import copy
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jmespath
import jmespath.parser
import numpy as np
import orjson
from numpy.typing import NDArray

from recipekit import chat_rows, inputs, near, raw, rawfiles
from recipekit.errors import UserError
from recipekit.gold import GoldFile
from recipekit.normal_name import person_name
from recipekit.runs import relative
from recipekit.segments import read_jsonl
from recipekit.task import Task

SPLITS = ("train", "validation", "test")
TEXT = ("exact", "normalised", "near")  # the strictest first
KINDS = (*TEXT, "person", "group", "id")  # of what rows can share
BATCH = 1000  # texts
SHOWN = 20  # problems

Row = dict[str, Any]
Rows = Iterable[tuple[int, Row]]  # with their lines


class Part(NamedTuple):
    """The rows of one data set: numbers from `start` to the next part's."""

    name: str
    split: str
    path: Path
    start: int


class Corpus:
    """The rows of all splits. Texts wait in a file without a name; about 600 bytes a row are kept in memory.

    Attributes:
        parts: Data sets in the order of their rows.
        keys: Kind -> 64-bit digests of what rows of one of them have in common, and their rows.
        gold_path: The gold file; None where the test set is a part of a split file.
    """

    def __init__(self, task: Task, source: Path) -> None:
        self.task = task
        self.source = source
        self.group: str | None = task.spec["data"].get("leaks", {}).get("group")
        self.parts: list[Part] = []
        self.gold_path: Path | None = None
        self.keys = {kind: (array("Q"), array("I")) for kind in KINDS if kind != "near"}
        self._finders = name_finders(task)
        self._lines = array("I")
        self._starts = array("Q", [0])
        self._slots = array("I")
        self._waiting: list[str] = []
        task.outputs.mkdir(parents=True, exist_ok=True)
        self._texts = tempfile.TemporaryFile(dir=task.outputs)  # noqa: SIM115 (lives as long as the table)
        self.grams = lru_cache(maxsize=4096)(self._grams)

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def kinds(self) -> list[str]:
        """Kinds that this task can have."""
        absent = {"person"} if not self._finders else set()
        return [kind for kind in KINDS if kind not in absent | ({"group"} if not self.group else set())]

    def fill(self, advance: Callable[..., None]) -> None:
        """Read every data set and the test set.

        Raises:
            UserError: Files are missing or broken, or rows lack the group's key; all at once.
        """
        problems: list[str] = []
        for name, split, path, rows, names in self._sources(problems):
            self.parts.append(Part(name, split, path, len(self)))
            try:
                for line, row in rows:
                    problems += self._add(path, line, row, names)
                    if len(self._waiting) == BATCH:
                        self._flush()
                        advance(BATCH)
            except UserError as error:
                problems += error.problems
        self._flush()
        if problems:
            more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
            raise UserError(problems[:SHOWN] + more)

    def _sources(self, problems: list[str]) -> Iterator[tuple[str, str, Path, Rows, Callable[[Row], list[str]]]]:
        """Yield name, split, file, rows and what finds a row's persons, of every data set and of the test set."""

        def named(row: Row) -> list[str]:
            return [name for find in self._finders for name in find(row["label"])]

        task, data = self.task, self.task.spec["data"]
        made = task.estimates or task.is_chat  # read as regenerate made them
        found = rawfiles.files(task, self.source)[0] if not made else []
        for name in [*task.raw_sets, rawfiles.TEST]:
            split = "test" if name == rawfiles.TEST else task.role(name)
            if task.is_chat:
                path = task.test_path("input") if name == rawfiles.TEST else task.segments_path(name)
                yield name, split, path, chat_rows.said(task, read_jsonl(path)), lambda _: []
            elif task.estimates:  # regenerate reads dialogues and masks texts
                path = task.test_path("input") if name == rawfiles.TEST else task.rows_path(name)
                yield name, split, path, read_jsonl(path), lambda _: []
            elif file := next((file for file in found if name in file.shares), None):
                yield name, split, file.path, rawfiles.read(task, self.source, name), named
        if made or any(rawfiles.TEST in file.shares for file in found):
            return
        try:
            articles, self.gold_path = (rawfiles.find(task, self.source, data["test"][w]) for w in ("input", "gold"))
            names = _gold_names(task, self.gold_path)
        except UserError as error:
            problems += error.problems
        else:
            yield rawfiles.TEST, "test", articles, _articles(articles), lambda row: names.get(row["id"], [])

    def _add(self, path: Path, line: int, row: Row, names: Callable[[Row], list[str]]) -> Iterator[str]:
        texts = [self.task.clean(row[key]) if isinstance(row[key], str) else "" for key in self.task.text_keys]
        text = "\n".join(texts) if all(texts) else ""
        if not text:
            return  # validate.py names it
        number = len(self)
        normal = near.normal(text)
        persons = names(row)
        group = row.get(self.group) if self.group else None
        groups = group if isinstance(group, list) else [group] if group not in (None, "") else []
        if self.group and not groups and not self.task.estimates:  # regenerate told of a regression's
            yield f"{relative(path)}:{line}: key '{self.group}': not there, and data.leaks.group names it; add it"
        values = {
            "exact": [text],
            "normalised": [normal],
            "person": [name for person in persons if len(name := person_name(person).key) > 1],
            "group": [*map(str, groups), *(texts[:1] if self.task.is_paired else [])],  # an odai under two ids is one
            "id": [str(row["id"])] if row.get("id") is not None else [],
        }
        for kind, own in values.items():
            self.keys[kind][0].extend(map(raw.key, own))
            self.keys[kind][1].extend([number] * len(own))
        self._lines.append(line)
        shown = {kind: values[kind] for kind in ("group", "id")} | {"person": persons}
        self._starts.append(self._starts[-1] + self._texts.write(orjson.dumps([text, normal, shown])))
        self._waiting.append(normal)

    def _flush(self) -> None:
        if self._waiting:
            self._slots.frombytes(near.signatures(self._waiting).tobytes())
            self._waiting = []
        self._texts.flush()

    @property
    def signatures(self) -> NDArray[np.uint32]:
        """MinHash signatures, one row a row."""
        return np.frombuffer(self._slots, np.uint32).reshape(-1, near.SLOTS)

    def rows_of_parts(self) -> list[tuple[Part, range]]:
        """Return every data set with the numbers of its rows."""
        ends = [part.start for part in self.parts[1:]] + [len(self)]
        return [(part, range(part.start, end)) for part, end in zip(self.parts, ends, strict=True)]

    def rows(self, split: str) -> NDArray[np.intp]:
        """Return the numbers of a split's rows."""
        parts = [np.array(rows, np.intp) for part, rows in self.rows_of_parts() if part.split == split]
        return np.concatenate([np.empty(0, np.intp), *parts])

    def part(self, row: int) -> Part:
        """Return the data set of a row."""
        return next(part for part in reversed(self.parts) if part.start <= row)

    def line(self, row: int) -> int:
        """Return the line of a row in its file, from 1."""
        return self._lines[row]

    def place(self, row: int) -> str:
        """Name a row's file and line."""
        return f"{relative(self.part(row).path)}:{self._lines[row]}"

    def text(self, row: int) -> str:
        """Return the article of a row, as it is trained on."""
        return self._read(row)[0]

    def values(self, row: int, kind: str) -> list[str]:
        """Return the persons, groups or id of a row."""
        return self._read(row)[2][kind]

    def _read(self, row: int) -> Any:
        start = self._starts[row]
        return orjson.loads(os.pread(self._texts.fileno(), self._starts[row + 1] - start, start))

    def _grams(self, row: int) -> NDArray[np.uint64]:
        return near.grams(self._read(row)[1])


def _articles(path: Path) -> Iterator[tuple[int, Row]]:
    problems = []
    for place, row in inputs.scan(path):
        if isinstance(row, inputs.Problem):
            problems.append(f"{place}: {row.text}")
        else:
            yield int(place.rpartition(":")[2]), row
    if problems:
        raise UserError(problems)


def _gold_names(task: Task, path: Path) -> dict[str, list[str]]:
    """Return the persons of every article in a gold file that has some, by the article's id."""
    columns = [name for name, spec in task.gold_columns.items() if spec["compare"] == "person_name"]
    names: dict[str, list[str]] = {}
    for answer in GoldFile(task, path) if columns else ():
        entities = [entity for many in answer.entities.values() for entity in many]
        own = [entity[column] for entity in entities for column in columns if column in entity]
        own += [value for column in columns for value in answer.sets.get(column, [])]
        if own:
            names[answer.id] = own
    return names


def name_finders(task: Task) -> list[Callable[[Any], list[str]]]:
    """Return what takes names out of a label, one function a column that is compared as person_name.

    Filters in paths are passed over: somebody who is named, but is no offender, is known to the model as well.
    """
    if task.kind != "extraction":
        return []
    entities = task.spec["gold"].get("entities", {})
    columns = [spec for spec in task.gold_columns.values() if spec["compare"] == "person_name"]
    return [_finder(entities[spec["entity"]]["path"] if "entity" in spec else "@", spec["path"]) for spec in columns]


def _finder(entity: str, column: str) -> Callable[[Any], list[str]]:
    owners, values = _unfiltered(entity), _unfiltered(column)

    def names(label: Any) -> list[str]:
        try:
            found = owners.search(label)
            every = [values.search(owner) for owner in (found if isinstance(found, list) else [found])]
        except jmespath.exceptions.JMESPathError as error:
            raise UserError(f"gold in task.yml: {entity}, {column}: {str(error).splitlines()[0]}; mend it") from None
        texts = [text for value in every for text in (value if isinstance(value, list) else [value])]
        return [text for text in texts if isinstance(text, str) and text]

    return names


def _unfiltered(path: str) -> jmespath.parser.ParsedResult:
    """Compile a JMESPath whose filters let everything pass."""
    parsed = copy.deepcopy(jmespath.compile(path).parsed)  # jmespath keeps it for others
    nodes = [parsed]
    for node in nodes:
        if node["type"] == "filter_projection":
            node["children"][2] = {"type": "literal", "value": True, "children": []}
        nodes += [child for child in node["children"] if isinstance(child, dict)]
    return jmespath.parser.ParsedResult(path, parsed)
