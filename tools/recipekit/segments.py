"""Segments: what Axolotl's `type: input_output` trains on, and the ids that it makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task


def build(task: Task, body: str, label: Any) -> dict[str, Any]:
    """Make one training row: the prompt's segments untrained, then the answer, trained and ending in eos."""
    untrained = [{"label": False, "text": text} for text in task.prompt(body)]
    return {"segments": [*untrained, {"label": True, "text": task.answer(label)}]}


MEMORY = 1000  # answers that are kept


class Writer:
    """Writes training rows as JSON; what all rows share, and the answer that negatives share, is made once."""

    def __init__(self, task: Task) -> None:
        """Find the segments that are the same whatever the article."""
        self.task = task
        self.answers: dict[bytes, str] = {}
        self.constant = {
            i: orjson.Fragment(orjson.dumps({"label": False, "text": text}))
            for i, text in task.constant_segments.items()
        }

    def line(self, text: str, label: Any) -> bytes:
        """Write the row of an article that is clean already, with its line end."""
        parts: list[Any] = [
            self.constant.get(i, {"label": False, "text": part}) for i, part in enumerate(self.task.render(text))
        ]
        key = orjson.dumps(label)
        if (answer := self.answers.get(key)) is None:
            answer = self.task.answer(label)
            if len(self.answers) < MEMORY:
                self.answers[key] = answer
        parts.append({"label": True, "text": answer})
        return orjson.dumps({"segments": parts}, option=orjson.OPT_APPEND_NEWLINE)


def encode(tokenizer: Any, texts: list[str]) -> list[int]:
    """Tokenise segments as Axolotl does: each on its own, without special tokens of the tokenizer's, concatenated.

    A tokenizer that puts a space before every text (SentencePiece) gives other ids for the joined string, so whoever
    predicts must come through here as well.
    """
    return [token for ids in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in ids]


def count_tokens(tokenizer: Any, texts: list[Any], special: bool = False) -> list[int]:
    """Count the tokens that `encode` makes of each text, eight times as fast as it lists them.

    Args:
        tokenizer: The tokenizer.
        texts: The texts, or pairs of texts.
        special: Count those that the tokenizer puts around a text as well.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return [len(ids) for ids in tokenizer(texts, add_special_tokens=special)["input_ids"]]
    backend.no_truncation()
    backend.no_padding()
    return [len(found) for found in backend.encode_batch_fast(texts, add_special_tokens=special)]


def encode_row(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[bool]]:
    """Tokenise a training row; the second list tells of each token whether it is trained."""
    ids: list[int] = []
    trained: list[bool] = []
    for segment in row["segments"]:
        tokens = encode(tokenizer, [segment["text"]])
        ids += tokens
        trained += [bool(segment["label"])] * len(tokens)
    return ids, trained


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a JSONL file.

    Yields:
        1-based line number and the row's object.

    Raises:
        UserError: The file is missing or empty, or lines of it are no JSON objects; all such lines at once, after the
            good ones were yielded.
    """
    problems: list[str] = []
    line = 0
    try:
        with path.open("rb") as stream:
            for line, text in enumerate(stream, 1):
                try:
                    row = orjson.loads(text.removeprefix(b"\xef\xbb\xbf") if line == 1 else text)
                except orjson.JSONDecodeError as error:
                    problems.append(f"{relative(path)}:{line}: not valid JSON: {error}; mend or remove the line")
                    continue
                if isinstance(row, dict):
                    yield line, row
                else:
                    problems.append(f"{relative(path)}:{line}: expected a JSON object, found {type(row).__name__}")
    except FileNotFoundError:
        raise UserError(f"{relative(path)}: no such file; make it with the step before, or check the name") from None
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; expected a JSONL file that can be read") from None
    if line == 0:
        problems.append(f"{relative(path)}: the file is empty; expected one JSON object a line")
    if problems:
        raise UserError(problems)


def take_apart(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    """Recover the article and the label of a row in segments format, whatever prompt it was made with.

    The article is the last untrained segment, less what the task's own template puts around it.
    """
    rows = [s for s in row["segments"] if isinstance(s, dict) and isinstance(s.get("text"), str)]
    untrained = [s["text"] for s in rows if not s.get("label")]
    answer = "".join(s["text"] for s in rows if s.get("label")).removesuffix(task.spec["prompt"]["eos"])
    before, _, after = task.prompt("\0")[-1].partition("\0")
    body = untrained[-1].removeprefix(before).removesuffix(after) if untrained else None
    try:
        label = task.read_answer(answer)
    except ValueError:
        label = None
    return {"id": row.get("id"), "body": body, "label": label}


def has_prompt_of_today(task: Task, row: dict[str, Any]) -> bool:
    """Tell whether a training row was made with the prompt that the task renders now."""
    untrained = [segment["text"] for segment in row["segments"] if not segment["label"]]
    return untrained == task.prompt(take_apart(task, row)["body"] or "")
