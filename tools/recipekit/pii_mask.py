"""Files masked and restored: two passes, so that one person has one stand-in in all of them."""

import re
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from recipekit import spans, standins
from recipekit.errors import UserError
from recipekit.pii import KINDS
from recipekit.pii_forms import Forms, Known, Mark
from recipekit.pii_key import Key, sha
from recipekit.pii_parts import SEPARATOR
from recipekit.pii_rows import Edit, Piece, columns, joined, pieces, read_rows
from recipekit.raw import workers
from recipekit.redact import TEXT
from recipekit.runs import relative, writing
from recipekit.spans import fold

DIGEST = 16  # hexadecimal digits of a row's digest
CHUNK = 200  # rows that a process takes at a time
WORTH_PROCESSES = 500_000  # bytes
SHOWN = 5  # places of a kind
_VALUE = 200  # characters of a value of an answer, at most

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


_forms: Forms
_known: Known | None


def _begin(known: Known | None, ginza: bool) -> None:
    """Load the dictionary in a process."""
    global _forms, _known
    _forms, _known = Forms(ginza), known


def _scan(chunk: list[Row]) -> tuple[list[list[list[Mark]]], dict[str, int], set[str]]:
    """Mark the rows of a chunk; also returns splits of names and what looks like a stand-in."""
    marked, splits, seen = [], dict[str, int](), set[str]()
    for row in chunk:
        texts = [piece.text for piece in row.pieces]
        marks = _forms.marks(texts, _known_values(row) if _known else ())
        marked.append(marks)
        for text, places in zip(texts, marks, strict=True):
            seen |= {match[0] for match in standins.STANDIN.finditer(text)}
            names = {fold(text[start:end]): text[start:end] for start, end, kind in places if kind == "person"}
            splits |= {name: _forms.split(name) for name in names if name not in splits}
    return marked, splits, seen


def _known_values(row: Row) -> list[tuple[str, str]]:
    assert _known
    if row.suffix == ".jsonl":
        return list(_known.values(orjson.loads(row.text.removeprefix("\ufeff"))))
    if row.suffix == ".csv" and row.header is not None:
        return list(_known.values(dict(zip(row.header, columns(row.text.rstrip("\r\n")), strict=False))))
    return []


def read(paths: Sequence[Path]) -> Iterator[Row]:
    """Read the rows of files.

    Raises:
        UserError: A file cannot be read, or lines of it are no JSON; all such lines at once, at the file's end.
    """
    for path in paths:
        suffix, header = path.suffix.lower(), None
        problems = []
        for line, text in read_rows(path):
            place = f"{relative(path)}:{line}"
            if suffix == ".jsonl" and (problem := _not_json(text, line)):
                problems.append(f"{place}: {problem}; mend or remove the line")
                continue
            yield Row(place, text, suffix, header)
            if suffix == ".csv" and header is None:
                header = columns(text.rstrip("\r\n"))
        if problems:
            raise UserError(problems)


def _not_json(text: str, line: int) -> str | None:
    if not text.strip():
        return "the line is empty"
    try:
        row = orjson.loads(text.removeprefix("\ufeff") if line == 1 else text)
    except orjson.JSONDecodeError as error:
        return f"not valid JSON: {error}"
    return None if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


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
    with _processes(sum(path.stat().st_size for path in paths if path.exists()), known, ginza) as mapped:
        for chunk, (marked, splits, seen) in mapped(_scan, _chunks(rows)):
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


def assign(key: Key, found: Found) -> dict[tuple[str, str], str]:
    """Give everything found a stand-in; returns kind and text -> stand-in."""
    key.seen |= {text for text in found.seen if not any(real for _, real in key.standins_in(text))}
    spaced = {
        fold(words[0]) for kind, text in found.texts if kind == "person" and len(words := SEPARATOR.split(text)) > 1
    }
    for name, split in found.splits.items():
        families = [size for size in range(1, 4) if size < len(name) and name[:size] in found.splits.keys() | spaced]
        begins = any(other != name and other.startswith(name) for other in found.splits) if len(name) < 4 else False
        key.splits.setdefault(name, len(name) if begins or name in spaced else max(families, default=split))
    for kind, text in found.texts:
        key.learn(kind, text)
    return {form: key.standin(*form) for form in found.texts}


def mask(
    paths: Sequence[Path], folder: Path, key: Key, key_path: Path, known: Known | None, ginza: bool, advance: Advance
) -> Found:
    """Write masked copies of files into a folder, and the key.

    Raises:
        UserError: A file cannot be read or written. Nothing is half-written then.
    """
    with tempfile.TemporaryFile() as spill:
        found = scan(paths, known, ginza, spill, advance, key.rows)
        shown = assign(key, found)
        key.save(key_path)
        spill.seek(0)
        with ExitStack() as files:
            streams = {path: files.enter_context(writing(folder / path.name)) for path in paths}
            for path, stream in streams.items():
                for row, line in zip(read([path]), spill, strict=False):
                    written = _masked(row, orjson.loads(line), shown, key)
                    if written != row.text:
                        key.rows.add(sha(written)[:DIGEST])
                    stream.write(written.encode())
            key.save(key_path)
    return found


def _masked(row: Row, marks: list[list[list[Any]]], shown: Mapping[tuple[str, str], str], key: Key) -> str:
    if not any(marks):
        return row.text
    old = row.pieces
    edits = [
        [Edit(start, end, shown[kind, piece.text[start:end]]) for start, end, kind in places]
        for piece, places in zip(old, marks, strict=True)
    ]
    plain = joined(row.text, old, [piece.edited(changes) for piece, changes in zip(old, edits, strict=True)])
    mended = joined(row.text, old, [p.edited(changes) for p, changes in zip(old, _standing(old, edits), strict=True)])
    real = restored(row, key)
    for written in (mended, plain):
        if restored(row._replace(text=written), key) == real:
            return written
        if key.exceptions.setdefault(sha(written), row.text) == row.text:
            return written
    raise UserError(f"{row.place}: cannot be masked so that it can be restored; mask it with another key file")


def _standing(old: list[Piece], edits: list[list[Edit]]) -> list[list[Edit]]:
    """Mend edits so that every value that stood in another, longer text of the row still does."""
    texts = [piece.text for piece in old]
    articles = [place for place, text in enumerate(texts) if text[:1] not in ("{", "[")]
    hidden = {place: _apply(texts[place], edits[place]) for place in articles}
    for place, text in enumerate(texts):
        for start, end in _values(text):
            value = text[start:end]
            inside = [edit for edit in edits[place] if start <= edit.start and edit.end <= end]
            after = _apply(value, [Edit(e.start - start, e.end - start, e.text) for e in inside])
            for article in articles:
                if article == place or len(texts[article]) <= len(value) or not spans.contains(texts[article], value):
                    continue
                if not spans.contains(hidden[article], after):
                    stands = _snapped(texts[article], edits[article], *spans.find(texts[article], value)[0])
                    rest = [edit for edit in edits[place] if edit not in inside]
                    edits[place] = sorted([*rest, Edit(start, end, stands)])
                break
    return edits


def _values(text: str) -> list[tuple[int, int]]:
    """Return where an answer's values stand: the whole text, or each text of the JSON that it is."""
    if text[:1] in ("{", "["):
        return [(m.start() + 1, m.end() - 1) for m in re.finditer(TEXT, text) if 2 < len(m[0]) <= _VALUE]
    return [(0, len(text))] if text.strip() and len(text) <= _VALUE else []


def _apply(text: str, edits: Sequence[Edit]) -> str:
    return Piece(0, text, False).edited(edits)


def _snapped(text: str, edits: Sequence[Edit], start: int, end: int) -> str:
    """Write a stretch of a text with its edits, widened to those that it cuts."""
    across = [edit for edit in edits if edit.start < end and start < edit.end]
    start, end = min([start, *(e.start for e in across)]), max([end, *(e.end for e in across)])
    return _apply(text[start:end], [Edit(e.start - start, e.end - start, e.text) for e in across])


def restore(paths: Sequence[Path], folder: Path, key: Key, advance: Advance) -> int:
    """Write files with the real texts back in place into a folder; returns how many rows changed."""
    changed = 0
    with ExitStack() as files:
        streams = {path: files.enter_context(writing(folder / path.name)) for path in paths}
        for path, stream in streams.items():
            for row in read([path]):
                real = restored(row, key)
                changed += real != row.text
                stream.write(real.encode())
                advance(1)
    return changed


def restored(row: Row, key: Key) -> str:
    """Put the real texts back into a row."""
    if key.exceptions and (real := key.exceptions.get(sha(row.text))) is not None:
        return real
    old = row.pieces
    return joined(row.text, old, [_restored(piece, key) for piece in old])


def _restored(piece: Piece, key: Key) -> str:
    edits, place = [], 0
    for shown, real in key.standins_in(piece.text):
        if real is not None:
            edits.append(Edit(place, place + len(shown), real))
        place += len(shown)
    return piece.edited(edits)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while chunk := list(islice(rows, CHUNK)):
        yield chunk


@contextmanager
def _processes(size: int, known: Known | None, ginza: bool) -> Iterator[Callable[..., Iterator[tuple[list[Row], Any]]]]:
    """Yield a map over chunks, each with its result: here for little, in a process a core for much."""
    if size < WORTH_PROCESSES:
        _begin(known, ginza)
        yield lambda function, chunks: ((chunk, function(chunk)) for chunk in chunks)
        return
    processes = workers()
    with ProcessPoolExecutor(processes, initializer=_begin, initargs=(known, ginza)) as pool:

        def mapped(
            function: Callable[[list[Row]], Any], chunks: Iterator[list[Row]]
        ) -> Iterator[tuple[list[Row], Any]]:
            waiting: deque[tuple[list[Row], Future[Any]]] = deque()
            for chunk in chunks:
                waiting.append((chunk, pool.submit(function, chunk)))
                if len(waiting) > 2 * processes:
                    first, result = waiting.popleft()
                    yield first, result.result()
            yield from ((chunk, result.result()) for chunk, result in waiting)

        yield mapped


def kinds_found(found: Found) -> list[tuple[str, int, int]]:
    """Return kind, places and different texts of what was found."""
    different = Counter(kind for kind, _ in found.texts)
    return [(kind, found.counts[kind], different[kind]) for kind in KINDS if found.counts[kind]]
