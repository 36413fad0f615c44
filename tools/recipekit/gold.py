"""The gold CSV: one row an article, one column a field, several values in a cell."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task


class GoldRow(NamedTuple):
    """What is right for one article.

    Attributes:
        line: Where the row begins in the file, 1-based.
        values: The values of every column of task.yml; an empty cell has none.
    """

    line: int
    values: dict[str, list[str]]


def read_gold(task: Task, path: Path) -> dict[str, GoldRow]:
    """Read a gold CSV, UTF-8 with or without BOM; a row may end before the header does (`LVP0359,,,,,,`).

    Columns that task.yml does not name are left aside, and so are empty lines.

    Returns:
        The rows by article id, in the order of the file.

    Raises:
        UserError: The file is missing, empty or no CSV, lacks a column, or has rows that are too long, without an id
            or with an id that stood before; all at once.
    """
    lines = _read_csv(path)
    header = [name.strip() for name in lines[0][1]]
    problems = [f"{relative(path)}:{lines[0][0]}: {what}" for what in _header_problems(task, header)]
    if problems:
        raise UserError(problems)
    place = header.index(task.spec["gold"]["id"])
    rows: dict[str, GoldRow] = {}
    for line, cells in lines[1:]:
        name = cells[place].strip() if place < len(cells) else ""
        at = f"{relative(path)}:{line}:"
        if len(cells) > len(header):
            problems.append(f"{at} {len(cells)} cells, the header has {len(header)}; quote a cell that holds a comma")
        elif not name:
            problems.append(f"{at} no {header[place]}; every row starts with an article's id, add it or remove the row")
        elif name in rows:
            problems.append(f"{at} id '{name}' stands on line {rows[name].line} already; keep one of them")
        else:
            rows[name] = GoldRow(line, _values(task, dict(zip(header, cells, strict=False))))
    if problems or not rows:
        raise UserError(problems or f"{relative(path)}:1: a header and no rows; expected one row an article")
    return rows


def _read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Return every row that is not empty, with the number of the line on which it begins."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{relative(path)}: {error.strerror}; make it with regenerate_segments.py, or check the name"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{relative(path)}:{line}: not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)") from None
    rows = []
    line = 1
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{relative(path)}:{line}: not valid CSV: {error}; mend the quotes of the row") from None
    if not rows:
        raise UserError(f"{relative(path)}: the file is empty; expected a header and one row an article")
    return rows


def _header_problems(task: Task, header: list[str]) -> list[str]:
    wanted = [task.spec["gold"]["id"], *task.spec["gold"]["columns"]]
    missing = [
        f"column '{name}' is missing; add it, or drop it from gold in task.yml" for name in wanted if name not in header
    ]
    twice = [f"column '{name}' stands twice; keep one of them" for name in wanted if header.count(name) > 1]
    return missing + twice


def _values(task: Task, cells: dict[str, str]) -> dict[str, list[str]]:
    separator = task.spec["gold"]["separator"]
    parts = {name: cells.get(name, "").split(separator) for name in task.spec["gold"]["columns"]}
    return {name: [part.strip() for part in found if part.strip()] for name, found in parts.items()}
