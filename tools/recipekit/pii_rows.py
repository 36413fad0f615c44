"""The texts inside a row of a file, byte for byte: JSONL strings with escapes, CSV cells, or a whole text file."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from recipekit.errors import UserError
from recipekit.runs import relative

SUFFIXES = (".jsonl", ".csv", ".txt")
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|(?<![\w.+-])-?([0-9]{10,})(?![\w.])')
_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"|([^",\r\n]+)')
_ESCAPE = re.compile(
    r"\\{1,2}u(?P<hex>[0-9a-fA-F]{4})|\\{1,2}(?P<control>[nrtbf])|\\(?P<letter>.)|(?P<plain>[^\\]+)", re.DOTALL
)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_IDS = re.compile(r"(?:.*_)?id", re.IGNORECASE)


class Edit(NamedTuple):
    """What comes in place of characters start to end of a text."""

    start: int
    end: int
    text: str


class Piece:
    """One text of a row.

    Attributes:
        start: Where it begins in the row.
        raw: How it is written in the file.
    """

    def __init__(self, start: int, raw: str, escaped: bool) -> None:
        self.start, self.raw = start, raw
        self._plain = not escaped or "\\" not in raw

    @cached_property
    def _view(self) -> tuple[str, list[int]]:
        r"""The text without escapes, those of JSON inside a JSON string (\\u7530) too, and where each character is."""
        text: list[str] = []
        places: list[int] = []
        for match in _ESCAPE.finditer(self.raw):
            if match["plain"]:
                text += match["plain"]
                places += range(match.start(), match.end())
            else:
                control = _CONTROLS.get(match["control"] or "")
                text.append(chr(int(match["hex"], 16)) if match["hex"] else control or match["letter"])
                places.append(match.start())
        places.append(len(self.raw))
        for place in range(len(text) - 2, -1, -1):  # the two halves of a character beyond U+FFFF
            if "\ud800" <= text[place] <= "\udbff" and "\udc00" <= text[place + 1] <= "\udfff":
                pair = (text[place] + text[place + 1]).encode("utf-16", "surrogatepass").decode("utf-16")
                text[place : place + 2] = [pair]
                del places[place + 1]
        return "".join(text), places

    @property
    def text(self) -> str:
        """What it says, without escapes."""
        return self.raw if self._plain else self._view[0]

    def edited(self, edits: Iterable[Edit]) -> str:
        """Write the piece with edits, in order and none overlapping; what stood escaped is escaped again."""
        written, behind = [], 0
        for start, end, text in edits:
            first, last = (start, end) if self._plain else (self._view[1][start], self._view[1][end])
            written += [self.raw[behind:first], text if self._plain else _escaped(text, self.raw[first:last])]
            behind = last
        return "".join([*written, self.raw[behind:]])


def _escaped(text: str, like: str) -> str:
    match = re.match(r"(\\+u)([0-9a-fA-F]{4})", like)
    if not match:
        return text
    codes = re.findall(
        "..",
        text.encode("utf-16-be").hex()
        if not re.search(r"u[0-9a-f]*[A-F]", like)
        else text.encode("utf-16-be").hex().upper(),
    )
    return "".join(match[1] + high + low for high, low in zip(codes[::2], codes[1::2], strict=True))


def read_rows(path: Path) -> Iterator[tuple[int, str]]:
    """Read a file row by row: a JSONL line, a CSV record, or the whole of a text file.

    Yields:
        1-based line of its beginning and the row as written, with its line break; joined they are the file.

    Raises:
        UserError: It is missing, of another kind, not UTF-8, or cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{relative(path)}: expected a file that ends in {', '.join(SUFFIXES)}")
    try:
        with path.open("rb") as stream:
            if path.suffix.lower() == ".txt":
                if content := stream.read():
                    yield 1, _decoded(path, 1, content)
                return
            first, row = 1, b""
            for line, raw in enumerate(stream, 1):
                row += raw
                if path.suffix.lower() == ".csv" and row.count(b'"') % 2:
                    continue
                yield first, _decoded(path, first, row)
                first, row = line + 1, b""
            if row:
                yield first, _decoded(path, first, row)
    except FileNotFoundError:
        raise UserError(f"{relative(path)}: no such file; check the name") from None
    except OSError as error:
        raise UserError(f"{relative(path)}: cannot be read ({error.strerror}); see to its rights") from None


def _decoded(path: Path, line: int, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        raise UserError(f"{relative(path)}:{line}: not UTF-8; save the file as UTF-8 (Excel: CSV UTF-8)") from None


def pieces(row: str, suffix: str, header: list[str] | None = None) -> list[Piece]:
    """Take the texts out of a row; keys, ids and short numbers stay with the row.

    Args:
        row: As `read_rows` yields it.
        suffix: The file's ending.
        header: The names of a CSV file's columns; None for the row that has them, which has no texts.
    """
    if suffix == ".txt":
        return [Piece(0, row, False)]
    if suffix == ".csv":
        cells = list(_cells(row)) if header is not None else []
        names = [*(header or []), *[""] * len(cells)]
        return [
            Piece(start, cell, False)
            for (start, cell), name in zip(cells, names, strict=False)
            if not _IDS.fullmatch(name)
        ]
    found, key = [], ""
    for match in _LITERAL.finditer(row):
        if match[2]:
            key = match[1]
            continue
        if not _IDS.fullmatch(key):
            group = 1 if match[1] is not None else 3
            found.append(Piece(match.start(group), match[group], True))
        if row[match.end() : match.end() + 1] not in (",", " ") or "[" not in row[: match.start()]:
            key = ""
    return found


def _cells(row: str) -> Iterator[tuple[int, str]]:
    """Yield where each cell of a CSV record begins, and it, without the quotes around.

    Raises:
        ValueError: Something stands in the record that is no cell.
    """
    place = 0
    while True:
        match = _CELL.match(row, place)
        if match:
            group = 1 if match[1] is not None else 2
            yield match.start(group), match[group]
            place = match.end()
        else:
            yield place, ""
        if row[place : place + 1] != ",":
            break
        place += 1
    if row[place:] not in ("", "\n", "\r\n"):
        what = "a quote" if '"' in row[place : place + 1] else "a line break" if row[place] == "\r" else "text"
        raise ValueError(f"{what} where a comma or the end of the row is expected")


def csv_problem(row: str, line: int) -> str | None:
    """Say why the CSV record that begins in a line cannot be cut into cells; None: it can."""
    try:
        deque(_cells(row.removeprefix("\ufeff") if line == 1 else row), 0)
    except ValueError as error:
        return f"not valid CSV: {error}; put a cell that has quotes in it into quotes and double those inside"
    return None


def columns(row: str) -> list[str]:
    """Read the names of a CSV file's columns."""
    return [name.strip().replace('""', '"') for _, name in _cells(row.removeprefix("\ufeff"))]


def joined(row: str, old: list[Piece], new: list[str]) -> str:
    """Write a row with other texts in place of its pieces."""
    written, behind = [], 0
    for piece, text in zip(old, new, strict=True):
        written += [row[behind : piece.start], text]
        behind = piece.start + len(piece.raw)
    return "".join([*written, row[behind:]])
