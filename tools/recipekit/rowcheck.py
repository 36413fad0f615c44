"""Training data as Axolotl will see it: every row's shape, mask, prompt, answer and length."""

import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from recipekit import windows
from recipekit.chat_tokens import ChatRowChecker, ChatTokenChecker, sample_chat, template_problems
from recipekit.errors import UserError
from recipekit.models import SAFE
from recipekit.regression import Head
from recipekit.regressioncheck import LengthChecker, RegressionRowChecker
from recipekit.runs import relative
from recipekit.segmentcheck import REDO, Problem, SegmentChecker
from recipekit.segments import encode, encode_row, read_jsonl, take_apart
from recipekit.task import Task

BATCH = 1000  # rows tokenised at a time
NAMED = 3  # offenders named of each kind
T = TypeVar("T")


@dataclass
class FileReport:
    """What a data file holds.

    Attributes:
        rows: Rows read.
        longest: Tokens of the longest row.
        cut: Rows with more tokens than training takes, of a regression, which reads the beginning of such rows.
        problems: One line each; of each kind the first offenders by file:line, and how many more there are.
        sample: The first row's text, cut where training begins or ends; (text, is trained) each.
    """

    rows: int = 0
    longest: int = 0
    cut: int = 0
    problems: list[str] = field(default_factory=list)
    sample: list[tuple[str, bool]] = field(default_factory=list)


def check_file(
    task: Task, path: Path, tokenizer: Any | None, sequence_len: int, heads: dict[str, Head] | None = None
) -> FileReport:
    """Check every row of a segments file, of a chat's conversations, or of a regression's rows.

    Args:
        task: Says what prompt and answer have to look like.
        path: A JSONL file of segments, or of texts and labels.
        tokenizer: The one that training uses; None leaves the tokens unchecked.
        sequence_len: Tokens a row may have.
        heads: What a regression's rows are for; None: the file holds segments.
    """
    report = FileReport()
    offenders: dict[str, list[str]] = defaultdict(list)
    rows_checker, tokens_checker = _checkers(task, tokenizer, sequence_len, heads)
    rows = read_jsonl(path)
    broken: list[str] = []
    while batch := _take(rows, broken):
        report.rows += len(batch)
        sound = []
        for line, row in batch:
            found = list(rows_checker.problems(row))
            if not any(problem.kind == "shape" for problem in found):
                sound.append((line, row))
            _note(offenders, line, found)
        for line, length, found in tokens_checker.problems(sound) if tokens_checker else ():
            report.longest = max(report.longest, length)
            report.cut += length > sequence_len
            _note(offenders, line, found)
        if sound and tokenizer and not report.sample:
            first = sound[0][1]
            report.sample = _told(first) if heads else (sample_chat if task.is_chat else sample)(tokenizer, first)
    report.problems = broken + list(_lines(path, offenders))
    return report


def _told(row: dict[str, Any]) -> list[tuple[str, bool]]:
    labels = row.get("labels") or {}
    texts = "\n".join(row[key] for key in ("body", "pair") if key in row)
    return [(texts + "\n", False), (", ".join(f"{name} {value}" for name, value in labels.items()), True)]


def _note(offenders: dict[str, list[str]], line: int, found: list[Problem]) -> None:
    for _, path, what, remedy in found:
        offenders[remedy].append(f"{line}: {path}: {what}" if path else f"{line}: {what}")


def _take(rows: Iterator[tuple[int, dict[str, Any]]], broken: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """Take a batch of rows; the reader's complaints, which come after its last row, go to `broken`."""
    batch = []
    try:
        for item in islice(rows, BATCH):
            batch.append(item)  # noqa: PERF402, those before the complaint count
    except UserError as error:
        broken += error.problems
    return batch


def _lines(path: Path, offenders: dict[str, list[str]]) -> Iterator[str]:
    for remedy, places in offenders.items():
        for place in places[:NAMED]:
            yield f"{relative(path)}:{place}; {remedy}"
        if len(places) > NAMED:
            yield f"{relative(path)}: {len(places) - NAMED:,} more rows like these; {remedy}"


class OncePerText(Generic[T]):
    """What is made of texts, batch after batch; of one that rows share, such as the prompt's, it is made once.

    Args:
        make: Makes something of each text.
    """

    def __init__(self, make: Callable[[list[str]], Iterable[T]]) -> None:
        self.make = make
        self.known: dict[str, T] = {}

    def __call__(self, texts: Iterable[str]) -> dict[str, T]:
        """Return what is made of each text of a batch; what this batch lacks is forgotten."""
        wanted = dict.fromkeys(texts)
        self.known = {text: self.known[text] for text in wanted if text in self.known}
        new = [text for text in wanted if text not in self.known]
        if new:
            self.known.update(zip(new, self.make(new), strict=True))
        return self.known


class TokenChecker:
    """Checks a row's tokens."""

    def __init__(self, task: Task, tokenizer: Any, sequence_len: int) -> None:
        """Take the tokenizer and the tokens that a row may have."""
        self.task = task
        self.redo = REDO.format(task.name)
        self.prompt = task.spec["prompt"]
        self.tokenizer = tokenizer
        self.sequence_len = sequence_len
        self.tokens: OncePerText[list[int]] = OncePerText(
            lambda texts: tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        )
        self.known: dict[str, list[int]] = {}  # of the batch
        added = tokenizer.added_tokens_decoder
        self.special = {token for token in added if added[token].special} - {tokenizer.unk_token_id}
        # Those that the prompt's own texts have; the answer has its eos.
        self.own = [self._specials(encode(tokenizer, [text])) for text in task.render("")]

    def problems(self, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, int, list[Problem]]]:
        """Yield line, length in tokens and problems of each row of a batch."""
        self.known = self.tokens(segment["text"] for _, row in rows for segment in row["segments"])
        for line, row in rows:
            found = [*self._row(row["segments"]), *self._quoted(row["segments"]), *self._prediction(row)]
            yield line, sum(len(self.known[s["text"]]) for s in row["segments"]), found

    def _row(self, segments: list[dict[str, Any]]) -> Iterator[Problem]:
        ids = [self.known[segment["text"]] for segment in segments]
        length = sum(map(len, ids))
        if length > self.sequence_len:
            yield too_long(length, self.sequence_len)
        if not any(tokens for tokens, segment in zip(ids, segments, strict=True) if segment["label"]):
            remedy = "such a row teaches nothing, its loss is NaN; remove it or mend its mask"
            yield Problem("untrained", "", "no token is trained", remedy)
        # Where the text itself lacks its bos or eos, the row's own check has said so.
        if segments[-1]["text"].endswith(self.prompt["eos"]) and ids[-1][-1:] != [self.tokenizer.eos_token_id]:
            yield self._special("eos", ids[-1][-1:], "last")
        bos = self.prompt["bos"]
        if bos and segments[0]["text"].startswith(bos) and ids[0][:1] != [self.tokenizer.bos_token_id]:
            yield self._special("bos", ids[0][:1], "first")

    def _specials(self, ids: list[int]) -> list[int]:
        return [] if self.special.isdisjoint(ids) else [token for token in ids if token in self.special]

    def _quoted(self, segments: list[dict[str, Any]]) -> Iterator[Problem]:
        """Find special tokens that an article or an answer quotes, and that the model would take for real ones."""
        eos = self.tokenizer.eos_token_id
        for i, segment in enumerate(segments):
            own = [eos] if i == len(segments) - 1 else self.own[i] if i < len(self.own) else []
            found = self._specials(self.known[segment["text"]])
            if extra := list((Counter(found) - Counter(own)).elements()):
                name = self.tokenizer.convert_ids_to_tokens(extra[:1])[0]
                remedy = f"name it under prompt.special_tokens in task.yml, then {self.redo}"
                yield Problem("special", f"segments[{i}].text", f"the text {name!r} becomes a special token", remedy)

    def _prediction(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Compare the row's prompt, token by token, with the one that prediction makes of its article."""
        body = take_apart(self.task, row)["body"]
        texts = [segment["text"] for segment in row["segments"] if not segment["label"]]
        if not texts or texts != self.task.prompt(body):
            return  # which the row's own check has said
        trained = [token for text in texts for token in self.known[text]]
        [predicted] = windows.prompts(self.task, self.tokenizer, body, sys.maxsize)
        if predicted != trained:
            at = len(os.path.commonprefix([predicted, trained]))
            own, other = (self.tokenizer.convert_ids_to_tokens(ids[at : at + 3]) for ids in (trained, predicted))
            detail = f"token {at + 1} of the prompt: trained on {own}, where prediction gives {other}"
            remedy = "what is trained on and what is predicted from differ; mend recipekit/windows.py"
            yield Problem("prompt", "", detail, remedy)

    def _special(self, name: str, token: list[int], place: str) -> Problem:
        found = self.tokenizer.convert_ids_to_tokens(token)
        own = getattr(self.tokenizer, f"{name}_token")
        detail = f"the {place} token is {found}, not {own!r}, the tokenizer's {name}"
        return Problem("special", "", detail, f"write the tokenizer's {name} as prompt.{name} in task.yml")


def _checkers(
    task: Task, tokenizer: Any | None, sequence_len: int, heads: dict[str, Head] | None
) -> tuple[
    RegressionRowChecker | ChatRowChecker | SegmentChecker, LengthChecker | ChatTokenChecker | TokenChecker | None
]:
    """Return what judges a task's rows, and, where there is a tokenizer, their tokens."""
    if heads:
        return RegressionRowChecker(task, heads), LengthChecker(tokenizer) if tokenizer else None
    if task.is_chat:
        return ChatRowChecker(task), ChatTokenChecker(task, tokenizer, sequence_len) if tokenizer else None
    return SegmentChecker(task), TokenChecker(task, tokenizer, sequence_len) if tokenizer else None


def too_long(length: int, sequence_len: int) -> Problem:
    """Say that a row has more tokens than training takes."""
    found = f"{length:,} tokens, over sequence_len {sequence_len:,}"
    return Problem("long", "", found, "shorten or remove the article, or raise sequence_len")


def sample(tokenizer: Any, row: dict[str, Any]) -> list[tuple[str, bool]]:
    """Cut a row's tokens where training begins or ends, and read them back: what the model sees, not what was meant."""
    runs: list[tuple[list[int], bool]] = []
    for token, trained in zip(*encode_row(tokenizer, row), strict=True):
        if not runs or runs[-1][1] != trained:
            runs.append(([], trained))
        runs[-1][0].append(token)
    return [(tokenizer.decode(ids, skip_special_tokens=False), trained) for ids, trained in runs]


def check_jsonl(path: Path) -> FileReport:
    """Check a data file of another format than segments: its lines are JSON objects, and there are some."""
    report = FileReport()
    try:
        report.rows = sum(1 for _ in read_jsonl(path))
    except UserError as error:
        report.problems = error.problems
    return report


@cache
def load_tokenizer(root: Path, name: str, revision: str | None = None, token: str | None = None) -> Any:
    """Load a tokenizer as training does, from a folder below root or from the Hub.

    Raises:
        UserError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    local = (root / name).is_dir()
    try:
        if local:
            return AutoTokenizer.from_pretrained(root / name, local_files_only=True, **SAFE)
        return AutoTokenizer.from_pretrained(name, revision=revision or "main", token=token, **SAFE)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        remedy = f"restore it with: git checkout -- {name}" if local else "check the network, or copy it into the cache"
        raise UserError(f"{name}: its tokenizer cannot be loaded: {first}; {remedy}") from None


def tokenizer_name(values: dict[str, Any]) -> str:
    """Name a config's tokenizer: a folder or a model on the Hub."""
    return str(values.get("tokenizer_config") or values["base_model"])


def tokenizer_problems(task: Task, tokenizer: Any, name: str) -> Iterator[str]:
    """Compare the tokenizer's special tokens with those the task writes into its text."""
    if task.is_chat:
        yield from template_problems(tokenizer, name)
        return
    place = f"{relative(task.dir / 'task.yml')}: prompt"
    for key in ("bos", "eos"):
        text, token = task.spec["prompt"][key], getattr(tokenizer, f"{key}_token")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        if text and text != token:
            yield f"{place}.{key}: found {text!r}, but the {key} of {name} is {token!r}; write that"
        elif text and ids != [getattr(tokenizer, f"{key}_token_id")]:
            yield f"{place}.{key}: {name} makes {len(ids)} tokens of {text!r}, expected one; write its own {key} token"
