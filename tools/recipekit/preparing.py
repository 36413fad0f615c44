"""Raw files -> rows, test input and gold, at the speed of the disk: chunks of files on every core, in order."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from recipekit import parallel, persona_chat, raw, regression_rows
from recipekit.errors import UserError
from recipekit.gold_rows import GoldWriter, written
from recipekit.making import Made, Maker, Output, Prepared, SegmentsMaker, converter, made_up
from recipekit.personas import Choice
from recipekit.raw import Chunk
from recipekit.rawfiles import TEST, RawFile
from recipekit.regression_rows import RegressionMaker
from recipekit.runs import relative
from recipekit.task import Task, load_task

SHOWN = 20  # problems of a file
ROLES = ("train", "validation")


def prepare(task: Task, file: RawFile, folder: Path, advance: Callable[..., None]) -> Prepared:
    """Write what a raw file's rows become below folder.

    Raises:
        UserError: Rows are wrong, each with file and line, or a part of a split got no rows.
    """
    prepared = Prepared()
    problems: list[tuple[Path, int, str]] = []
    ids = array("Q")
    line = count = 0
    path = file.path
    file, chunks = _opened(task, file, prepared)
    for made in _made(task, file, chunks, Output(folder, _heads(task, file))):
        if made.path != path:
            path, line = made.path, 0
        prepared.add(made)
        ids += made.ids
        count += len(made.problems)
        problems += [(path, line + at, what) for at, what in made.problems][: SHOWN - len(problems)]
        line += made.lines
        advance(made.rows.total())
    if twice := raw.repeated(ids):
        again = list(_repeated(task, file, twice))
        count += len(again)
        problems += again[: SHOWN - len(problems)]
    found = [f"{relative(path)}:{at}: {what}" for path, at, what in sorted(problems)]
    place = relative(file.path)
    if count > len(found):
        found.append(f"{place}: and {count - len(found)} more")
    if not found:
        few = "give it a larger share in data.split, or the file more rows"
        empty = [part for part in file.shares if not prepared.rows[part]]
        found = [f"{place}: the part {part} got no rows; {few}" for part in empty]
    if found:
        raise UserError(found)
    return prepared


def _opened(task: Task, file: RawFile, prepared: Prepared) -> tuple[RawFile, Iterator[Chunk]]:
    """Open a raw file; returns it with what was drawn beforehand, and its chunks."""
    if file.spec.get("format") == "real_persona_chat":
        scales = {name: target["scale"] for name, target in task.targets.items()}
        corpus = persona_chat.read(file.path, file.spec["label"], scales)
        prepared.notes += persona_chat.told(corpus)
        group = task.group or "speaker"
        prepared.groups = persona_chat.draw(list(corpus.labels), file.shares, file.seed)
        rows = persona_chat.rows(
            corpus, prepared.groups, _strictest_last(task, file), file.spec.get("context", "none"), group
        )
        return replace(file, by=group, drawn=prepared.groups), raw.batches(file.path, enumerate(rows, 1))
    if limit := file.spec.get("limit"):
        choice = Choice(file.seed)
        digests = array("Q")
        jobs = _worked(partial(_digests, choice), file, _chunks(file))
        for found in jobs:
            digests += found
        file = replace(file, choice=choice.up_to(limit, digests))
    return file, _chunks(file)


def _strictest_last(task: Task, file: RawFile) -> list[str]:
    """Put the parts of a split into order: training, validation, test."""
    train = task.spec["data"]["train"]
    ranks = {
        part: len(ROLES) if part == TEST else ROLES.index(train[part].get("role", "train")) for part in file.shares
    }
    return sorted(file.shares, key=ranks.__getitem__)


def _chunks(file: RawFile) -> Iterator[Chunk]:
    for path in _paths(file):
        yield from raw.chunks(path)


def _paths(file: RawFile) -> list[Path]:
    return sorted(file.path.rglob("*.jsonl")) if file.path.is_dir() else [file.path]


def _digests(choice: Choice, chunk: Chunk) -> array:
    """Digest the rows of a chunk."""
    return array("Q", (choice.digest(row) for _, row in chunk.rows(1) if isinstance(row, dict)))


def _worked(work: Callable[[Chunk], array], file: RawFile, chunks: Iterator[Chunk]) -> Iterator[array]:
    if _is_small(file):
        return map(work, chunks)
    return parallel.in_order(partial(_same, work), chunks)


def _same(work: Callable[[Chunk], array]) -> Callable[[Chunk], array]:
    return work


def _is_small(file: RawFile) -> bool:
    """Tell whether one process is to work on a file."""
    return raw.workers() == 1 or sum(path.stat().st_size for path in _paths(file)) <= raw.CHUNK


def _maker(name: str, root: Path, file: RawFile, output: Output) -> Callable[[tuple[int, Chunk]], Made]:
    return _maker_of(load_task(name, root), file, output).make


def _maker_of(task: Task, file: RawFile, output: Output) -> Maker:
    return (RegressionMaker if task.estimates else SegmentsMaker)(task, file, output)


def _made(task: Task, file: RawFile, chunks: Iterator[Chunk], output: Output) -> Iterator[Made]:
    """Work on a file's chunks and yield what they came to, in order; on every core where there are several."""
    if file.drawn is not None or _is_small(file):
        return map(_maker_of(task, file, output).make, enumerate(chunks))
    return parallel.in_order(partial(_maker, task.name, task.root, file, output), enumerate(chunks))


def _heads(task: Task, file: RawFile) -> dict[str, bytes]:
    """Name the files that a raw file's rows go to, each with what it opens with."""
    if task.estimates:
        return regression_rows.heads(task, file)
    heads = {f"{part}_segments.jsonl": b"" for part in file.shares if part != TEST}
    if TEST in file.shares:
        test = task.spec["data"]["test"]
        heads |= {test["input"]: b"", test["gold"]: written([GoldWriter(task).header])}
    return heads


def _repeated(task: Task, file: RawFile, twice: set[int]) -> Iterator[tuple[Path, int, str]]:
    """Read a file again to name the ids that it has more than once."""
    convert = converter(task, file)
    seen: dict[str, str] = {}
    path, line = file.path, 0
    for chunk in _chunks(file):
        if chunk.path != path:
            path, line = chunk.path, 0
        for at, found in chunk.rows(1):
            if not isinstance(found, dict):
                continue
            row = raw.convert(task, convert, found)
            own = row["id"] is not None
            name = str(row["id"]) if own else made_up(task, file, row)
            place = f"line {line + at}" if path == file.path else f"{relative(path)}:{line + at}"
            if raw.key(name) in twice and seen.setdefault(name, place) != place:
                what = f"id '{name}'" if own else "the article, without an id of its own,"
                yield path, line + at, f"{what} stands on {seen[name]} already; ids are unique"
        line += chunk.lines
