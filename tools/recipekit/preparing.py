"""Raw rows -> segments, test input and gold, at the speed of the disk: chunks of files on every core, in order."""

import multiprocessing
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import orjson

from recipekit import parallel, raw, segments
from recipekit.errors import UserError
from recipekit.formats import Converter, Row, orderer
from recipekit.gold_rows import GoldWriter, written
from recipekit.raw import TEST, Chunk, RawFile
from recipekit.rawcheck import RawChecker
from recipekit.runs import relative
from recipekit.task import Task, load_task

SHOWN = 20  # problems of a file


@dataclass
class Made:
    """What a chunk came to.

    Attributes:
        lengths: Name of a file -> bytes of each line that was written to it.
        rows: Part -> rows.
        problems: Line, counted from the chunk's first, and what is wrong with it.
        ids: Digests of the rows' ids, 64 bits each.
        lines: Lines of the file that the chunk was; 0 where its lines are counted from the file's first.
    """

    lengths: dict[str, array] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    ids: array = field(default_factory=lambda: array("Q"))
    lines: int = 0


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


class Maker:
    """Makes the rows of one raw file."""

    def __init__(self, task: Task, file: RawFile, output: Output) -> None:
        """Prepare converter, schema and gold columns."""
        self.task, self.file, self.output = task, file, output
        self.writer = segments.Writer(task)
        self.converter = Converter(task, file.spec)
        self.checker = RawChecker(task)
        self.order = orderer(task.output_schema)
        self.gold = GoldWriter(task) if TEST in file.shares else None

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
        made = Made()
        for line, found in chunk.rows(1):
            if isinstance(found, str):
                made.problems.append((line, found))
                continue
            try:
                row = raw.convert(self.task, self.converter, found)
                text = self.task.clean(row["body"]) if isinstance(row["body"], str) else ""
                problems = [f"key '{path}': {what}" for path, what in self.checker.problems(row, text)]
                if not problems:
                    self._add(parts, made, row, text)
            except UserError as error:
                problems = error.problems
            made.problems += [(line, problem) for problem in problems]
        made.lines = chunk.lines
        return made

    def _add(self, parts: dict[str, list[bytes]], made: Made, row: Row, text: str) -> None:
        label = self.order(row["label"])
        part = self.file.part(row)
        made.rows[part] += 1
        name = row["id"] if row["id"] is not None or part != TEST else made_up(self.file, text)
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


def _maker(name: str, root: Path, file: RawFile, output: Output) -> Callable[[tuple[int, Chunk]], Made]:
    return Maker(load_task(name, root), file, output).make


def _made(task: Task, file: RawFile, output: Output) -> Iterator[Made]:
    """Work on a file's chunks and yield what they came to, in order; on every core where there are several."""
    chunks = enumerate(raw.chunks(file.path))
    if file.path.stat().st_size <= raw.CHUNK or raw.workers() == 1:
        return map(Maker(task, file, output).make, chunks)
    return parallel.in_order(partial(_maker, task.name, task.root, file, output), chunks)


@dataclass
class Prepared:
    """What became of a raw file.

    Attributes:
        rows: Part -> rows.
        lengths: Name of a file -> bytes of each of its lines.
    """

    rows: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, array] = field(default_factory=dict)


def prepare(task: Task, file: RawFile, folder: Path, advance: Callable[..., None]) -> Prepared:
    """Write what a raw file's rows become below folder.

    Raises:
        UserError: Rows are wrong, each with file and line, or a part of a split got no rows.
    """
    prepared = Prepared()
    problems: list[tuple[int, str]] = []
    ids = array("Q")
    line = count = 0
    for made in _made(task, file, Output(folder, _heads(task, file))):
        for name, lengths in made.lengths.items():
            prepared.lengths.setdefault(name, array("L")).extend(lengths)
        prepared.rows += made.rows
        ids += made.ids
        count += len(made.problems)
        problems += [(line + at, what) for at, what in made.problems][: SHOWN - len(problems)]
        line += made.lines
        advance(made.rows.total())
    if twice := raw.repeated(ids):
        again = list(_repeated(task, file, twice))
        count += len(again)
        problems += again[: SHOWN - len(problems)]
    place = relative(file.path)
    found = [f"{place}:{at}: {what}" for at, what in sorted(problems)]
    if count > len(found):
        found.append(f"{place}: and {count - len(found)} more")
    if not found:
        few = "give it a larger share, or the file more rows"
        empty = [part for part in file.shares if not prepared.rows[part]]
        found = [f"{place}: the part {part} of data.split got no rows; {few}" for part in empty]
    if found:
        raise UserError(found)
    return prepared


def _heads(task: Task, file: RawFile) -> dict[str, bytes]:
    """Name the files that a raw file's rows go to, each with what it opens with."""
    heads = {f"{part}_segments.jsonl": b"" for part in file.shares if part != TEST}
    if TEST in file.shares:
        test = task.spec["data"]["test"]
        heads |= {test["input"]: b"", test["gold"]: written([GoldWriter(task).header])}
    return heads


def made_up(file: RawFile, text: str) -> str:
    """Make an id of an article of the test set that has none."""
    return f"{file.path.stem}-{raw.key(text):016x}"


def _repeated(task: Task, file: RawFile, twice: set[int]) -> Iterator[tuple[int, str]]:
    """Read a file again to name the ids that it has more than once."""
    converter = Converter(task, file.spec)
    seen: dict[str, int] = {}
    line = 0
    for chunk in raw.chunks(file.path):
        for at, found in chunk.rows(1):
            if not isinstance(found, dict):
                continue
            row = raw.convert(task, converter, found)
            own = row["id"] is not None
            name = str(row["id"]) if own else made_up(file, task.clean(row["body"] or ""))
            if raw.key(name) in twice and seen.setdefault(name, line + at) != line + at:
                what = f"id '{name}'" if own else "the article, without an id of its own,"
                yield line + at, f"{what} stands on line {seen[name]} already; ids are unique"
        line += chunk.lines
