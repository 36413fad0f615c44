"""Articles to predict: a JSONL or CSV file, or a folder of text files."""

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recipekit.errors import UserError
from recipekit.runs import relative

LONGEST = 2**31 - 1  # characters of a CSV cell; the library's own limit is 131,072


@dataclass(frozen=True)
class Article:
    """One article.

    Attributes:
        id: Its name in the predictions.
        body: Its text, as the feed gave it.
        place: Where it stands, file:line, for messages about it.
        pair: The second text, of rankings.
    """

    id: str
    body: str
    place: str = ""
    pair: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something that cannot be predicted, in words that name its place."""

    text: str


def pair_digest(body: str, pair: str) -> str:
    """Tell one pair of texts from another, so that evaluation can see which pair a prediction is of."""
    return hashlib.sha256((body + "\0" + pair).encode()).hexdigest()[:16]


def read_articles(path: Path, texts: Sequence[str] = ("body",)) -> tuple[list[Article], list[str]]:
    """Read what is to be predicted, as `scan` does; an id that stood before is a problem too.

    Args:
        path: File or folder.
        texts: Keys of an article's texts: "body", and "pair" of rankings.

    Returns:
        The good articles in order, and the problems of the others, one line each.

    Raises:
        UserError: As `scan`.
    """
    articles: list[Article] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for place, found in scan(path, texts):
        if isinstance(found, Problem):
            problems.append(f"{place}: {found.text}")
        elif seen.setdefault(found["id"], place) != place:
            what = f"id '{found['id']}' stands at {seen[found['id']]} already"
            problems.append(f"{place}: {what}; ids are unique, so keep one of them")
        else:
            articles.append(Article(found["id"], found["body"], place, found["pair"] if "pair" in texts else None))
    return articles, problems


def scan(path: Path, texts: Sequence[str] = ("body",)) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    """Read articles one by one: by its ending a .csv file, else JSONL, or a folder's .txt files by name.

    JSONL lines have the keys, CSV files the columns id and body; a text file's id is its name without .txt.

    Args:
        path: File or folder.
        texts: Keys that have to hold a text, beside the id.

    Yields:
        Place, file:line, with the row (id, body and whatever else it has) or something that is wrong with it.

    Raises:
        UserError: There is no such file or folder, it cannot be read, nothing is in it, or a CSV file lacks a column.
    """
    empty = True
    keys = ("id", *texts)
    try:
        for place, found in _rows(path, keys):
            empty = False
            wrong = [] if isinstance(found, Problem) else list(_wrong(found, keys))
            yield from ((place, problem) for problem in wrong)
            if not wrong:
                yield place, found
    except OSError as error:
        raise UserError(f"{relative(path)}: cannot be read ({error.strerror}); see to its rights") from None
    if empty:
        expected = "files that end in .txt" if path.is_dir() else f"articles, with {' and '.join(keys)}"
        raise UserError(f"{relative(path)}: nothing in it; expected {expected}")


def _rows(path: Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise UserError(f"{relative(path)}: no such file or folder; check the name, or make it with the step before")
    return _csv(path, keys) if path.suffix.lower() == ".csv" else _jsonl(path)


def _wrong(row: dict[str, Any], keys: Sequence[str]) -> Iterator[Problem]:
    for key in keys:
        value = row.get(key)
        if not isinstance(value, str) or not value.strip():
            yield Problem(f"'{key}': expected text, found {str(value)[:40]!r}; add it, or remove the row")


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    with path.open("rb") as stream:
        for line, text in enumerate(stream, 1):
            place = f"{relative(path)}:{line}"
            try:
                row = orjson.loads(text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text)
            except orjson.JSONDecodeError as error:
                yield place, _not_utf8(text) or Problem(f"not valid JSON: {error}; mend or remove the line")
                continue
            expected = f"expected a JSON object, found {type(row).__name__}; mend or remove the line"
            yield place, row if isinstance(row, dict) else Problem(expected)


def _csv(path: Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    content = path.read_bytes()
    if _not_utf8(content):  # where one line is in another encoding, so are the others
        lines = content.splitlines()
        line, problem = next((n, bad) for n, text in enumerate(lines, 1) if (bad := _not_utf8(text)))
        raise UserError(f"{relative(path)}:{line}: {problem.text}")
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    columns = reader.fieldnames or []
    missing = [key for key in keys if key not in columns]
    if columns and missing:
        found = ", ".join(columns)
        raise UserError(f"{relative(path)}:1: no column {' and '.join(missing)}; the columns are {found}; rename them")
    line = reader.line_num + 1
    try:
        for row in reader:
            more = Problem("more cells than columns; put text that has commas or quotes in it into quotes")
            yield f"{relative(path)}:{line}", more if None in row else row
            line = reader.line_num + 1
    except csv.Error as error:
        yield f"{relative(path)}:{line}", Problem(f"not valid CSV: {error}; mend the quotes of this row")


def _folder(path: Path) -> Iterator[tuple[str, dict[str, Any] | Problem]]:
    for file in sorted(file for file in path.iterdir() if file.suffix == ".txt" and not file.is_dir()):
        place = os.fsencode(relative(file)).decode(errors="backslashreplace")
        if _not_utf8(os.fsencode(file.name)):
            yield place, Problem("the name is not UTF-8; rename it, or unpack its archive anew (unzip -O cp932)")
            continue
        try:
            content = file.read_bytes()
        except OSError as error:
            yield place, Problem(f"cannot be read ({error.strerror}); see to its rights, or remove it")
            continue
        yield f"{place}:1", _not_utf8(content) or {"id": file.stem, "body": content.decode("utf-8-sig")}


def _not_utf8(text: bytes) -> Problem | None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8, at byte {error.start + 1} of it; save the file as UTF-8 (Excel: CSV UTF-8)")
    return None
