"""Rows of a regression task: a text and the numbers, or classes, that are estimated from it."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from recipekit import digits, inputs, raw, segments
from recipekit.errors import UserError
from recipekit.formats import Row
from recipekit.gold_rows import written
from recipekit.making import Made, Maker, Output, Prepared, made_up
from recipekit.personas import KINDS, MARK
from recipekit.rawfiles import TEST, RawFile, splits
from recipekit.runs import relative, write_jsonl, write_text
from recipekit.task import Task

MEND = "mend it or remove the row"


class RegressionChecker:
    """Checks raw rows of one regression or ranking task.

    Labels that are targets are numbers within their scale, and come all or none: a data set of another phase may have
    labels of its own, finite numbers or names of classes.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.targets = task, task.targets
        self.keys = task.row_keys[1:]

    def problems(self, row: Mapping[str, Any], text: str | None = None) -> list[tuple[str, str]]:
        """Tell what is wrong with a row, and where.

        Args:
            row: "body", "pair" of rankings, "label" and the keys of group and slice, converted.
            text: The body, cleaned.
        """
        body, label = row.get("body"), row.get("label")
        found: list[tuple[str, str]] = []
        if not isinstance(body, str) or not (body.strip() if text is None else text):
            found.append(("body", f"expected a text, found {_short(body)}; add it or remove the row"))
        pair = row.get("pair")
        if self.task.is_paired and not (isinstance(pair, str) and self.task.clean(pair)):
            found.append(("pair", f"expected a text, found {_short(pair)}; add it or remove the row"))
        if not isinstance(label, dict) or not label:
            return [*found, ("label", f"expected keys and values, found {_short(label)}; add it or remove the row")]
        if not self.targets.keys().isdisjoint(label):
            found += [
                (f"label.{name}", "not there, and other targets are; add it or remove the row")
                for name in self.targets
                if name not in label
            ]
            found += [
                (key, "not there, and regression in task.yml names it; add it")
                for key in self.keys
                if row.get(key) in (None, "")
            ]
        for name, value in label.items():
            if wrong := self._value(value, self.targets.get(name)):
                found.append((f"label.{name}", f"{wrong}; {MEND}"))
        return found

    def _value(self, value: Any, target: dict[str, Any] | None) -> str | None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if target:
            low, high = target["scale"]
            if not number or not low <= value <= high:
                return f"expected a number from {low:g} to {high:g}, found {_short(value)}"
        elif not (math.isfinite(value) if number else isinstance(value, str) and value.strip()):
            return f"expected a finite number, or a class's name, found {_short(value)}"
        return None


class RegressionMaker(Maker):
    """Makes rows of {"id", group, slice, "body", "pair", "labels"} and the test set's two files.

    Where there is a prompt, segments too.
    """

    def __init__(self, task: Task, file: RawFile, output: Output) -> None:
        """Prepare the files of the test set and the segments."""
        super().__init__(task, file, output, RegressionChecker(task))
        self.writer = segments.Writer(task) if "prompt" in task.spec else None
        self.test = task.spec["data"]["test"]

    def add(self, parts: dict[str, list[bytes]], made: Made, row: Row, text: str, part: str) -> None:
        """Add a row, or an article and its gold values.

        Raises:
            UserError: A row of the test set has other labels than the targets.
        """
        label = row["label"]
        name = str(row["id"]) if row["id"] is not None else made_up(self.task, self.file, row)
        made.ids.append(raw.key(name))
        own: Row = {"id": name}
        own |= {key: str(row[key]) for key in self.task.row_keys[1:] if row.get(key) not in (None, "")}
        if self.task.group in own:
            made.groups[own[self.task.group]] = part
        texts = {"body": text} | ({"pair": self.task.clean(row["pair"])} if self.task.is_paired else {})
        if "masked" in row:
            made.masked.setdefault(part, type(row["masked"])()).update(row["masked"])
        if part == TEST:
            if label.keys() != self.task.targets.keys():
                raise UserError(
                    f"key 'label': expected {', '.join(self.task.targets)}, found {', '.join(label)}; {MEND}"
                )
            _append(parts, self.test["input"], {**own, **texts})
            cells = [str(label[target]) for target in self.task.targets]
            parts.setdefault(self.test["gold"], []).append(written([[*map(str, own.values()), *cells]]))
            return
        _append(parts, f"{part}.jsonl", {**own, **texts, "labels": label})
        if self.writer:
            parts.setdefault(f"{part}_segments.jsonl", []).append(
                self.writer.line(text, digits.draw(self.task.targets, label, text))
            )


def clean_articles(task: Task, path: Path) -> None:
    """Rewrite sound articles the way that training rows are, for a model with heads reads bodies as they stand."""
    rows = [row for _, row in inputs.scan(path, task.text_keys) if isinstance(row, dict)]
    write_jsonl(path, [row | {key: task.clean(row[key]) for key in task.text_keys} for row in rows])


def heads(task: Task, file: RawFile) -> dict[str, bytes]:
    """Name the files that a raw file's rows go to, each with what it opens with."""
    kinds = [".jsonl", *(["_segments.jsonl"] if "prompt" in task.spec else [])]
    found = {f"{part}{kind}": b"" for part in file.shares if part != TEST for kind in kinds}
    if TEST in file.shares:
        test = task.spec["data"]["test"]
        found |= {test["input"]: b"", test["gold"]: written([gold_header(task)])}
    return found


def gold_header(task: Task) -> list[str]:
    """Name the columns of a regression's gold file."""
    return [*task.row_keys, *task.targets]


def occupations(task: Task) -> list[Path]:
    """Name the files of groups of occupations that a task's rows are made with."""
    data = task.spec["data"]
    owners = [data, *splits(data), *data["train"].values()]
    names = {own["rows"]["occupations"]: None for own in owners if "occupations" in own.get("rows", {})}
    return [task.dir / name for name in names]


def split_path(task: Task) -> Path:
    """Where it stands which part each value of a regression's group was drawn into."""
    return task.root / "data" / "train" / f"{task.spec['name']}_split.json"


def products(task: Task) -> list[Path]:
    """Name every file that regenerate makes of a regression's training data."""
    data = task.spec["data"]
    paths = [task.rows_path(name) for name in task.raw_sets]
    if "prompt" in task.spec:
        paths += [task.segments_path(name) for name in task.raw_sets]
    for owner in (*splits(data), *({**own, "shares": [name]} for name, own in data["train"].items())):
        if {**data.get("rows", {}), **owner.get("rows", {})}.get("format") == "nemotron_personas":
            paths += [task.rows_path(name).with_suffix(".manifest.json") for name in owner["shares"]]
    if task.group and splits(data):
        paths.append(split_path(task))
    return paths


def write_split(task: Task, groups: Mapping[str, str], folder: Path) -> list[str]:
    """Write which part each value of the group was drawn into; returns how many were, for people to read."""
    if not task.group or not splits(task.spec["data"]):
        return []
    write_text(folder / split_path(task).name, json.dumps(groups, ensure_ascii=False, indent=1) + "\n")
    drawn = Counter(groups.values())
    return [f"{task.group}s: " + ", ".join(f"{part} {count:,}" for part, count in drawn.items())] if groups else []


def write_manifests(task: Task, file: RawFile, prepared: Prepared, folder: Path) -> list[str]:
    """Write what was masked in each data set of a file; returns the same for people to read."""
    notes = []
    for part, masked in prepared.masked.items():
        counts = {kind: masked[kind] for kind in KINDS}
        manifest = {"set": part, "file": relative(file.path), "rows": prepared.rows[part], "read": file.spec}
        manifest |= {"seed": file.seed, "mark": MARK, "masked": counts}
        text = json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"
        write_text(folder / task.rows_path(part).with_suffix(".manifest.json").name, text)
        notes.append(f"{part}: masked " + ", ".join(f"{kind} {count:,}" for kind, count in counts.items()))
    return notes


def _append(parts: dict[str, list[bytes]], name: str, row: Row) -> None:
    parts.setdefault(name, []).append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _short(value: Any) -> str:
    return repr(value)[:40]
