"""The raw files of a task: what becomes of the rows of each, whole or split."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.formats import Converter, Row
from recipekit.personas import Choice
from recipekit.raw import chunks, convert, key
from recipekit.runs import relative
from recipekit.task import Task

TEST = "test"  # the part of a split that becomes the test set
FOLDERS = {"real_persona_chat": "interlocutors.json", "nemotron_personas": "**/*.jsonl"}  # formats, and what is inside


@dataclass(frozen=True)
class RawFile:
    """A raw file and what becomes of its rows.

    Attributes:
        path: Where it lies.
        shares: Part (a data set of task.yml, or "test") -> its share of the rows; one part gets all.
        spec: How its rows are read (data.rows).
        by: Key whose value keeps rows together in one part; where it is empty, or None, the body does.
        seed: Of the split.
        drawn: Value of `by` -> part, where they were drawn before.
        choice: The rows that are taken; None: all.
    """

    path: Path
    shares: dict[str, float]
    spec: dict[str, Any]
    by: str | None = None
    seed: int = 0
    drawn: dict[str, str] | None = None
    choice: Choice | None = None

    def part(self, row: Row) -> str:
        """Name the part that a row belongs to: drawn by the digest of what keeps rows together, so for good.

        Raises:
            UserError: The row lacks that key.
        """
        if len(self.shares) == 1:
            return next(iter(self.shares))
        if self.drawn is not None:
            return self.drawn[row[str(self.by)]]
        if self.by and self.by not in row:
            raise UserError(f"key '{self.by}': not there, and data.split.by in task.yml names it; mend either")
        together = row[self.by] if self.by else None
        together = row["body"] if together in (None, "") else together
        place = key(f"{self.seed}\0{together}") / 2**64 * sum(self.shares.values())
        for name, share in self.shares.items():
            place -= share
            if place < 0:
                return name
        return name


def find(task: Task, source: Path, name: str) -> Path:
    """Find a raw file by data set or file name, anywhere below the source folder.

    Raises:
        UserError: There is none, or there are several.
    """
    wanted = [name] if Path(name).suffix else [f"{name}.jsonl", f"{name}_segments.jsonl", f"{name}.csv", f"{name}.json"]
    for candidate in wanted:
        found = sorted(source.rglob(candidate))
        if len(found) > 1:
            places = ", ".join(map(relative, found))
            raise UserError(f"{relative(source)}: {len(found)} files {candidate}: {places}; leave one of them there")
        if found:
            return found[0]
    named = f"{relative(source)}: no file {' or '.join(wanted)}, which task.yml names"
    raise UserError(f"{named}; {remedy(task, source)}, or mend task.yml")


def remedy(task: Task, source: Path) -> str:
    """Say how raw files come into their folder."""
    if source == task.captioned_dir:
        return f"run uv run tools/caption.py {task.name}"
    put = "put the task's raw files there"
    return f"run uv run tools/download.py {task.name}, or {put}" if "sources" in task.spec["data"] else put


def find_folder(source: Path, name: str, inside: str, task: Task) -> Path:
    """Find a folder of raw files by its name, the source folder itself or anywhere below it.

    Args:
        source: The source folder.
        name: The folder's name.
        inside: Glob of what the folder has to hold.
        task: Whose it is, for the message.

    Raises:
        UserError: There is none, or there are several.
    """
    named = [path for path in (source, *sorted(source.rglob(name))) if path.name == name and path.is_dir()]
    found = [path for path in named if next(path.glob(inside), None)]
    found = [path for path in found if not any(path.is_relative_to(other) and path != other for other in found)]
    if len(found) > 1:
        places = ", ".join(map(relative, found))
        raise UserError(f"{relative(source)}: {len(found)} folders {name}: {places}; leave one of them there")
    if not found:
        raise UserError(
            f"{relative(source)}: no folder {name} with {inside} in it, which task.yml names; "
            f"run uv run tools/download.py {task.name}, put the folder there, or mend task.yml"
        )
    return found[0]


def splits(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the files of task.yml that are split: data.split is one or a list."""
    given = data.get("split", [])
    return given if isinstance(given, list) else [given]


def has_test(data: dict[str, Any]) -> bool:
    """Tell whether the test set is made of labelled rows: of a file of its own, or of a part of one that is split."""
    return "file" in data["test"] or any(TEST in split["shares"] for split in splits(data))


def files(task: Task, source: Path) -> tuple[list[RawFile], list[str]]:
    """Find every raw file that training rows are made of; the second list says which are missing."""
    data = task.spec["data"]
    drawn = {name for split in splits(data) for name in split["shares"]}
    wanted: list[tuple[str, dict[str, float], dict[str, Any], str | None, int]] = []
    for split in splits(data):
        wanted.append((split["file"], dict(split["shares"]), split.get("rows", {}), split.get("by"), split["seed"]))
    for name, own in data["train"].items():
        if "base" not in own and name not in drawn:
            wanted.append((own.get("file", name), {name: 1.0}, own.get("rows", {}), None, 0))
    if "file" in (own := data["test"]):
        wanted.append((own["file"], {TEST: 1.0}, own.get("rows", {}), None, 0))
    found, problems = [], []
    for file, shares, own_rows, by, seed in wanted:
        rows = {**data.get("rows", {}), **own_rows}
        try:
            inside = None if Path(file).suffix else FOLDERS.get(rows.get("format", ""))
            path = find_folder(source, file, inside, task) if inside else find(task, source, file)
        except UserError as error:
            problems += error.problems
        else:
            found.append(RawFile(path, shares, rows, by, seed))
    return found, problems


def read(task: Task, source: Path, name: str) -> Iterator[tuple[int, Row]]:
    """Read the rows of one data set of task.yml; rows that are wrong are left out, for validate.py names them.

    Yields:
        1-based line of the raw file, and the row: "id", "body", "label" and whatever else it has.

    Raises:
        UserError: The file is missing or is no such file.
    """
    found, problems = files(task, source)
    file = next((file for file in found if name in file.shares), None)
    if file is None:
        raise UserError(problems or f"data.train in task.yml: {name} is made of other data sets, or is not there")
    converter = Converter(task, file.spec)
    line = 1
    for chunk in chunks(file.path):
        for at, row in chunk.rows(line):
            if isinstance(row, dict):
                try:
                    row = convert(task, converter, row)
                except UserError:
                    continue
                if file.part(row) == name:
                    yield at, row
        line += chunk.lines
