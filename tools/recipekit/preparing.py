"""Raw rows -> segments, test input and gold, at the speed of the disk: chunks of files on every core, in order."""

import csv
import io
import json
import os
import random
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import jsonschema
import jsonschema_rs
import orjson

from recipekit import raw, runs, segments
from recipekit.errors import UserError
from recipekit.extract import Extractor
from recipekit.formats import Converter, Row
from recipekit.raw import TEST, Chunk, RawFile
from recipekit.runs import relative
from recipekit.task import Task, load_task

SHOWN = 20  # problems of a file


@dataclass
class Made:
    """What a chunk came to.

    Attributes:
        files: Name of a file to write -> its lines.
        rows: Part -> rows.
        problems: Line, counted from the chunk's first, and what is wrong with it.
        ids: Digests of the rows' ids, 64 bits each.
        lines: Lines of the file that the chunk was; 0 where its lines are counted from the file's first.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    problems: list[tuple[int, str]] = field(default_factory=list)
    ids: array = field(default_factory=lambda: array("Q"))
    lines: int = 0


class Maker:
    """Makes the rows of one raw file."""

    def __init__(self, task: Task, file: RawFile) -> None:
        """Prepare converter, schema and gold columns."""
        self.task, self.file = task, file
        self.converter = Converter(task, file.spec)
        self.is_valid = jsonschema_rs.validator_for(task.output_schema).is_valid
        self.faults = jsonschema.Draft202012Validator(task.output_schema).iter_errors
        self.gold = GoldWriter(task) if TEST in file.shares else None

    def make(self, chunk: Chunk) -> Made:
        """Make the lines of every file that the chunk's rows go to."""
        made = Made()
        parts: dict[str, list[bytes]] = {}
        for line, found in chunk.rows(1):
            if isinstance(found, str):
                made.problems.append((line, found))
                continue
            try:
                row = raw.convert(self.task, self.converter, found)
                body, problems = self._check(row)
                if not problems:
                    self._add(parts, made, row, body, line)
            except UserError as error:
                problems = error.problems
            made.problems += [(line, problem) for problem in problems]
        made.files = {name: b"".join(lines) for name, lines in parts.items()}
        made.lines = chunk.lines
        return made

    def _check(self, row: Row) -> tuple[str, list[str]]:
        """Return the article as it is trained on, and what is wrong with the row."""
        body = self.task.clean(row["body"]) if isinstance(row["body"], str) else ""
        problems = [] if body else ["key 'body': expected the article's text, found none; add it or remove the row"]
        if not isinstance(row["label"], str if self.task.answers_are_text else dict | list):
            kind = "a text" if self.task.answers_are_text else "an object"
            problems.append(f"key 'label': expected the answer as {kind}, found none; add it or remove the row")
        elif not self.is_valid(row["label"]):
            problems += [
                f"key '{'.'.join(map(str, ('label', *fault.absolute_path)))}': {fault.message}; "
                "mend the label (output_schema in task.yml says what it may be)"
                for fault in self.faults(row["label"])
            ]
        return body, problems

    def _add(self, parts: dict[str, list[bytes]], made: Made, row: Row, body: str, line: int) -> None:
        part = self.file.part(row)
        made.rows[part] += 1
        if row["id"] is not None:
            made.ids.append(raw.key(str(row["id"])))
        if part == TEST and self.gold:
            name = str(row["id"] or f"{self.file.path.stem}-{raw.key(body):016x}")
            known = {*self.converter.names(), "label", "messages", "conversations", "segments"}
            own = {key: value for key, value in row.items() if key not in known}
            article = orjson.dumps({**own, "id": name, "body": row["body"]}) + b"\n"
            parts.setdefault(self.task.spec["data"]["test"]["input"], []).append(article)
            cells = self.gold.rows(name, row["label"])
            parts.setdefault(self.task.spec["data"]["test"]["gold"], []).append(cells)
        else:
            trained = orjson.dumps(segments.around(self.task, body, row["label"])) + b"\n"
            parts.setdefault(f"{part}_segments.jsonl", []).append(trained)


class GoldWriter:
    """Writes labels as rows of a gold CSV: what evaluation takes out of an answer, the other way round."""

    def __init__(self, task: Task) -> None:
        """Prepare the columns of a task."""
        gold = task.spec["gold"]
        self.extractor = Extractor(task)
        self.separator = gold["separator"]
        self.header = [gold["id"], *gold["columns"]]
        self.single = gold.get("one_row_per", "article")

    def rows(self, name: str, label: Any) -> bytes:
        """Write the row of an article, or a row for each of its entities where gold.one_row_per says so.

        Raises:
            UserError: A value holds what stands between values.
        """
        entities, sets = self.extractor.values(label)
        cells = {column: self._cell(column, values) for column, values in sets.items()}
        for entity, columns in self.extractor.columns.items():
            if entity != self.single:
                for column in columns:
                    values = [each.get(column, "") for each in entities.get(entity, [])]
                    cells[column] = self._cell(column, values) if any(values) else ""
        rows = [{**cells, **own} for own in entities.get(self.single, [])] or [cells]
        return written([[name, *(row.get(column, "") for column in self.header[1:])] for row in rows])

    def _cell(self, column: str, values: list[str]) -> str:
        for value in values:
            if self.separator in value:
                remedy = "choose another gold.separator in task.yml"
                raise UserError(f"{column}: {value[:40]!r} holds {self.separator!r}, which parts values; {remedy}")
        return self.separator.join(values)


def written(rows: list[list[str]]) -> bytes:
    """Write rows as CSV."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


_maker: Maker | None = None


def _start(name: str, root: Path, file: RawFile) -> None:
    global _maker
    _maker = Maker(load_task(name, root), file)


def _make(chunk: Chunk) -> Made:
    assert _maker
    return _maker.make(chunk)


def _made(task: Task, file: RawFile) -> Iterator[Made]:
    """Work on a file's chunks on every core and yield what they came to, in order; few wait at a time."""
    if file.path.stat().st_size <= raw.CHUNK or raw.workers() == 1:
        yield from map(Maker(task, file).make, raw.chunks(file.path))
        return
    with ProcessPoolExecutor(raw.workers(), initializer=_start, initargs=(task.name, task.root, file)) as pool:
        waiting: deque[Future[Made]] = deque()
        for chunk in raw.chunks(file.path):
            waiting.append(pool.submit(_make, chunk))
            if len(waiting) > raw.workers() + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def prepare(task: Task, file: RawFile, folder: Path, advance: Callable[..., None]) -> Counter[str]:
    """Write what a raw file's rows become below folder; returns the rows of each part.

    Raises:
        UserError: Rows are wrong, each with file and line, or a part of a split got no rows.
    """
    rows: Counter[str] = Counter()
    problems: list[tuple[int, str]] = []
    ids = array("Q")
    line = count = 0
    streams: dict[str, BinaryIO] = {}
    try:
        for made in _made(task, file):
            for name, content in made.files.items():
                if name not in streams:
                    streams[name] = (folder / name).open("wb")
                    if name == task.spec["data"]["test"]["gold"]:
                        streams[name].write(written([GoldWriter(task).header]))
                streams[name].write(content)
            rows += made.rows
            ids += made.ids
            count += len(made.problems)
            problems += [(line + at, what) for at, what in made.problems][: SHOWN - len(problems)]
            line += made.lines
            advance(made.rows.total())
    finally:
        for stream in streams.values():
            stream.close()
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
        found = [f"{place}: the part {p} of data.split got no rows; {few}" for p in file.shares if not rows[p]]
    if found:
        raise UserError(found)
    return rows


def _repeated(task: Task, file: RawFile, twice: set[int]) -> Iterator[tuple[int, str]]:
    """Read a file again to name the ids that it has more than once."""
    converter = Converter(task, file.spec)
    seen: dict[str, int] = {}
    line = 0
    for chunk in raw.chunks(file.path):
        for at, found in chunk.rows(1):
            name = raw.convert(task, converter, found)["id"] if isinstance(found, dict) else None
            if name is not None and raw.key(str(name)) in twice and seen.setdefault(str(name), line + at) != line + at:
                yield line + at, f"id '{name}' stands on line {seen[str(name)]} already; ids are unique"
        line += chunk.lines


class Lines:
    """The lines of a file by number; eight bytes a line are kept."""

    def __init__(self, path: Path) -> None:
        """Find where lines begin."""
        self.starts = array("Q", [0])
        with path.open("rb") as stream:
            for text in stream:
                self.starts.append(self.starts[-1] + len(text))
        self.file = os.open(path, os.O_RDONLY)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> bytes:
        start = self.starts[number]
        return os.pread(self.file, self.starts[number + 1] - start, start)

    def __del__(self) -> None:
        os.close(self.file)


def mix(folder: Path, name: str, spec: dict[str, Any]) -> int:
    """Write positives with replay, shuffled, and a manifest that says what went in.

    The replay's share counts in the whole mix: with 0.2, every fifth row is a replayed one. Replay rows are drawn
    without repetition, so a short replay file lowers the share, which the manifest then shows.

    Returns:
        The number of rows.
    """
    base, replay = (Lines(folder / f"{spec[role]}_segments.jsonl") for role in ("base", "replay"))
    wanted = round(len(base) * spec["replay_share"] / (1 - spec["replay_share"]))
    rng = random.Random(spec["seed"])
    drawn = array("Q", (len(base) + n for n in rng.sample(range(len(replay)), min(wanted, len(replay)))))
    rows = array("Q", range(len(base))) + drawn
    rng.shuffle(rows)
    with (folder / f"{name}_segments.jsonl").open("wb") as stream:
        for number in rows:
            stream.write(base[number] if number < len(base) else replay[number - len(base)])
    manifest = {
        **spec,
        "rows": {"base": len(base), "replay": len(drawn), "total": len(rows)},
        "replay_share_reached": round(len(drawn) / len(rows), 4),
        "sha256": {n: runs.digest(folder / f"{n}_segments.jsonl") for n in (spec["base"], spec["replay"], name)},
    }
    (folder / f"{name}_segments.manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return len(rows)
