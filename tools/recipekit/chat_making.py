"""Rows of conversations that tools/chat_data.py makes: what is checked of them, which are alike, and where they go."""

import csv
import io
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipekit import near, runs
from recipekit.conversations import Conversation, Conversations, Message, Row
from recipekit.errors import UserError
from recipekit.kinds import need_chat
from recipekit.runs import relative
from recipekit.task import load_task

NEAR = 0.8  # Jaccard of 5-grams from which on two conversations are near duplicates


def load(name: str) -> Conversations:
    """Read a task of kind chat.

    Raises:
        UserError: There is no such task, or it is of another kind.
    """
    task = load_task(name)
    need_chat(task, "chat_data")
    return Conversations(task)


def check_target(output: Path, inputs: Sequence[Path], force: bool) -> None:
    """Refuse a place where rows would be lost.

    Raises:
        UserError: It is no .jsonl file, is one of the inputs, or exists and `force` is not set.
    """
    shown = relative(output)
    if output.suffix != ".jsonl":
        raise UserError(f"--output {shown}: expected a name that ends in .jsonl, a row a line")
    if output.resolve() in [path.resolve() for path in inputs]:
        raise UserError(f"--output {shown}: is one of the files that are read; name another")
    if output.is_dir():
        raise UserError(f"--output {shown}: is a folder; name a file in it")
    if output.exists() and not force:
        raise UserError(f"--output {shown}: exists already; name another file, or write over it with --force")


def make_row(
    conversations: Conversations, name: str, messages: list[Message], fields: dict[str, Any], system: str | None = None
) -> Row:
    """Make a row in the task's own form: with context and attribute where chat.attribute names numbers.

    Args:
        conversations: Of the task.
        name: Its id.
        messages: Its turns.
        fields: Values of chat.fields.
        system: Who the model is; None: prompts/persona.txt says it.
    """
    numbers = conversations.attribute
    if not numbers or not all(number in fields for number in numbers):
        return Conversation(name, messages, system, fields).row()
    rest = {key: value for key, value in fields.items() if key not in (*numbers, "context")}
    row = {"id": name, "system": system, "context": fields.get("context"), "conversation": messages}
    row |= {"attribute": [fields[number] for number in numbers], "metadata": rest}
    return {key: value for key, value in row.items() if value not in (None, {})}


def unused(wanted: str, names: Container[str]) -> str:
    """Return a name, with a number at its end where it is taken."""
    name, number = wanted, 1
    while name in names:
        number += 1
        name = f"{wanted}-{number}"
    return name


def write(conversations: Conversations, output: Path, rows: list[Row], scenes: bool = False) -> None:
    """Write rows, whole or not at all.

    Args:
        conversations: Of the task.
        output: The file.
        rows: Rows that training can take.
        scenes: Whether they end with what the user says instead.

    Raises:
        UserError: There are none, or the file cannot be written.
        AssertionError: A row has problems, or two have one id: whoever made them has not looked.
    """
    if not rows:
        raise UserError(f"{relative(output)}: no rows are left to write; see the counts above")
    names = [row["id"] for row in rows]
    wrong = [row["id"] for row in rows if conversations.problems(row, scene=scenes or "kind" in row)]
    if wrong or len(set(names)) < len(names):
        raise AssertionError(f"rows that training would refuse: {wrong[:3]}")
    runs.write_jsonl(output, rows)


def source(conversations: Conversations, value: str) -> dict[str, str]:
    """Return the field that says where a row comes from, of a task that has it."""
    known = conversations.fields.get("source", {}).get("values", {})
    return {"source": value} if value in known else {}


def read_text(path: Path, expected: str) -> str:
    """Read a file that people wrote.

    Args:
        path: The file.
        expected: What it is to be, for the message.

    Raises:
        UserError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; name {expected}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{relative(path)}: not UTF-8 (byte {error.start}); save it as UTF-8") from None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read a CSV file that people filled in, in UTF-8 or, as Excel writes it in Japan, CP932.

    Yields:
        The line on which a row begins, and its cells; empty rows are left out.

    Raises:
        UserError: It cannot be read, or is no such file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; name a CSV file") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = content.decode("cp932")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise UserError(f"{relative(path)}:{line}: neither UTF-8 nor CP932; save it as CSV UTF-8") from None
    reader, line = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{relative(path)}:{line}: not valid CSV: {error}; mend the quotes of this row") from None


def text_of(row: Row) -> str:
    """Return all that is said in a row, a turn a line."""
    messages = row["messages"] if "messages" in row else row["conversation"]
    return "\n".join(message["content"] for message in messages)


def near_pairs(texts: Sequence[str], threshold: float) -> list[tuple[int, int, float]]:
    """Find texts that are alike.

    Returns:
        Numbers of an earlier and a later text, and the Jaccard of their 5-grams, in the order of the later one.
    """
    if len(texts) < 2:
        return []
    normal = [near.normal(text) for text in texts]
    pairs = near.within(near.signatures(normal), np.arange(len(texts)), threshold)
    alike = [(one, other, near.jaccard(near.grams(normal[one]), near.grams(normal[other]))) for one, other in pairs]
    return sorted((pair for pair in alike if pair[2] >= threshold), key=lambda pair: (pair[1], -pair[2]))


def repeated(texts: Sequence[str], threshold: float) -> dict[int, int]:
    """Find texts to leave out, each with an earlier one that stays and is alike."""
    out: dict[int, int] = {}
    for one, other, _ in near_pairs(texts, threshold):
        if one not in out:
            out.setdefault(other, one)
    return out
