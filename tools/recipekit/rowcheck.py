"""Training data as Axolotl will see it: every row's shape, mask, prompt, answer and length."""

import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from recipekit import windows
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.segments import encode_row, read_jsonl, take_apart
from recipekit.task import Task

BATCH = 1000  # rows tokenised at a time
NAMED = 3  # offenders named of each kind
REDO = "run: uv run tools/regenerate_segments.py {}"

Problem = tuple[str, str]  # the kind, which is what to do about it, and what was found in this row


@dataclass
class FileReport:
    """What a data file holds.

    Attributes:
        rows: Rows read.
        longest: Tokens of the longest row.
        problems: One line each; of each kind the first offenders by file:line, and how many more there are.
        sample: The first row's text, cut where training begins or ends; (text, is trained) each.
    """

    rows: int = 0
    longest: int = 0
    problems: list[str] = field(default_factory=list)
    sample: list[tuple[str, bool]] = field(default_factory=list)


def check_file(task: Task, path: Path, tokenizer: Any | None, sequence_len: int) -> FileReport:
    """Check every row of a segments file.

    Args:
        task: Says what prompt and answer have to look like.
        path: A JSONL file of segments.
        tokenizer: The one that training uses; None leaves the tokens unchecked.
        sequence_len: Tokens a row may have.
    """
    report = FileReport()
    offenders: dict[str, list[str]] = defaultdict(list)
    rows_checker = RowChecker(task)
    tokens_checker = TokenChecker(task, tokenizer, sequence_len) if tokenizer else None
    rows = read_jsonl(path)
    broken: list[str] = []
    while batch := _take(rows, broken):
        report.rows += len(batch)
        sound = []
        for line, row in batch:
            found = list(rows_checker.problems(row))
            if not any(kind == rows_checker.shape for kind, _ in found):
                sound.append((line, row))
            for kind, detail in found:
                offenders[kind].append(f"{line}: {detail}")
        for line, length, found in tokens_checker.problems(sound) if tokens_checker else ():
            report.longest = max(report.longest, length)
            for kind, detail in found:
                offenders[kind].append(f"{line}: {detail}")
        if sound and tokenizer and not report.sample:
            report.sample = sample(tokenizer, sound[0][1])
    report.problems = broken + list(_lines(path, offenders))
    return report


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
    for kind, places in offenders.items():
        for place in places[:NAMED]:
            yield f"{relative(path)}:{place}; {kind}"
        if len(places) > NAMED:
            yield f"{relative(path)}: {len(places) - NAMED:,} more rows like these; {kind}"


class RowChecker:
    """Checks what can be seen in a row without its tokens."""

    def __init__(self, task: Task) -> None:
        """Prepare the checks of a task; its output schema is compiled once."""
        self.task = task
        self.redo = REDO.format(task.name)
        self.eos = task.spec["prompt"]["eos"]
        self.shape = f"a row is {{'segments': [{{'label': bool, 'text': str}}, ...]}}; {self.redo}"
        self.validator = jsonschema.Draft202012Validator(task.output_schema)
        self.answers: dict[str, list[Problem]] = {}  # negatives share one answer, and validating is slow

    def problems(self, row: dict[str, Any]) -> Iterator[Problem]:
        """Tell what is wrong with a row."""
        wrong = misshapen(row)
        if wrong:
            yield self.shape, wrong
            return
        labels = [segment["label"] for segment in row["segments"]]
        if labels != [False] * (len(labels) - 1) + [True]:
            shown = ", ".join("trained" if label else "untrained" for label in labels)
            yield f"only the last segment, the answer, is trained; {self.redo}", f"the mask is wrong, found {shown}"
            return
        yield from self._prompt(row)
        answer = row["segments"][-1]["text"]
        if answer not in self.answers:
            self.answers[answer] = list(self._answer(answer))
        yield from self.answers[answer]

    def _prompt(self, row: dict[str, Any]) -> Iterator[Problem]:
        body = take_apart(self.task, row)["body"]
        expected = self.task.prompt(body)
        found = [segment["text"] for segment in row["segments"][:-1]]
        if found == expected:
            return
        if len(found) != len(expected):
            detail = f"{len(found)} segments before the answer, but the prompt of today has {len(expected)}"
        else:
            number, old, new = next(
                (i, old, new) for i, (old, new) in enumerate(zip(found, expected, strict=True), 1) if old != new
            )
            at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
            detail = f"segment {number} is not what the prompt of today renders: {old[at : at + 20]!r} "
            detail += f"where it has {new[at : at + 20]!r}"
        yield f"prompt and data differ; {self.redo}", detail

    def _answer(self, text: str) -> Iterator[Problem]:
        if not text.endswith(self.eos):
            detail = f"the answer does not end in {self.eos}, but in {text[-10:]!r}"
            yield f"a model that never learns to stop goes on and on; {self.redo}", detail
        try:
            label = orjson.loads(text.removesuffix(self.eos))
        except orjson.JSONDecodeError as error:
            yield f"answers are JSON, then eos; {self.redo}", f"the answer is not valid JSON: {error}"
            return
        for fault in self.validator.iter_errors(label):
            place = ".".join(map(str, fault.absolute_path)) or "the answer"
            yield f"mend the raw row's label, then {self.redo}", f"{place}: {fault.message}"


def misshapen(row: dict[str, Any]) -> str:
    """Tell what keeps a row from being one of segments; "" where nothing does."""
    segments = row.get("segments")
    if not isinstance(segments, list) or len(segments) < 2:
        return "expected a list 'segments' of at least a prompt and an answer"
    for i, segment in enumerate(segments, 1):
        if not isinstance(segment, dict) or not isinstance(segment.get("label"), bool):
            return f"segment {i} has no 'label' of true or false"
        if not isinstance(segment.get("text"), str) or not segment["text"]:
            return f"segment {i} has no 'text'"
    return ""


class TokenChecker:
    """Checks a row's tokens; a text that many rows share is tokenised once."""

    def __init__(self, task: Task, tokenizer: Any, sequence_len: int) -> None:
        """Take the tokenizer and the tokens that a row may have."""
        self.task = task
        self.redo = REDO.format(task.name)
        self.prompt = task.spec["prompt"]
        self.tokenizer = tokenizer
        self.sequence_len = sequence_len
        self.known: dict[str, list[int]] = {}

    def problems(self, rows: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, int, list[Problem]]]:
        """Yield line, length in tokens and problems of each row of a batch."""
        texts = dict.fromkeys(segment["text"] for _, row in rows for segment in row["segments"])
        self.known = {text: self.known[text] for text in texts if text in self.known}
        new = [text for text in texts if text not in self.known]
        if new:
            ids = self.tokenizer(new, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            self.known |= dict(zip(new, ids, strict=True))
        for line, row in rows:
            found = [*self._row(row["segments"]), *self._prediction(row)]
            yield line, sum(len(self.known[s["text"]]) for s in row["segments"]), found

    def _row(self, segments: list[dict[str, Any]]) -> Iterator[Problem]:
        ids = [self.known[segment["text"]] for segment in segments]
        length = sum(map(len, ids))
        if length > self.sequence_len:
            remedy = "shorten or remove the article, or raise sequence_len"
            yield remedy, f"{length:,} tokens, over sequence_len {self.sequence_len:,}"
        if not any(tokens for tokens, segment in zip(ids, segments, strict=True) if segment["label"]):
            yield "such a row teaches nothing, its loss is NaN; remove it or mend its mask", "no token is trained"
        # Where the text itself lacks its bos or eos, the row's own check has said so.
        if segments[-1]["text"].endswith(self.prompt["eos"]) and ids[-1][-1:] != [self.tokenizer.eos_token_id]:
            yield self._special("eos", ids[-1][-1:], "last")
        bos = self.prompt["bos"]
        if bos and segments[0]["text"].startswith(bos) and ids[0][:1] != [self.tokenizer.bos_token_id]:
            yield self._special("bos", ids[0][:1], "first")

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
            yield "what is trained on and what is predicted from differ; mend recipekit/windows.py", detail

    def _special(self, name: str, token: list[int], place: str) -> Problem:
        found = self.tokenizer.convert_ids_to_tokens(token)
        own = getattr(self.tokenizer, f"{name}_token")
        detail = f"the {place} token is {found}, not {own!r}, the tokenizer's {name}"
        return f"write the tokenizer's {name} as prompt.{name} in task.yml", detail


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
            return AutoTokenizer.from_pretrained(root / name, local_files_only=True)
        return AutoTokenizer.from_pretrained(name, revision=revision or "main", token=token)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        remedy = f"restore it with: git checkout -- {name}" if local else "check the network, or copy it into the cache"
        raise UserError(f"{name}: its tokenizer cannot be loaded: {first}; {remedy}") from None


def tokenizer_name(values: dict[str, Any]) -> str:
    """Name a config's tokenizer: a folder or a model on the Hub."""
    return str(values.get("tokenizer_config") or values["base_model"])


def tokenizer_problems(task: Task, tokenizer: Any, name: str) -> Iterator[str]:
    """Compare the tokenizer's special tokens with those the task writes into its text."""
    place = f"{relative(task.dir / 'task.yml')}: prompt"
    for key in ("bos", "eos"):
        text, token = task.spec["prompt"][key], getattr(tokenizer, f"{key}_token")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        if text and text != token:
            yield f"{place}.{key}: found {text!r}, but the {key} of {name} is {token!r}; write that"
        elif text and ids != [getattr(tokenizer, f"{key}_token_id")]:
            yield f"{place}.{key}: {name} makes {len(ids)} tokens of {text!r}, expected one; write its own {key} token"
