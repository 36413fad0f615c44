"""The gold CSV: one row an article, or one row an entity of it, one column a field, several values in a cell."""

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task

Entity = dict[str, str]  # column -> value; only columns that have one


class GoldRow(NamedTuple):
    """What is right for one article.

    Attributes:
        id: The article's.
        line: Where the row begins in the file, 1-based.
        entities: Entity's name -> the objects that the article has, those without any value left out.
        sets: Column without an entity -> its values.
    """

    id: str
    line: int
    entities: dict[str, list[Entity]]
    sets: dict[str, list[str]]

    def is_negative(self) -> bool:
        """Tell whether there is nothing to find."""
        return not any(self.sets.values()) and not any(self.entities.values())


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file, UTF-8 with or without BOM.

    Yields:
        The number of the line on which a row begins and its cells; empty rows are left out.

    Raises:
        UserError: The file is missing, cannot be read, or is no CSV in UTF-8.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if cells and (cells[0].strip() or any(cell.strip() for cell in cells)):
                    yield line, cells
                line = reader.line_num + 1
    except OSError as error:
        remedy = "make it with regenerate_segments.py, or check the name"
        raise UserError(f"{relative(path)}: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError:
        at = _undecodable_line(path)
        raise UserError(f"{relative(path)}:{at}: not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)") from None
    except csv.Error as error:
        remedy = "mend the quotes of the row"
        raise UserError(f"{relative(path)}:{line}: not valid CSV: {error}; {remedy}") from None


@dataclass
class GoldFile:
    """A gold CSV, read a row at a time: UTF-8 with or without BOM.

    A row may end before the header does (`LVP0359,,,,,,`), columns that task.yml does not name are left aside, and so
    are empty lines. The n-th value of an entity's cell belongs to the n-th entity; a cell with fewer values than there
    are entities gives them to the first ones (`padded` tells how many such cells there were, and the first).

    Attributes:
        rows: Articles read so far.
        padded: Cells with fewer values than entities, so far.
    """

    task: Task
    path: Path
    rows: int = 0
    padded: int = 0
    first_padded: str = ""
    problems: list[tuple[int, str]] = field(default_factory=list)  # with their lines

    def __iter__(self) -> Iterator[GoldRow]:
        """Yield the articles in the order of the file.

        Raises:
            UserError: The file is missing, empty or no CSV, lacks a column, or has rows that are too long, without an
                id or with an id that stood before; all at once, after the good rows were yielded.
        """
        lines = csv_rows(self.path)
        at, header = next(lines, (1, []))
        if not header:
            raise UserError(f"{relative(self.path)}: the file is empty; expected a header and one row an article")
        header = [name.strip() for name in header]
        if problems := _header_problems(self.task, header):
            raise UserError([f"{relative(self.path)}:{at}: {what}" for what in problems])
        hashes = array("q")  # eight bytes an article, of which there may be millions
        for row in self._articles(lines, header):
            hashes.append(hash(row.id))
            yield row
        self.rows = len(hashes)
        if (np.diff(np.sort(hashes)) == 0).any():
            self.problems += self._repeated(header)
        if not self.rows and not self.problems:
            self.problems = [(1, "a header and no rows; expected one row an article")]
        if self.problems:
            raise UserError([f"{relative(self.path)}:{line}: {what}" for line, what in sorted(self.problems)])

    def _articles(self, lines: Iterator[tuple[int, list[str]]], header: list[str]) -> Iterator[GoldRow]:
        gold = self.task.spec["gold"]
        place = header.index(gold["id"])
        last: GoldRow | None = None
        for line, cells in lines:
            name = cells[place].strip() if place < len(cells) else ""
            if len(cells) > len(header):
                what = f"{len(cells)} cells, the header has {len(header)}; quote a cell that holds a comma"
                self.problems.append((line, what))
            elif not name:
                remedy = "every row starts with an article's id, add it or remove the row"
                self.problems.append((line, f"no {header[place]}; {remedy}"))
            elif last and last.id == name and self._single():
                _extend(last, self._row(name, line, cells, header))
            else:
                if last:
                    yield last
                last = self._row(name, line, cells, header)
        if last:
            yield last

    def _row(self, name: str, line: int, cells: list[str], header: list[str]) -> GoldRow:
        if sum(map(bool, cells)) == 1:
            return GoldRow(name, line, {}, {})
        gold = self.task.spec["gold"]
        found = dict(zip(header, cells, strict=False))
        parts: dict[str, dict[str, list[str]]] = {entity: {} for entity in gold.get("entities", {})}
        sets = {}
        for column, spec in gold["columns"].items():
            cell = found.get(column, "")
            entity = spec.get("entity")
            whole = entity and entity == self._single()
            values = [value.strip() for value in ([cell] if whole else cell.split(gold["separator"]))]
            if entity:
                parts[entity][column] = values
            elif any(values):
                sets[column] = [value for value in values if value]
        entities = {entity: self._entities(columns, line) for entity, columns in parts.items()}
        return GoldRow(name, line, entities, sets)

    def _entities(self, columns: dict[str, list[str]], line: int) -> list[Entity]:
        number = max(map(len, columns.values()))
        for column, values in columns.items():
            if len(values) < number and any(values):
                self.padded += 1
                found = f"{column} has {len(values)} of {number}"
                self.first_padded = self.first_padded or f"{relative(self.path)}:{line}: {found}"
        entities: list[Entity] = [{} for _ in range(number)]
        for column, values in columns.items():
            for entity, value in zip(entities, values, strict=False):
                if value:
                    entity[column] = value
        return [entity for entity in entities if entity]

    def _repeated(self, header: list[str]) -> list[tuple[int, str]]:
        """Read the file again to name the ids that it has more than once."""
        remedy = "put the rows of an article one after another" if self._single() else "keep one of them"
        again = GoldFile(self.task, self.path)
        lines = csv_rows(again.path)
        next(lines)
        seen: dict[str, int] = {}
        return [
            (row.line, f"id '{row.id}' stands on line {seen[row.id]} already; {remedy}")
            for row in again._articles(lines, header)
            if seen.setdefault(row.id, row.line) != row.line
        ]

    def _single(self) -> str | None:
        """Name the entity that has a row of its own; None where an article has."""
        name = self.task.spec["gold"].get("one_row_per", "article")
        return None if name == "article" else name


def _extend(row: GoldRow, more: GoldRow) -> None:
    """Add another row of the same article; values of a set that stand in every row count once."""
    for name, entities in more.entities.items():
        row.entities.setdefault(name, []).extend(entities)
    for column, values in more.sets.items():
        known = row.sets.setdefault(column, [])
        known += [value for value in values if value not in known]


def _header_problems(task: Task, header: list[str]) -> list[str]:
    wanted = [task.spec["gold"]["id"], *task.spec["gold"]["columns"]]
    missing = [
        f"column '{name}' is missing; add it, or drop it from gold in task.yml" for name in wanted if name not in header
    ]
    twice = [f"column '{name}' stands twice; keep one of them" for name in wanted if header.count(name) > 1]
    return missing + twice


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as stream:
        for line, content in enumerate(stream, 1):
            try:
                content.decode("utf-8")
            except UnicodeDecodeError:
                return line
    return 1
