"""Data files checked from the first byte to the last token, on every core, and mended copies of them."""

import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import orjson

from recipekit import hub, parallel, raw, rawfiles, rowcheck, traps
from recipekit.datacheck import Checked, Checker
from recipekit.errors import UserError
from recipekit.findings import Finding, Tally
from recipekit.mending import as_utf8
from recipekit.repeats import repeats
from recipekit.runs import relative, writing
from recipekit.task import Task, load_task

SHARES = {"min": 0.0, "median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
LEFT_OUT = ("blank", "twice")
Note = Callable[[Path, Finding], None]


@dataclass(frozen=True)
class Limit:
    """What rows are measured with.

    Attributes:
        tokenizer: Folder or name on the Hub of the recipe's tokenizer.
        revision: Its revision.
        tokens: The least sequence_len of the phases.
        phase: The phase that it is of.
    """

    tokenizer: str
    revision: str | None
    tokens: int
    phase: str


@dataclass
class Copy:
    """A mended copy that is to be written.

    Attributes:
        path: Where to.
        fixes: Where the list of what was changed goes.
        drop: Whether rows that cannot be mended are left out.
    """

    path: Path
    fixes: Path
    drop: bool


@dataclass
class Report:
    """What a file came to.

    Attributes:
        path: The file.
        rows: "raw" or "segments" -> rows that could be read.
        lengths: Tokens -> rows of that length.
        tally: What was found.
        written: Rows of the mended copy.
        mended: Things that were changed in it.
        left_out: Rows and blank lines that it lacks.
        left: Errors that the copy still has; without one, those of the file.
    """

    path: Path
    rows: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)
    written: int = 0
    mended: int = 0
    left_out: int = 0
    left: int = 0


def limit(task: Task, profile: str) -> Limit:
    """Find the tokenizer and the least sequence_len of a task's phases on a profile.

    Raises:
        UserError: A phase's YAML is wrong.
    """
    _, configs, problems = traps.load_configs(task, profile)
    if problems:
        raise UserError(problems)
    least = min(configs, key=lambda config: int(config.values.get("sequence_len") or 512))
    name = rowcheck.tokenizer_name(least.values)
    tokens = int(least.values.get("sequence_len") or 512)
    return Limit(name, least.values.get("revision_of_model"), tokens, least.phase)


def validate(
    task: Task, path: Path, measure: Limit | None, note: Note, advance: Callable[[int], None], copy: Copy | None
) -> Report:
    """Check a file, and write a mended copy of it.

    Args:
        task: Says what rows have to be like.
        path: A JSONL file, raw or segments.
        measure: What rows are measured with; None leaves lengths unchecked.
        note: Called with every finding.
        advance: Called with the number of lines that were checked since.
        copy: None writes nothing.

    Raises:
        UserError: The file is missing or empty, or a file cannot be read or written.
    """
    report = Report(path)
    with ExitStack() as stack:
        try:
            source, encoding = stack.enter_context(as_utf8(path))
            writer = Writer(copy, stack, report) if copy else None

            def add(finding: Finding) -> None:
                report.tally.add(finding)
                note(path, finding)
                if writer:
                    writer.add(finding)

            keys = _check(_parts(task, path, source, measure), report, add, advance, writer)
            if encoding:
                add(Finding(1, "encoding", "", f"the file is {encoding}; save it as UTF-8", encoding, "UTF-8"))
            if writer:
                writer.forget(keys)
            for finding in sorted(repeats(*keys)):
                add(finding)
            report.left = report.tally.errors
            if writer:
                writer.end()
        except OSError as error:
            place = relative(Path(error.filename)) if isinstance(error.filename, str) else relative(path)
            raise UserError(f"{place}: {error.strerror or error}; see to its rights and to room on the disk") from None
    return report


def _check(
    parts: Iterator[Checked],
    report: Report,
    add: Callable[[Finding], None],
    advance: Callable[[int], None],
    writer: "Writer | None",
) -> list[np.ndarray]:
    """Gather what the parts of a file came to; returns the digests of ids, articles and labels of its lines."""
    columns: list[list[np.ndarray]] = [[], [], []]
    line = 0
    for part in parts:
        if writer:
            writer.text(part)
        for finding in part.found:
            add(finding._replace(line=line + finding.line))
        report.rows += part.rows
        report.lengths += part.lengths
        columns[0].append(part.ids)
        columns[1].append(part.bodies)
        columns[2].append(part.labels)
        line += part.lines
        advance(part.lines)
    return [np.concatenate(column) for column in columns]


class Writer:
    """Writes a mended copy and the list of what was changed; both appear once all is well.

    Args:
        copy: Where to.
        stack: What files are open until.
        report: Where it counts.
    """

    def __init__(self, copy: Copy, stack: ExitStack, report: Report) -> None:
        self.drop, self.report = copy.drop, report
        copy.path.parent.mkdir(parents=True, exist_ok=True)
        self.mended = stack.enter_context(TemporaryFile(dir=copy.path.parent))  # noqa: SIM115, the stack closes it
        self.copy = stack.enter_context(writing(copy.path))
        self.fixes = stack.enter_context(writing(copy.fixes))
        self.out = bytearray()  # of each line, whether the copy lacks it
        self.errors = array("I")  # of each line, what cannot be mended

    def text(self, part: Checked) -> None:
        """Take the next lines."""
        self.mended.write(part.text)
        self.out.extend(bytes(part.lines))
        self.errors.extend(array("I", [0]) * part.lines)

    def add(self, finding: Finding) -> None:
        """List what is changed by a finding, if anything is."""
        unmended = finding.after is None and finding.severity == "error"
        self.errors[finding.line - 1] += unmended
        dropped = self.drop and unmended
        left_out = dropped or finding.kind in LEFT_OUT
        if finding.after is None and not dropped:
            return
        if left_out:
            self.out[finding.line - 1] = 1
        entry = {"line": finding.line, "left_out": left_out, **finding._asdict()}
        self.fixes.write(orjson.dumps(entry) + b"\n")
        self.report.mended += not left_out

    def forget(self, keys: list[np.ndarray]) -> None:
        """Take rows that are left out for no repetition of others, nor others for theirs."""
        for column in keys if self.drop else ():
            column[np.frombuffer(bytes(self.out), bool)] = 0

    def end(self) -> None:
        """Write the copy."""
        self.mended.seek(0)
        for text, out in zip(self.mended, self.out, strict=True):
            if not out:
                self.copy.write(text)
        self.report.left = sum(errors for errors, out in zip(self.errors, self.out, strict=True) if not out)
        self.report.left_out = sum(self.out)
        self.report.written = len(self.out) - self.report.left_out


def _checker_here(name: str, root: Path, spec: dict[str, Any], measure: Limit | None) -> Callable[[raw.Chunk], Checked]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core has a process already
    return _checker_of(load_task(name, root), spec, measure).check


def _checker_of(task: Task, spec: dict[str, Any], measure: Limit | None) -> Checker:
    if measure is None:
        return Checker(task, spec, None, 0)
    tokenizer = rowcheck.load_tokenizer(task.root, measure.tokenizer, measure.revision, hub.find_token(task.root))
    return Checker(task, spec, tokenizer, measure.tokens)


def _parts(task: Task, path: Path, source: Path, measure: Limit | None) -> Iterator[Checked]:
    """Check a file's chunks, in order; `path` is the one that task.yml may know, by name, `source` what is read."""
    names = (path.name, path.name.replace(".fixed", ""))
    known = [file for file in rawfiles.files(task, task.source_dir)[0] if file.path.name in names]
    spec = known[0].spec if known else task.spec["data"].get("rows", {})
    checker = _checker_of(task, spec, measure)  # processes that are forked find the tokenizer loaded
    if source.stat().st_size <= raw.CHUNK or raw.workers() == 1:
        yield from map(checker.check, raw.chunks(source))
    else:
        yield from parallel.in_order(partial(_checker_here, task.name, task.root, spec, measure), raw.chunks(source))


def percentiles(lengths: Counter[int]) -> dict[str, int]:
    """Return the least, middle, ... length (the nearest rank); nothing of no rows."""
    total, seen = lengths.total(), 0
    wanted = {name: max(1, math.ceil(share * total)) for name, share in SHARES.items()} if total else {}
    found: dict[str, int] = {}
    for length, rows in sorted(lengths.items()):
        seen += rows
        found |= {name: length for name, rank in wanted.items() if rank <= seen and name not in found}
    return found
