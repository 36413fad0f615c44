"""What a ranking is scored on: gold, predictions that are of the same pairs of texts, and these texts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from recipekit import regression_data
from recipekit.errors import UserError
from recipekit.inputs import pair_digest
from recipekit.joining import read_articles, several
from recipekit.ranking_scores import Lists
from recipekit.regression_data import Gold, Predictions
from recipekit.regression_scores import OVERALL, Pairs
from recipekit.runs import first_problems, relative
from recipekit.task import Task

START = 20  # characters of a text in a message


class Texts(NamedTuple):
    """What a row was predicted from: an odai, say, and a response to it."""

    body: str
    pair: str

    def start(self) -> str:
        """Quote where both begin."""
        return " and ".join(repr(text[:START] + "…" * (len(text) > START)) for text in self)


class Scored(NamedTuple):
    """Gold, predictions of it, and their texts.

    Attributes:
        gold: The gold rows.
        predictions: Of each file.
        texts: Id -> texts of the gold rows; empty where they are not at hand.
        unchecked: Of each file, how many predictions do not say which pair they are of.
    """

    gold: Gold
    predictions: list[Predictions]
    texts: dict[str, Texts]
    unchecked: list[int]


def read(task: Task, path: Path, articles: Path | None, files: Sequence[Path]) -> Scored:
    """Read a gold CSV, predictions files for it, and the pairs of texts that were to be predicted.

    Raises:
        UserError: As `regression_data.read`; pairs are missing; or a prediction's digest is that of another pair.
    """
    gold, predictions = regression_data.read(task, path, files)
    if OVERALL in gold.slices:
        line = gold.lines[gold.slices.index(OVERALL)]
        raise UserError(f"{relative(path)}:{line}: {task.slice}: found '{OVERALL}', the name of all rows; rename it")
    if articles is None:
        return Scored(gold, predictions, {}, [len(gold.ids)] * len(files))
    texts = _read_texts(gold, articles)
    expected = [pair_digest(*texts[name]) for name in gold.ids]
    problems: list[str] = []
    for file, found in zip(files, predictions, strict=True):
        maker = "baselines.py" if file.parent == task.baselines else "predict.py"
        remedy = f"predict again (uv run tools/{maker} {task.name})"
        wrong = [
            f"{relative(file)}:{line}: id '{name}' is of another pair than in {relative(articles)}, {what}; {remedy}"
            for line, name, what in sorted(_others(gold, found, expected, texts))
        ]
        problems += first_problems(file, wrong)
    if problems:
        raise UserError(problems)
    return Scored(gold, predictions, texts, [found.digests.count(None) for found in predictions])


def _others(
    gold: Gold, found: Predictions, expected: Sequence[str], texts: Mapping[str, Texts]
) -> Iterable[tuple[int, str, str]]:
    """Find predictions of other pairs: line, id, and what stands in the places of both."""
    owner = dict(zip(expected, gold.ids, strict=True))
    for line, name, digest, right in zip(found.lines, gold.ids, found.digests, expected, strict=True):
        if digest not in (None, right):
            known = owner.get(str(digest))
            other = f"which is that of id '{known}', {texts[known].start()}" if known else "which no row has"
            yield line, name, f"{texts[name].start()}: digest {str(digest)[:16]}, {other}, expected {right}"


def _read_texts(gold: Gold, articles: Path) -> dict[str, Texts]:
    wanted = set(gold.ids)
    rows = {name: row for name, row in read_articles(articles) if name in wanted}
    if without := [name for name in gold.ids if name not in rows]:
        line = gold.lines[gold.ids.index(without[0])]
        remedy = "name the file that was predicted with --articles"
        raise UserError(f"{relative(gold.path)}:{line}: {several(without)} no row in {relative(articles)}; {remedy}")
    if lacking := [name for name, row in rows.items() if not isinstance(row.get("pair"), str)]:
        remedy = "expected the text that is ranked; make the file with tools/regenerate_segments.py"
        raise UserError(f"{relative(articles)}: {several(lacking)} no 'pair', {remedy}")
    return {name: Texts(row["body"], row["pair"]) for name, row in rows.items()}


class Part(NamedTuple):
    """Rows that are scored apart: all of them, or those of one value of the task's slice.

    Attributes:
        rows: Int of shape [rows], places in gold.
        owner: Int of shape [rows], the number of a row's group among the groups of the part.
        groups: Int of shape [groups], each group's number in gold.
    """

    rows: np.ndarray
    owner: np.ndarray
    groups: np.ndarray

    def lists(self, task: Task, gold: Gold, predictions: Predictions) -> Lists:
        """Put predictions beside gold values."""
        pairs = Pairs(gold.values[self.rows], predictions.values[self.rows], self.owner, len(self.groups))
        return Lists(pairs, least(task))


def least(task: Task) -> float:
    """Return the least value of what is ranked by."""
    [target] = task.targets.values()
    return float(target["scale"][0])


def parts(gold: Gold) -> dict[str, Part]:
    """Name what is scored apart: all rows first, then those of each slice."""
    slices = np.array(gold.slices)
    places = {OVERALL: np.arange(len(gold.ids))}
    places |= {str(name): np.flatnonzero(slices == name) for name in np.unique(slices)}
    found = {}
    for name, rows in places.items():
        groups, owner = np.unique(gold.owner[rows], return_inverse=True)
        found[name] = Part(rows, owner, groups)
    return found
