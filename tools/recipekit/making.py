"""Makers of rows: what becomes of a chunk of a raw file."""

import multiprocessing
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from recipekit import raw, segments
from recipekit.errors import UserError
from recipekit.formats import Converter, Row, orderer
from recipekit.gold_rows import GoldWriter
from recipekit.personas import PersonaConverter
from recipekit.raw import Chunk
from recipekit.rawcheck import RawChecker
from recipekit.rawfiles import TEST, RawFile
from recipekit.task import Task


class Checker(Protocol):
    """Tells what is wrong with a row whose body is cleaned, and where in it."""

    def problems(self, row: Mapping[str, Any], text: str | None = None) -> list[tuple[str, str]]:
        """Tell it."""


@dataclass
class Made:
    """What a chunk came to.

    Attributes:
        lengths: Name of a file -> bytes of each line that was written to it.
        rows: Part -> rows.
        problems: Line, counted from the chunk's first, and what is wrong with it.
        ids: Digests of the rows' ids, 64 bits each.
        lines: Lines of the file that the chunk was; 0 where its lines are counted from the file's first.
        path: The file.
        groups: Value of the task's group -> part, of a regression.
        masked: Part -> kind -> how often something was masked.
    """

    lengths: dict[str, array] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    ids: array = field(default_factory=lambda: array("Q"))
    lines: int = 0
    path: Path = Path()
    groups: dict[str, str] = field(default_factory=dict)
    masked: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass
class Prepared:
    """What became of a raw file.

    Attributes:
        rows: Part -> rows.
        lengths: Name of a file -> bytes of each of its lines.
        groups: Value of the task's group -> part, of a regression.
        masked: Part -> kind -> how often something was masked in it.
        notes: What people should know of it.
    """

    rows: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, array] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    masked: dict[str, Counter[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, made: Made) -> None:
        """Add what a chunk came to."""
        for name, lengths in made.lengths.items():
            self.lengths.setdefault(name, array("L")).extend(lengths)
        self.rows += made.rows
        self.groups |= made.groups
        for part, counts in made.masked.items():
            self.masked.setdefault(part, Counter()).update(counts)


class Output:
    """Files that several processes write to, each in its turn, so that rows keep their order.

    Nothing goes through another process: who is done with a chunk waits for the chunks before it to say how long they
    are, and writes its own behind them.
    """

    def __init__(self, folder: Path, heads: dict[str, bytes]) -> None:
        """Make the files, with what stands at the head of each."""
        self.paths = {name: folder / name for name in heads}
        for name, head in heads.items():
            self.paths[name].write_bytes(head)
        self.turn = multiprocessing.Condition()
        self.state = multiprocessing.Array("Q", [0, *map(len, heads.values())], lock=False)  # next chunk, then ends

    def write(self, chunk: int, contents: dict[str, bytes]) -> None:
        """Write a chunk's contents once all chunks before it have their place; each is written once, empty or not."""
        starts = {}
        with self.turn:
            self.turn.wait_for(lambda: self.state[0] == chunk)
            for place, name in enumerate(self.paths, 1):
                starts[name] = self.state[place]
                self.state[place] += len(contents.get(name, b""))
            self.state[0] += 1
            self.turn.notify_all()
        for name, content in contents.items():
            with self.paths[name].open("r+b", buffering=0) as stream:
                stream.seek(starts[name])
                stream.write(content)


class Maker(ABC):
    """Makes the rows of one raw file."""

    def __init__(self, task: Task, file: RawFile, output: Output, checker: Checker) -> None:
        """Prepare the converter."""
        self.task, self.file, self.output, self.checker = task, file, output, checker
        self.converter = converter(task, file)

    def make(self, numbered: tuple[int, Chunk]) -> Made:
        """Write the lines of every file that the rows of a chunk, with its number, go to."""
        number, chunk = numbered
        parts: dict[str, list[bytes]] = {}
        try:
            made = self._rows(chunk, parts)
        except BaseException:
            parts = {}  # and those that wait for their turn get it
            raise
        finally:
            self.output.write(number, {name: b"".join(lines) for name, lines in parts.items()})
        made.lengths = {name: array("L", map(len, lines)) for name, lines in parts.items()}
        return made

    def _rows(self, chunk: Chunk, parts: dict[str, list[bytes]]) -> Made:
        made, choice = Made(path=chunk.path), self.file.choice
        for line, found in chunk.rows(1):
            if isinstance(found, str):
                made.problems.append((line, found))
                continue
            if choice is not None and found not in choice:
                continue
            try:
                row = raw.convert(self.task, self.converter, found)
                text = self.task.clean(row["body"]) if isinstance(row["body"], str) else ""
                problems = [f"key '{path}': {what}" for path, what in self.checker.problems(row, text)]
                if not problems:
                    part = self.file.part(row)
                    made.rows[part] += 1
                    self.add(parts, made, row, text, part)
            except UserError as error:
                problems = error.problems
            made.problems += [(line, problem) for problem in problems]
        made.lines = chunk.lines
        return made

    @abstractmethod
    def add(self, parts: dict[str, list[bytes]], made: Made, row: Row, text: str, part: str) -> None:
        """Add the lines of a sound row to the files that they go to.

        Args:
            parts: File -> lines.
            made: Gets the row's id.
            row: The row.
            text: Its body, cleaned.
            part: The part that it belongs to.
        """


class SegmentsMaker(Maker):
    """Makes segments, and articles and gold rows of the part that is the test set."""

    def __init__(self, task: Task, file: RawFile, output: Output) -> None:
        """Prepare schema and gold columns."""
        super().__init__(task, file, output, RawChecker(task))
        self.writer = segments.Writer(task)
        self.order = orderer(task.output_schema)
        self.gold = GoldWriter(task) if TEST in file.shares else None

    def add(self, parts: dict[str, list[bytes]], made: Made, row: Row, text: str, part: str) -> None:
        """Add a row's segments, or its article and gold rows."""
        label = self.order(row["label"])
        name = row["id"] if row["id"] is not None or part != TEST else made_up(self.task, self.file, row)
        if name is not None:
            made.ids.append(raw.key(str(name)))
        if part == TEST and self.gold:
            known = {*self.converter.names(), "label", "messages", "conversations", "segments"}
            own = {key: value for key, value in row.items() if key not in known}
            article = orjson.dumps({**own, "id": str(name), "body": row["body"]}) + b"\n"
            parts.setdefault(self.task.spec["data"]["test"]["input"], []).append(article)
            cells = self.gold.rows(str(name), label)
            parts.setdefault(self.task.spec["data"]["test"]["gold"], []).append(cells)
        else:
            parts.setdefault(f"{part}_segments.jsonl", []).append(self.writer.line(text, label))


def converter(task: Task, file: RawFile) -> Converter | PersonaConverter:
    """Return what makes {"id", "body", "label"} of a raw file's rows."""
    match file.spec.get("format"):
        case "nemotron_personas":
            return PersonaConverter(task.dir, file.spec)
        case "real_persona_chat":
            return Converter(task, {})  # its reader makes them
    return Converter(task, file.spec)


def made_up(task: Task, file: RawFile, row: Row) -> str:
    """Make an id of a row that has none; two speakers may well have said the same."""
    own = "\0".join(task.clean(row[key] or "") for key in task.text_keys)
    if task.estimates and task.group:
        own = f"{row.get(task.group)}\0{own}"
    return f"{file.path.stem}-{raw.key(own):016x}"
