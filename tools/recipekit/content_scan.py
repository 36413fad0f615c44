"""What data files hold that must not go out: personal data and secrets, by kind and place, with the rows' shape."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from typing import Any

import pyarrow as pa

from recipekit import parallel, pii, raw, secret_scan
from recipekit.errors import UserError
from recipekit.pii import Scanner
from recipekit.raw import Chunk
from recipekit.runs import relative

KINDS = (*pii.KINDS, secret_scan.SECRET, secret_scan.OWN)
PLACES = 3  # kept of each kind
PROBLEMS = 20  # kept of a file
LONG = 10**9  # numbers from here on are looked at; below are years, ages and counts
SMALL = 2**18  # bytes that are scanned before other processes would have started
_ANOTHER_TYPE = "another type than before, which datasets cannot load ({}); write a key's values in one type"
TYPE_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)


@dataclass
class Found:
    """What a file, or a chunk of it, holds.

    Attributes:
        path: The file.
        rows: Rows read.
        lines: Lines that a chunk was; 0 where its lines are counted from the file's first.
        counts: Kind -> findings.
        unsure: Kind -> findings of a weak rule, which are not in counts.
        places: Kind -> line and starred value of the first findings.
        problems: Line and what is wrong with it, the first ones.
        wrong: Problems that there are.
        type: Arrow type of a row, with every key that occurs.
    """

    path: Path
    rows: int = 0
    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unsure: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    problems: list[tuple[int, str]] = field(default_factory=list)
    wrong: int = 0
    type: pa.StructType = field(default_factory=lambda: pa.struct([]))

    def add(self, other: "Found") -> None:
        """Append the findings of the file's next chunk, whose lines are counted from its own first."""
        for kind, places in other.places.items():
            self.places[kind] += [(self.lines + line, value) for line, value in places]
            del self.places[kind][PLACES:]
        for line, what in other.problems:
            self.problem(self.lines + line, what)
        self.wrong += other.wrong - len(other.problems)
        try:
            self.type = merged(self.type, other.type)
        except TYPE_ERRORS as error:
            self.problem(self.lines + 1, f"here or behind it, {_ANOTHER_TYPE.format(other_type(error))}")
        self.counts += other.counts
        self.unsure += other.unsure
        self.rows += other.rows
        self.lines += other.lines

    def problem(self, line: int, what: str) -> None:
        """Note what is wrong with a line."""
        self.wrong += 1
        if len(self.problems) < PROBLEMS:
            self.problems.append((line, what))


class RowScanner:
    """Scans chunks of rows, whatever keys they have."""

    def __init__(self, own: str | None) -> None:
        """Prepare the scan; `own` is the Hub's token of this machine."""
        self.own = own
        self.pii = lru_cache(4096)(Scanner().scan)  # labels and prompts repeat

    def scan(self, chunk: Chunk) -> Found:
        """Scan every key and text of a chunk's rows."""
        found = Found(chunk.path)
        rows: list[tuple[int, dict[str, Any]]] = []
        for line, row in chunk.rows(1):
            if isinstance(row, str):
                found.problem(line, row)
                continue
            rows.append((line, row))
            for kind, value in self._findings(list(texts(row)), found.unsure):
                found.counts[kind] += 1
                if len(found.places[kind]) < PLACES:
                    found.places[kind].append((line, value))
        found.rows, found.lines = len(rows), chunk.lines
        try:
            found.type = pa.array([row for _, row in rows], pa.struct([]) if not rows else None).type
        except TYPE_ERRORS:
            found.problem(*_first_of_another_type(rows))
        return found

    def _findings(self, texts: list[str], unsure: Counter[str]) -> Iterator[tuple[str, str]]:
        """Yield kind and starred value of what is in a row's texts; what is not sure is only counted."""
        for secret in secret_scan.find("\n".join(texts), self.own):
            yield secret.kind, secret.name
        for text in filter(None, texts):
            for finding in self.pii(text):
                if finding.sure:
                    yield finding.kind, starred(finding.text)
                else:
                    unsure[finding.kind] += 1


def texts(value: Any) -> Iterator[str]:
    """Yield every key and text of a JSON value, and its long numbers: a card's, say."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float):
        if LONG <= abs(value) < inf:
            yield str(int(value))
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


def starred(value: str) -> str:
    """Show how a value begins and how long it is."""
    return value[:1] + "*" * min(len(value) - 1, 11) if len(value) > 1 else "*"


def merged(first: pa.StructType, second: pa.StructType) -> pa.StructType:
    """Merge two types of rows: every key of either.

    Raises:
        TYPE_ERRORS: A key's types do not go together.
    """
    return pa.struct(
        list(pa.unify_schemas([pa.schema(list(first)), pa.schema(list(second))], promote_options="permissive"))
    )


def _first_of_another_type(rows: list[tuple[int, dict[str, Any]]]) -> tuple[int, str]:
    kind = pa.struct([])
    for line, row in rows:
        try:
            kind = merged(kind, pa.array([row]).type)
        except TYPE_ERRORS as error:
            return line, _ANOTHER_TYPE.format(other_type(error))
    return rows[0][0], "keys have values of several types; write each in one type"


def other_type(error: Exception) -> str:
    """Say which key has which two types: `label.age: string vs int64`."""
    text = str(error).splitlines()[0]
    key = ".".join(re.findall(r"Field (\S+) has incompatible types", text))
    return f"{key}: {text.rsplit('types: ')[-1]}" if key else text


def scan(
    paths: list[Path], own: str | None, advance: Callable[..., None], short: Collection[Path] = ()
) -> dict[Path, Found]:
    """Scan JSONL, JSON or CSV files, on every core where there is much to do.

    Args:
        paths: The files.
        own: The Hub's token of this machine.
        advance: Called with the number of rows after each chunk.
        short: Those of the files, gold files, whose rows may lack their last cells.

    Raises:
        UserError: Lines cannot be read, or rows cannot be loaded together; all at once, of each file the first ones.
    """
    results = {path: Found(path) for path in paths}
    problems: list[str] = []

    def chunks() -> Iterator[Chunk]:
        for path in paths:
            try:
                yield from raw.chunks(path, unique=True, short=path in short)
            except UserError as error:
                problems.extend(error.problems)

    make = partial(_scanner, own)
    small = sum(path.stat().st_size for path in paths) < SMALL
    for found in map(make(), chunks()) if small else parallel.in_order(make, chunks()):
        results[found.path].add(found)
        advance(found.rows)
    for path, found in results.items():
        problems += [f"{relative(path)}:{line}: {what}" for line, what in found.problems]
        if found.wrong > len(found.problems):
            problems.append(f"{relative(path)}: and {found.wrong - len(found.problems):,} more")
    if problems:
        raise UserError(problems)
    return results


def _scanner(own: str | None) -> Callable[[Chunk], Found]:
    return RowScanner(own).scan
