"""What validation finds in data files: kinds, tallies and the list of all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from recipekit.runs import relative, writing

NAMED = 3  # places of each kind that are kept in memory


class Kind(NamedTuple):
    """What a kind of finding means: "error" where training fails or is spoiled, else "warning"; and its name."""

    severity: str
    title: str


KINDS = {
    "encoding": Kind("error", "not UTF-8"),
    "bytes": Kind("error", "no encoding for sure"),
    "bom": Kind("warning", "byte order mark"),
    "crlf": Kind("warning", "Windows line ends"),
    "cr": Kind("error", "lines end in a lone CR"),
    "blank": Kind("error", "blank line"),
    "control": Kind("error", "control characters"),
    "json": Kind("error", "no JSON object"),
    "row": Kind("error", "no article or no label"),
    "shape": Kind("error", "empty or missing segments"),
    "mask": Kind("error", "wrong mask"),
    "untrained": Kind("error", "nothing is trained"),
    "prompt": Kind("error", "another prompt than today's"),
    "eos": Kind("error", "no EOS at the end"),
    "answer": Kind("error", "answer is no JSON"),
    "schema": Kind("error", "label does not fit the schema"),
    "verbatim": Kind("warning", "value not in the article"),
    "long": Kind("error", "too long"),
    "twice": Kind("error", "row stands there twice"),
    "id": Kind("error", "id repeats"),
    "conflict": Kind("error", "same article, other label"),
    "again": Kind("warning", "same article again"),
}


class Finding(NamedTuple):
    """Something wrong with a line of a data file.

    Attributes:
        line: 1-based.
        kind: One of KINDS.
        path: Where in the row; "" for the whole.
        message: What was found, what was expected and what to do.
        before: Of what can be mended with certainty: what stands there, in short.
        after: What it is mended to; "" where it is left out, None where it cannot be mended.
    """

    line: int
    kind: str
    path: str
    message: str
    before: str | None = None
    after: str | None = None

    @property
    def severity(self) -> str:
        """Tell an "error" from a "warning"."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


@dataclass
class Tally:
    """How often each kind was found in a file, and the first places.

    Attributes:
        counts: Kind -> findings.
        first: Kind -> the first few.
        errors: Findings that are errors.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[Finding]] = field(default_factory=dict)
    errors: int = 0

    def add(self, finding: Finding) -> None:
        """Count a finding."""
        self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
        first = self.first.setdefault(finding.kind, [])
        if len(first) < NAMED:
            first.append(finding)
        self.errors += finding.severity == "error"


class Listing:
    """A JSON file of all findings, written as they come."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.separator = b'{"findings": [\n'

    def add(self, path: Path, finding: Finding) -> None:
        """Write a finding about a file."""
        entry = {"file": relative(path), "severity": finding.severity, **finding._asdict()}
        self.stream.write(self.separator + orjson.dumps(entry))
        self.separator = b",\n"

    def end(self, summary: dict[str, Any]) -> None:
        """Write what follows all findings."""
        opening = self.separator if self.separator.startswith(b"{") else b""
        self.stream.write(opening + b"\n], " + orjson.dumps(summary, option=orjson.OPT_INDENT_2)[1:] + b"\n")


@contextmanager
def listing(path: Path | None) -> Iterator[Listing | None]:
    """Open a JSON file for findings, whole or not at all; none without a path."""
    if path is None:
        yield None
        return
    with writing(path) as stream:
        yield Listing(stream)
