"""Rows of files, and what is to be hidden in them: the first pass of masking."""

from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from recipekit import parallel, standins
from recipekit.errors import UserError
from recipekit.pii import KINDS
from recipekit.pii_forms import Forms, Known, Mark
from recipekit.pii_key import sha
from recipekit.pii_rows import Piece, columns, csv_problem, pieces, read_rows
from recipekit.runs import relative
from recipekit.spans import fold

DIGEST = 16  # hexadecimal digits of a row's digest
CHUNK = 200  # rows that a process takes at a time
WORTH_PROCESSES = 500_000  # bytes
SHOWN = 5  # places of a kind

Advance = Callable[..., Any]


class Row(NamedTuple):
    """A row and what is to be known to read it."""

    place: str
    text: str
    suffix: str
    header: list[str] | None
    masked: bool = False

    @property
    def pieces(self) -> list[Piece]:
        """Its texts; none where it is masked already."""
        return [] if self.masked else pieces(self.text, self.suffix, self.header)


@dataclass
class Found:
    """What the first pass found.

    Attributes:
        counts: Kind -> places.
        places: Kind -> the first few, file:line and what stands there.
        texts: Kind and text, in the order in which they were met -> how often.
        splits: Name in one, folded -> characters of its family name.
        seen: What looks like a stand-in already.
        rows: Rows read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    texts: dict[tuple[str, str], None] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    rows: int = 0


class Marker:
    """Marks what is to be hidden in chunks of rows; one a process, as it loads a dictionary."""

    def __init__(self, known: Known | None, ginza: bool) -> None:
        self.forms, self.known = Forms(ginza), known

    def mark(self, chunk: list[Row]) -> tuple[list[list[list[Mark]]], dict[str, int], set[str]]:
        """Mark the rows of a chunk; also returns splits of names and what looks like a stand-in."""
        marked, splits, seen = [], dict[str, int](), set[str]()
        for row in chunk:
            texts = [piece.text for piece in row.pieces]
            marks = self.forms.marks(texts, self._known_values(row))
            marked.append(marks)
            for text, places in zip(texts, marks, strict=True):
                seen |= {match[0] for match in standins.STANDIN.finditer(text)}
                names = {fold(text[start:end]): text[start:end] for start, end, kind in places if kind == "person"}
                splits |= {name: self.forms.split(name) for name in names if name not in splits}
        return marked, splits, seen

    def _known_values(self, row: Row) -> list[tuple[str, str]]:
        if self.known and row.suffix == ".jsonl":
            return list(self.known.values(orjson.loads(row.text.removeprefix("\ufeff"))))
        if self.known and row.suffix == ".csv" and row.header is not None:
            return list(self.known.values(dict(zip(row.header, columns(row.text.rstrip("\r\n")), strict=False))))
        return []


def _marker(known: Known | None, ginza: bool) -> Callable[[list[Row]], Any]:
    return Marker(known, ginza).mark


def read(paths: Sequence[Path]) -> Iterator[Row]:
    """Read the rows of files.

    Raises:
        UserError: A file cannot be read, or lines of it are no JSON or CSV; all such lines at once, at the file's end.
    """
    for path in paths:
        suffix, header = path.suffix.lower(), None
        problems = []
        for line, text in read_rows(path):
            place = f"{relative(path)}:{line}"
            if problem := _not_json(text, line) if suffix == ".jsonl" else suffix == ".csv" and csv_problem(text, line):
                problems.append(f"{place}: {problem}")
                continue
            yield Row(place, text, suffix, header)
            if suffix == ".csv" and header is None:
                header = columns(text.rstrip("\r\n"))
        if problems:
            raise UserError(problems)


def _not_json(text: str, line: int) -> str | None:
    if not text.strip():
        return "the line is empty; remove it"
    try:
        row = orjson.loads(text.removeprefix("\ufeff") if line == 1 else text)
    except orjson.JSONDecodeError as error:
        return f"not valid JSON: {error}; mend or remove the line"
    return None if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}; mend it"


def scan(
    paths: Sequence[Path],
    known: Known | None,
    ginza: bool,
    spill: IO[bytes] | None,
    advance: Advance,
    masked: Container[str] = (),
) -> Found:
    """Find what is to be hidden in files.

    Args:
        paths: .jsonl, .csv and .txt files.
        known: Where names and addresses stand in labels.
        ginza: Whether GiNZA looks for names too.
        spill: Gets the marks of every row, a line each; None drops them.
        advance: Told of rows done.
        masked: Digests of rows that are masked already.
    """
    found = Found()
    rows = (row._replace(masked=bool(masked) and sha(row.text)[:DIGEST] in masked) for row in read(paths))
    waiting: deque[list[Row]] = deque()

    def chunks() -> Iterator[list[Row]]:
        while chunk := list(islice(rows, CHUNK)):
            waiting.append(chunk)
            yield chunk

    make = partial(_marker, known, ginza)
    small = sum(path.stat().st_size for path in paths if path.exists()) < WORTH_PROCESSES
    for marked, splits, seen in map(make(), chunks()) if small else parallel.in_order(make, chunks()):
        chunk = waiting.popleft()
        found.splits |= splits
        found.seen |= seen
        for row, marks in zip(chunk, marked, strict=True):
            _note(found, row, marks)
            if spill:
                spill.write(orjson.dumps([[tuple(mark) for mark in places] for places in marks]) + b"\n")
        advance(len(chunk))
    return found


def _note(found: Found, row: Row, marks: list[list[Mark]]) -> None:
    found.rows += 1
    if not any(marks):
        return
    for piece, places in zip(row.pieces, marks, strict=True):
        for start, end, kind in places:
            found.counts[kind] += 1
            found.texts[kind, piece.text[start:end]] = None
            first = found.places.setdefault(kind, [])
            if len(first) < SHOWN:
                name, _, line = row.place.rpartition(":")
                line_here = int(line) + (piece.text.count("\n", 0, start) if row.suffix == ".txt" else 0)
                first.append((f"{name}:{line_here}", piece.text[start:end]))


def kinds_found(found: Found) -> list[tuple[str, int, int]]:
    """Return kind, places and different texts of what was found."""
    different = Counter(kind for kind, _ in found.texts)
    return [(kind, found.counts[kind], different[kind]) for kind in KINDS if found.counts[kind]]
