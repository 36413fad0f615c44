"""Rows of a regression as training will see them: a text, labels that the heads know, a length; and its test set."""

import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recipekit import inputs
from recipekit.errors import UserError
from recipekit.regression import Head, RegressionConfig
from recipekit.regression_rows import gold_header
from recipekit.runs import relative
from recipekit.segmentcheck import REDO, Problem
from recipekit.segments import count_tokens
from recipekit.task import Task
from recipekit.traps import Config

SHOWN = 20  # problems of the gold file


class RegressionRowChecker:
    """Checks rows of data/train of a regression task."""

    def __init__(self, task: Task, heads: Mapping[str, Head]) -> None:
        """Take the heads that the rows are for."""
        self.heads = heads
        self.texts = ("id", *task.text_keys)
        self.redo = REDO.format(task.name)

    def problems(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Tell what is wrong with a row; what is of kind shape keeps it from being measured."""
        labels = row.get("labels")
        for key in self.texts:
            if not isinstance(row.get(key), str) or not row[key].strip():
                kind = "row" if key == "id" or isinstance(row.get(key), str) else "shape"
                yield Problem(kind, key, f"expected a text, found {_short(row.get(key))}", self.redo)
        if not isinstance(labels, dict):
            yield Problem("row", "labels", f"expected an object, found {_short(labels)}", self.redo)
            return
        if labels.keys() != self.heads.keys():
            found, expected = (", ".join(names) or "none" for names in (labels, self.heads))
            remedy = "the heads of a phase are what its rows have labels for; mend regression.heads of its YAML"
            yield Problem("labels", "labels", f"found {found}, expected {expected}", remedy)
        for name in labels.keys() & self.heads.keys():
            yield from self._value(name, labels[name], self.heads[name])

    def _value(self, name: str, value: Any, head: Head) -> Iterator[Problem]:
        if head.classes:
            if value not in head.classes:
                remedy = f"name it under regression.heads.{name}.classes of the phase's YAML, or mend the raw row"
                yield Problem("labels", f"labels.{name}", f"found {_short(value)}, which is no class", remedy)
            return
        low, high = head.scale or (-math.inf, math.inf)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or not low <= value <= high:
            expected = f"expected a number from {low:g} to {high:g}"
            remedy = "mend the raw row, or the head's scale"
            yield Problem("labels", f"labels.{name}", f"{expected}, found {_short(value)}", remedy)


class LengthChecker:
    """Measures rows in tokens, with the special tokens that the model reads around a text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def problems(self, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, int, list[Problem]]]:
        """Yield line, length in tokens and problems, of which there are none, of each row of a batch."""
        texts = [(row["body"], row["pair"]) if "pair" in row else row["body"] for _, row in rows]
        lengths = count_tokens(self.tokenizer, texts, special=True) if texts else []
        for (line, _), length in zip(rows, lengths, strict=True):
            yield line, length, []


def read_heads(config: Config) -> dict[str, Head] | None:
    """Read the heads of a phase's config; None where it trains none.

    Raises:
        UserError: They are no heads, which Axolotl's schema says as well.
    """
    if "regression" not in config.values:
        return None
    try:
        return RegressionConfig.model_validate(config.values["regression"]).heads
    except ValidationError as error:
        first = error.errors()[0]
        place = config.at(("regression", *first["loc"]))
        raise UserError(f"{place}: {first['msg']}; rows are not checked before that is mended") from None


def check_test_set(task: Task) -> tuple[int, int]:
    """Check a regression's articles and gold values before there are predictions.

    Returns:
        Rows, and different values of the task's group (0 where it has none).

    Raises:
        UserError: Everything that is wrong in either file, or ids that stand in one of them only.
    """
    gold_path, input_path = task.test_path("gold"), task.test_path("input")
    remedy = f"mend the raw data, then {REDO.format(task.name)}"
    gold: dict[str, tuple[int, str]] = {}
    problems: list[str] = []
    groups: dict[str, str] = {}
    try:
        for line, row in _gold_rows(task, gold_path):
            problems += [f"{relative(gold_path)}:{line}: {problem}; {remedy}" for problem in _wrong(task, row)]
            if row["id"] in gold:
                problems.append(f"{relative(gold_path)}:{line}: id '{row['id']}' stands there twice; keep one of them")
            gold[row["id"]] = (line, row.get(task.group or "", ""))
    except UserError as error:
        problems += error.problems
    seen: dict[str, str] = {}
    try:
        for place, found in inputs.scan(input_path, task.text_keys):
            if isinstance(found, inputs.Problem):
                problems.append(f"{place}: {found.text}")
                continue
            if seen.setdefault(found["id"], place) != place:
                problems.append(f"{place}: id '{found['id']}' stands at {seen[found['id']]} already; keep one of them")
            if task.group:
                groups[found["id"]] = str(found.get(task.group, ""))
    except UserError as error:
        problems += error.problems
    if not problems:
        problems += _unpaired(task, gold, seen, groups)
    if problems:
        more = [f"{relative(gold_path)}: and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise UserError(problems[:SHOWN] + more)
    return len(gold), len(set(groups.values()))


def _unpaired(
    task: Task, gold: Mapping[str, tuple[int, str]], seen: Mapping[str, str], groups: Mapping[str, str]
) -> Iterator[str]:
    paths = {which: relative(task.test_path(which)) for which in ("gold", "input")}
    redo = REDO.format(task.name)
    for name in [name for name in gold if name not in seen][:3]:
        yield f"{paths['gold']}:{gold[name][0]}: id '{name}' has no row in {paths['input']}; {redo}"
    for name in [name for name in seen if name not in gold][:3]:
        yield f"{seen[name]}: id '{name}' has no row in {paths['gold']}; {redo}"
    for name, group in groups.items():
        if name in gold and gold[name][1] != group:
            found = f"{task.group} '{group}', but '{gold[name][1]}' in {paths['gold']}:{gold[name][0]}"
            yield f"{seen[name]}: {found}; make them the same"


def _gold_rows(task: Task, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line and row of a gold file with the right columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            missing = [name for name in gold_header(task) if name not in (reader.fieldnames or [])]
            if missing:
                what = f"column {' and '.join(missing)} is missing; expected {', '.join(gold_header(task))}"
                raise UserError(f"{relative(path)}:1: {what}")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{relative(path)}:{reader.line_num}: not as many cells as columns; mend the row")
                yield reader.line_num, row
    except FileNotFoundError:
        raise UserError(f"{relative(path)}: no such file; {REDO.format(task.name)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{relative(path)}: not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{relative(path)}: cannot be read, {error}; mend it, or {REDO.format(task.name)}") from None


def _wrong(task: Task, row: Mapping[str, str]) -> Iterator[str]:
    for name, target in task.targets.items():
        low, high = target["scale"]
        try:
            value = float(row[name])
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            yield f"{name}: expected a number from {low:g} to {high:g}, found {row[name][:40]!r}"
    if task.group and not row[task.group]:
        yield f"{task.group}: expected a value, found none"


def _short(value: Any) -> str:
    return repr(value)[:40]
