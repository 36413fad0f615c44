"""Gold, predictions and articles, brought together by the article's id.

Files are read side by side, so that memory does not grow with them as long as they have their articles in the same
order; another order is as good, but what waits for its partner is kept.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipekit import inputs
from recipekit.errors import UserError
from recipekit.gold import GoldFile, GoldRow
from recipekit.runs import relative
from recipekit.segments import read_jsonl
from recipekit.task import Task


def read_predictions(path: Path) -> Iterator[tuple[str, tuple[int, dict[str, Any]]]]:
    """Read predictions; a row needs "id" and "output", the parsed answer or null.

    Yields:
        Id, line number and row.

    Raises:
        UserError: The file is missing or empty, or has broken rows; all at once, after the good ones were yielded.
    """
    problems = []
    try:
        for line, row in read_jsonl(path):
            if isinstance(row.get("id"), str) and "output" in row:
                yield row["id"], (line, row)
            else:
                what = "expected the keys 'id' (text) and 'output'; write them with predict.py"
                problems.append(f"{relative(path)}:{line}: {what}")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)


def read_articles(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the articles that were predicted, whatever predict.py reads.

    Yields:
        Id and row, with its other keys.

    Raises:
        UserError: As `inputs.scan`, and all that is wrong with rows at once, after the good ones were yielded.
    """
    problems = []
    for place, found in inputs.scan(path):
        if isinstance(found, inputs.Problem):
            problems.append(f"{place}: {found.text}")
        else:
            yield found["id"], found
    if problems:
        raise UserError(problems)


def join(
    task: Task, gold: GoldFile, predictions: list[Path], articles: Path | None
) -> Iterator[tuple[GoldRow, list[dict[str, Any]], dict[str, Any] | None]]:
    """Bring together what the files say of each article.

    Yields:
        Gold row, its row in each predictions file, and the article's row or None.

    Raises:
        UserError: Everything that is wrong in any file, or ids that stand in one of them only; after all that could be
            brought together was yielded.
    """
    streams: list[Iterator[tuple[str, Any]]] = [((row.id, row) for row in gold)]
    streams += [read_predictions(path) for path in predictions]
    if articles:
        streams.append(read_articles(articles))
    waiting: list[dict[str, Any]] = [{} for _ in streams]
    problems: list[str] = []
    twice = False
    running = list(zip(streams, waiting, strict=True))
    while running:
        for stream, own in list(running):
            try:
                name, value = next(stream)
            except StopIteration:
                running.remove((stream, own))
            except UserError as error:
                problems += error.problems
                running.remove((stream, own))
            else:
                twice = twice or name in own
                own[name] = value
                if all(name in others for others in waiting):
                    row, *rest = (others.pop(name) for others in waiting)
                    yield row, [found for _, found in rest[: len(predictions)]], rest[-1] if articles else None
    if problems or twice or any(waiting):
        repeated = [problem for path in predictions for problem in _repeated(path)]
        repeated += inputs.read_articles(articles)[1] if articles and not problems else []
        problems = problems + repeated or _unpaired(task, gold.path, predictions, articles, waiting)
    if problems:  # articles without gold may be left
        raise UserError(problems)


def check_test_set(task: Task) -> GoldFile:
    """Read a task's gold file and its articles before there are predictions; returns the gold file, read.

    Raises:
        UserError: Everything that is wrong in either file, or ids that stand in one of them only.
    """
    paths = task.test_path("gold"), task.test_path("input")
    gold = GoldFile(task, paths[0])
    found: list[dict[str, int]] = [{}, {}]
    problems: list[str] = []
    try:
        found[0].update((row.id, row.line) for row in gold)
    except UserError as error:
        problems += error.problems
    try:
        articles, bad = inputs.read_articles(paths[1])
        found[1].update((article.id, int(article.place.rpartition(":")[2])) for article in articles)
        problems += bad
    except UserError as error:
        problems += error.problems
    for here, there in ((0, 1), (1, 0)) if not problems else ():
        if alone := [name for name in found[here] if name not in found[there]]:
            place = f"{relative(paths[here])}:{found[here][alone[0]]}"
            remedy = (
                f"add it, or take the row out; tools/regenerate_segments.py {task.name} copies both from the raw data"
            )
            problems.append(f"{place}: {several(alone)} no row in {relative(paths[there])}; {remedy}")
    if problems:
        raise UserError(problems)
    return gold


def count_lines(path: Path) -> int | None:
    """Count a file's lines, for a progress bar; None where there is no such file."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(2**20), b""))


def _repeated(path: Path) -> Iterator[str]:
    """Read predictions again to name the ids that they have more than once."""
    seen: dict[str, int] = {}
    try:
        for name, (line, _) in read_predictions(path):
            if seen.setdefault(name, line) != line:
                yield f"{relative(path)}:{line}: id '{name}' stands on line {seen[name]} already; keep one of them"
    except UserError:
        return  # was said already


def _unpaired(
    task: Task, gold: Path, predictions: list[Path], articles: Path | None, waiting: list[dict[str, Any]]
) -> list[str]:
    problems = []
    rows = waiting[0]
    for path, own in zip(predictions, waiting[1:], strict=False):
        if without := [name for name in rows if name not in own]:
            problems.append(
                f"{relative(gold)}:{rows[without[0]].line}: {several(without)} no prediction in {relative(path)}; "
                f"predict all articles (uv run tools/predict.py {task.name}), or take the rows out of the gold file"
            )
        if unknown := [name for name in own if name not in rows]:
            problems.append(
                f"{relative(path)}:{own[unknown[0]][0]}: {several(unknown)} no row in {relative(gold)}; "
                "use the gold file of the same articles, or take the rows out of the predictions"
            )
    if articles and (without := [name for name in rows if name not in waiting[-1]]) and not problems:
        problems.append(
            f"{relative(gold)}:{rows[without[0]].line}: {several(without)} no article in {relative(articles)}; "
            "name the file that was predicted with --articles"
        )
    return problems


def several(names: list[str]) -> str:
    """Name the first ids of a list, with the verb that follows: ids 'A', 'B' have."""
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{'ids' if len(names) > 1 else 'id'} {shown}{more} {'have' if len(names) > 1 else 'has'}"
