"""What a regression is scored on: gold CSV, predictions, and the texts of rows."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recipekit import gold as gold_csv
from recipekit.errors import UserError
from recipekit.joining import read_articles, several
from recipekit.regression_scores import Array, Pairs
from recipekit.runs import first_problems, relative
from recipekit.segments import read_jsonl
from recipekit.task import Task

SHOWN = 20  # problems of a file; more are counted
GREATEST = 1e9  # of a prediction; beyond it squares lose their digits


class Gold(NamedTuple):
    """The gold rows, by id, so that the order of the file does not matter.

    Attributes:
        path: The CSV file.
        ids: A row's.
        lines: Where a row stands in the file, 1-based.
        groups: Names of the groups; ids where the task has no groups.
        owner: Int of shape [rows], the place of a row's group in `groups`.
        values: Float of shape [rows, targets].
        slices: A row's value of the key that the task scores apart; empty where it has none.
    """

    path: Path
    ids: list[str]
    lines: list[int]
    groups: list[str]
    owner: Any
    values: Array
    slices: list[str]

    def pairs(self, predicted: Array) -> Pairs:
        """Put predictions, float of shape [rows, targets], beside the gold values."""
        return Pairs(self.values, predicted, self.owner, len(self.groups))


class Predictions(NamedTuple):
    """Estimates of all gold rows.

    Attributes:
        values: Float of shape [rows, targets]; a row without a valid answer has the middle of each scale.
        valid: Bool of shape [rows], whether the row has an answer.
        lines: Where a row stands in the file, 1-based.
        digests: A row's, of the pair of texts that was read; None where the file does not say.
    """

    values: Array
    valid: Any
    lines: list[int]
    digests: list[str | None]


def read_gold(task: Task, path: Path) -> Gold:
    """Read a gold CSV: columns id, the task's group and slice, and one a target.

    Raises:
        UserError: The file is missing, empty or no CSV, lacks a column, or rows lack an id, repeat one, or have values
            that are no numbers of the target's scale; all at once.
    """
    rows = gold_csv.csv_rows(path)
    at, header = next(rows, (1, []))
    wanted = [*task.row_keys, *task.targets]
    header = [name.strip() for name in header]
    if missing := [name for name in wanted if name not in header]:
        found = f"the columns are {', '.join(header)}" if header else "the file is empty"
        what = f"no column {', '.join(missing)}; {found}; write it with tools/regenerate_segments.py {task.name}"
        raise UserError(f"{relative(path)}:{at}: {what}")
    return _gold(task, path, rows, wanted, [header.index(name) for name in wanted])


def _gold(task: Task, path: Path, rows: Iterator[tuple[int, list[str]]], wanted: list[str], places: list[int]) -> Gold:
    first = len(wanted) - len(task.targets)
    problems: list[tuple[int, str]] = []  # with their lines
    seen: dict[str, int] = {}
    lines, keys, values = [], [], []
    for line, cells in rows:
        cells = [cells[place] if place < len(cells) else "" for place in places]
        own = [cell.strip() for cell in cells[:first]]
        name = own[0]
        if not all(own):
            empty = [key for key, cell in zip(wanted, own, strict=False) if not cell]
            problems += [(line, f"no {key}; add it, or remove the row") for key in empty]
        if name and seen.setdefault(name, line) != line:
            problems.append((line, f"id '{name}' stands on line {seen[name]} already; keep one of them"))
            continue
        lines.append(line)
        keys.append(own)
        try:
            values.append([*map(float, cells[first:])])
        except ValueError:
            values.append([_number(cell) for cell in cells[first:]])
    if not lines:
        problems = [(1, "a header and no rows; expected one row an id")]
    found = np.array(values).reshape(-1, len(task.targets))
    problems += _off_scale(task, lines, found)
    if problems:
        raise UserError(first_problems(path, [f"{relative(path)}:{line}: {what}" for line, what in sorted(problems)]))
    groups, slices = ([own[wanted.index(key)] for own in keys] for key in (task.group or "id", task.slice or "id"))
    return _by_group(path, seen, groups, slices if task.slice else [], found)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _off_scale(task: Task, lines: list[int], values: Array) -> Iterator[tuple[int, str]]:
    low, high = np.array([target["scale"] for target in task.targets.values()], dtype=float).T
    names = list(task.targets)
    for row, column in np.argwhere(~((low <= values) & (values <= high))).tolist():
        number = values[row, column]
        found = "no number" if math.isnan(number) else f"{number:g}"
        expected = f"a number from {low[column]:g} to {high[column]:g}, the scale in task.yml"
        what = f"{names[column]}: found {found}, expected {expected}; correct it, or remove the row"
        yield lines[row], what


def _by_group(path: Path, lines: dict[str, int], groups: list[str], slices: list[str], values: Array) -> Gold:
    ids = list(lines)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    owners = [groups[i] for i in order]
    names = list(dict.fromkeys(owners))
    place = {name: i for i, name in enumerate(names)}
    owner = np.array([place[name] for name in owners])
    apart = [slices[i] for i in order] if slices else []
    return Gold(path, [ids[i] for i in order], [lines[ids[i]] for i in order], names, owner, values[order], apart)


def read_predictions(task: Task, path: Path, gold: Gold) -> Predictions:
    """Read predictions, or a baseline's: {"id", "output": {target: number}} a line, "output" null: no valid answer.

    Raises:
        UserError: The file is missing or empty, rows of it are broken, repeated or not in the gold file, or gold rows
            have none; all at once.
    """
    place = {name: i for i, name in enumerate(gold.ids)}
    values = np.tile([np.mean(target["scale"]) for target in task.targets.values()], (len(place), 1))
    valid = np.zeros(len(place), dtype=bool)
    seen = [0] * len(place)  # lines
    digests: list[str | None] = [None] * len(place)
    unknown: dict[str, int] = {}
    problems: list[str] = []
    for line, name, numbers, digest in _rows(task, path, problems):
        at = place.get(name)
        if at is None:
            unknown.setdefault(name, line)
        elif seen[at]:
            problems.append(f"{relative(path)}:{line}: id '{name}' stands on line {seen[at]} already; keep one of them")
        else:
            seen[at], digests[at] = line, digest
            if numbers is not None:
                values[at], valid[at] = numbers, True
    if unknown:
        first = next(iter(unknown.values()))
        remedy = "use the gold file of the same rows, or take these out of the predictions"
        problems.append(f"{relative(path)}:{first}: {several(list(unknown))} no row in {relative(gold.path)}; {remedy}")
    if not problems and (without := [i for i, line in enumerate(seen) if not line]):
        first = min(gold.lines[i] for i in without)
        names = [gold.ids[i] for i in sorted(without, key=lambda i: gold.lines[i])]
        maker = "baselines.py" if path.parent == task.baselines else "predict.py"
        remedy = f"predict all rows (uv run tools/{maker} {task.name}), or take these out of the gold file"
        problems.append(f"{relative(gold.path)}:{first}: {several(names)} no prediction in {relative(path)}; {remedy}")
    if problems:
        raise UserError(problems)
    return Predictions(values, valid, seen, digests)


def _rows(task: Task, path: Path, problems: list[str]) -> Iterator[tuple[int, str, list[float] | None, str | None]]:
    """Yield line, id, numbers and digest of rows that have the right form; what is wrong goes to `problems`."""
    targets = list(task.targets)
    try:
        for line, row in read_jsonl(path):
            name, output, digest = row.get("id"), row.get("output", ...), row.get("digest")
            if not isinstance(name, str) or output is ...:
                what = "expected the keys 'id' (text) and 'output'; write them with predict.py"
                problems.append(f"{relative(path)}:{line}: {what}")
            elif output is None:
                yield line, name, None, digest
            elif wrong := _wrong(output, targets):
                problems += [f"{relative(path)}:{line}: output: {what}" for what in wrong]
                yield line, name, None, digest
            else:
                yield line, name, [output[target] for target in targets], digest
    except UserError as error:
        problems += error.problems


def _wrong(output: Any, targets: Iterable[str]) -> list[str]:
    if not isinstance(output, dict):
        return [f"expected an object of numbers, or null for no answer, found {str(output)[:40]!r}"]
    expected = "expected a finite number; predict the row again, or set its output to null"
    return [
        f"{name}: {f'found {str(output[name])[:40]!r}' if name in output else 'missing'}, {expected}"
        for name in targets
        if type(output.get(name)) not in (int, float) or not abs(output[name]) <= GREATEST
    ]


def read(task: Task, path: Path, files: Iterable[Path]) -> tuple[Gold, list[Predictions]]:
    """Read a gold CSV and predictions files for it.

    Raises:
        UserError: As `read_gold` and `read_predictions`; all files' problems at once.
    """
    problems: list[str] = []
    found, gold = [], None
    try:
        gold = read_gold(task, path)
    except UserError as error:
        problems += error.problems
    for file in files:
        own: list[str] = []
        try:
            if gold:
                found.append(read_predictions(task, file, gold))
            else:  # at least their form
                deque(_rows(task, file, own), maxlen=0)
        except UserError as error:
            own = error.problems
        problems += first_problems(file, own)
    if problems or not gold:
        raise UserError(problems)
    return gold, found


def read_texts(path: Path, wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the rows that were predicted, as predict.py reads them; keeps the wanted ids.

    Raises:
        UserError: The file is missing or has broken rows; all at once.
    """
    wanted = set(wanted)
    return {name: row for name, row in read_articles(path) if name in wanted}
