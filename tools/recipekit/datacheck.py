"""Every check of a part of a data file, raw rows and segments alike."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from recipekit import rowcheck
from recipekit.errors import UserError
from recipekit.findings import Finding
from recipekit.formats import Converter, orderer
from recipekit.mending import Mender
from recipekit.raw import Chunk, key
from recipekit.rawcheck import RawChecker
from recipekit.rowcheck import OncePerText
from recipekit.segmentcheck import SegmentChecker
from recipekit.segments import take_apart
from recipekit.task import Task

BATCH = 1000  # rows tokenised at a time
REMEDY = "the model is to copy it from there: mend the label, or set verbatim: false for its column in task.yml"


@dataclass
class Checked:
    """What a part of a file came to.

    Attributes:
        lines: Lines in it.
        rows: "raw" or "segments" -> rows that could be read.
        found: Findings, their lines counted from the part's first.
        lengths: Tokens -> rows of that length.
        ids: Digest of each line's id, 0 where it has none; likewise bodies and labels.
        text: The lines, mended; those left out are empty.
    """

    lines: int
    rows: Counter[str] = field(default_factory=Counter)
    found: list[Finding] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    ids: NDArray[np.uint64] = field(init=False)
    bodies: NDArray[np.uint64] = field(init=False)
    labels: NDArray[np.uint32] = field(init=False)
    text: bytes = b""

    def __post_init__(self) -> None:
        self.ids, self.bodies = np.zeros(self.lines, np.uint64), np.zeros(self.lines, np.uint64)
        self.labels = np.zeros(self.lines, np.uint32)


class Checker:
    """Checks parts of data files of one task.

    Args:
        task: The task.
        spec: data.rows of task.yml: how raw rows are read.
        tokenizer: What rows are measured with; None leaves lengths unchecked.
        sequence_len: Tokens that a row may have.
    """

    def __init__(self, task: Task, spec: Mapping[str, Any], tokenizer: Any | None, sequence_len: int) -> None:
        self.task = task
        self.mender = Mender(task)
        self.convert = Converter(task, spec)
        self.raw, self.segments = RawChecker(task), SegmentChecker(task)
        self.labels = self.raw.labels
        self.order = orderer(task.output_schema)
        self.lengths = OncePerText(counter(tokenizer)) if tokenizer else None
        self.sequence_len = sequence_len

    def check(self, chunk: Chunk) -> Checked:
        """Check a chunk of a JSONL file."""
        with chunk.path.open("rb") as stream:
            stream.seek(chunk.start)
            lines = stream.read(chunk.size).splitlines(keepends=True)
        checked = Checked(len(lines))
        mended: list[bytes] = []
        batch: list[tuple[int, list[str]]] = []
        for number, raw in enumerate(lines, 1):
            row, text, found = self.mender.line(number, raw, first=chunk.start == 0 and number == 1)
            mended.append(text)
            checked.found += found
            if row is not None and (texts := self._row(checked, number, row)):
                batch.append((number, texts))
            if len(batch) == BATCH or number == len(lines):
                self._measure(checked, batch)
                batch = []
        checked.text = b"\n".join([*mended, b""])
        return checked

    def _row(self, checked: Checked, line: int, row: dict[str, Any]) -> list[str]:
        """Check a row; returns the texts that are trained on, none where they cannot be told."""
        is_raw = "segments" not in row
        checked.rows["raw" if is_raw else "segments"] += 1
        found, parts = self._raw(line, row) if is_raw else self._segments(line, row)
        checked.found += found
        if parts is None or not isinstance(parts["body"], str):
            return []
        body, label = parts["body"], parts["label"]
        article = self.task.clean(body) if is_raw else body
        at = line - 1
        if parts["id"] is not None:
            checked.ids[at] = key(str(parts["id"])) or 1
        checked.bodies[at] = key(article) or 1
        checked.labels[at] = key(orjson.dumps(label, option=orjson.OPT_SORT_KEYS).decode()) & 0xFFFFFFFF
        for path, value in self.labels.missing(label, article):
            what = f"{value[:40]!r} does not stand in the article; {REMEDY}"
            checked.found.append(Finding(line, "verbatim", path, what))
        if not self.lengths:
            return []
        if not is_raw:
            return [segment["text"] for segment in row["segments"]]
        return [] if found else [*self.task.render(article), self.task.answer(self.order(label))]

    def _raw(self, line: int, row: dict[str, Any]) -> tuple[list[Finding], dict[str, Any] | None]:
        try:
            parts = self.convert(row)
        except UserError as error:
            return [Finding(line, "row", "", problem) for problem in error.problems], None
        found = []
        for path, message in self.raw.problems(parts):
            has_label = isinstance(parts["label"], str if self.task.answers_are_text else dict | list)
            kind = "schema" if path.startswith("label") and has_label else "row"
            found.append(Finding(line, kind, path, message))
        return found, parts

    def _segments(self, line: int, row: dict[str, Any]) -> tuple[list[Finding], dict[str, Any] | None]:
        found = [
            Finding(line, kind, path, f"{what}; {remedy}") for kind, path, what, remedy in self.segments.problems(row)
        ]
        return found, None if any(finding.kind == "shape" for finding in found) else take_apart(self.task, row)

    def _measure(self, checked: Checked, batch: list[tuple[int, list[str]]]) -> None:
        known = self.lengths(text for _, texts in batch for text in texts) if self.lengths else {}
        for line, texts in batch:
            length = sum(known[text] for text in texts)
            checked.lengths[length] += 1
            if length > self.sequence_len:
                kind, path, what, remedy = rowcheck.too_long(length, self.sequence_len)
                checked.found.append(Finding(line, kind, path, f"{what}; {remedy}"))


def counter(tokenizer: Any) -> Callable[[list[str]], Iterable[int]]:
    """Return what counts the tokens of texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not backend:
        return lambda texts: map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
    backend.no_truncation()
    backend.no_padding()
    # Three times as fast as the tokenizer, which makes lists of the ids.
    return lambda texts: map(len, backend.encode_batch_fast(texts, add_special_tokens=False))
