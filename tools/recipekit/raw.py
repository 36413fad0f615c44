"""Raw data as it was downloaded or written by hand, chunk by chunk: JSONL, JSON or CSV."""

import csv
import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recipekit.errors import UserError
from recipekit.formats import Row
from recipekit.runs import relative
from recipekit.segments import take_apart
from recipekit.task import Task

CHUNK = 2**20  # bytes of a file that are worked on at a time; larger ones cost page faults
BATCH = 2000  # rows, of files that cannot be cut at line ends
LONGEST = 2**31 - 1  # characters of a CSV cell; the library's own limit is 131,072
ENDINGS = (".jsonl", ".json", ".csv")


def key(text: str) -> int:
    """Digest a text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


def convert(task: Task, converter: Callable[[Row], Row], row: Row) -> Row:
    """Make {"id", "body", "label"} of a raw row, or of one in segments format."""
    if "segments" not in row:
        return converter(row)
    if not isinstance(row["segments"], list):
        raise UserError("key 'segments': expected a list of segments; mend or remove the row")
    return take_apart(task, row)


@dataclass
class Chunk:
    """A part of a file, read by whoever works on it.

    Attributes:
        path: The file.
        start: First byte, of a JSONL file.
        size: Bytes.
        given: Rows with their lines, of a file that cannot be cut at line ends.
        lines: Lines in it, once its rows were read.
        unique: Whether a JSON object with a key twice is refused; else only the last value of the two is seen.
    """

    path: Path
    start: int = 0
    size: int = 0
    given: list[tuple[int, Row | str]] | None = None
    lines: int = 0
    unique: bool = False

    def rows(self, first: int) -> Iterator[tuple[int, Row | str]]:
        """Yield line and row, or what is wrong with the line; `first` is the chunk's first line."""
        if self.given is not None:
            yield from self.given
            return
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            content = stream.read(self.size)
        lines = content.split(b"\n")
        if not lines[-1]:
            lines.pop()
        self.lines = len(lines)
        for number, text in enumerate(lines, first):
            if self.start == 0 and number == first:
                text = text.removeprefix(b"\xef\xbb\xbf")
            try:
                row = _loads(text, self.unique)
            except ValueError as error:
                yield number, f"not valid JSON: {error}; mend or remove the line"
                continue
            yield number, row if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


def _loads(text: bytes, unique: bool) -> Any:
    value = orjson.loads(text)
    if unique:
        json.loads(text, object_pairs_hook=_unique)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    times = Counter(key for key, _ in pairs)
    if len(times) < len(pairs):
        raise ValueError(f"the key {times.most_common(1)[0][0][:40]!r} stands twice in one object")


def chunks(path: Path, unique: bool = False, short: bool = False) -> Iterator[Chunk]:
    """Cut a file into chunks, in order.

    Args:
        path: The file.
        unique: Whether a JSON object with a key twice is refused.
        short: Whether a row of a CSV file may lack its last cells, as gold files' rows do.

    Raises:
        UserError: It is missing or empty, cannot be read, or is no CSV or JSON file that its name says it is.
    """
    try:
        if path.suffix.lower() not in ENDINGS:
            raise UserError(f"{relative(path)}: expected a file that ends in {', '.join(ENDINGS)}; convert it")
        if path.stat().st_size == 0:
            raise UserError(f"{relative(path)}: the file is empty; expected rows")
        if path.suffix.lower() in (".csv", ".json"):
            yield from batches(path, _csv(path, short) if path.suffix.lower() == ".csv" else _json(path, unique))
            return
        with path.open("rb") as stream:
            start, end = 0, path.stat().st_size
            while start < end:
                stream.seek(min(start + CHUNK, end))
                stream.readline()
                size = stream.tell() - start
                yield Chunk(path, start, size, unique=unique)
                start += size
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; expected a file that can be read") from None


def batches(path: Path, rows: Iterable[tuple[int, Row | str]]) -> Iterator[Chunk]:
    """Make chunks of rows, with their lines, that are read already."""
    batch: list[tuple[int, Row | str]] = []
    for item in rows:
        batch.append(item)
        if len(batch) == BATCH:
            yield Chunk(path, given=batch)
            batch = []
    if batch:
        yield Chunk(path, given=batch)


def _csv(path: Path, short: bool) -> Iterator[tuple[int, Row | str]]:
    csv.field_size_limit(LONGEST)
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            if twice := [name for name in dict.fromkeys(header) if name and header.count(name) > 1]:
                raise UserError(f"{relative(path)}:1: two columns are called {' and '.join(twice)}; rename one of them")
            reader.fieldnames = header
            line = reader.line_num + 1
            for row in reader:
                yield line, _cells(row, short)
                line = reader.line_num + 1
    except UnicodeDecodeError:
        raise UserError(f"{relative(path)}: not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)") from None
    except csv.Error as error:
        raise UserError(f"{relative(path)}:{line}: not valid CSV: {error}; mend the quotes of this row") from None


def _cells(row: dict[str | None, Any], short: bool) -> Row | str:
    """Return a row of a CSV file without its nameless columns, or what is wrong with it."""
    if None in row:
        return "more cells than columns; put text that has commas or quotes in it into quotes"
    if None in row.values() and not short:
        return "fewer cells than columns; add the commas of the empty ones, or mend the quotes"
    return {name: value for name, value in row.items() if name and value is not None}


def _json(path: Path, unique: bool) -> Iterator[tuple[int, Row | str]]:
    try:
        rows = _loads(path.read_bytes(), unique)
    except ValueError as error:
        raise UserError(f"{relative(path)}: not valid JSON: {error}; mend it, or name it .jsonl") from None
    if not isinstance(rows, list):
        raise UserError(f"{relative(path)}: expected a JSON list of rows, found {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield number, row if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


def repeated(keys: array) -> set[int]:
    """Return the keys (64 bits each) that occur more than once."""
    ordered = np.sort(np.frombuffer(keys, dtype=np.uint64))
    return set(ordered[1:][np.diff(ordered) == 0].tolist())


def workers() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
