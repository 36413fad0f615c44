"""What a conversation says of itself, given as text: name=value on a command line or in a chat, or cells of a table."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from recipekit.conversations import Conversations
from recipekit.errors import UserError

MEMORIES = "memories"
ATTRIBUTE = "attribute"  # in text stands for all its numbers: attribute=4,0


def typed(reads: Conversations, name: str, text: str) -> dict[str, Any]:
    """Read a field's value from text, as it is meant: whether it is one, `field_problems` tells.

    Several values stand with commas between, or with |, where a text has commas in it; of "attribute" the numbers.
    """
    if name == ATTRIBUTE and reads.attribute:
        parts = re.split("[,，]", text.strip("[]()（） "))
        return dict(zip(reads.attribute, map(_number, parts + [""] * len(reads.attribute)), strict=False))
    spec = reads.fields.get(name, {})
    if spec.get("many"):
        commas = "[,，]" if "text" in spec else "[,，、]"
        parts = re.split("[|｜]" if re.search("[|｜]", text) else commas, text)
        return {name: [part.strip() for part in parts if part.strip()]}
    return {name: _number(text) if "levels" in spec else text.strip()}


def _number(text: str) -> int | str:
    text = text.strip()
    return int(text) if text.isdecimal() and len(text) < 9 else text


def parse_field(reads: Conversations, text: str, place: str = "--set") -> dict[str, Any]:
    """Read name=value; of "attribute" all its numbers.

    Raises:
        UserError: There is no such field or value.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    known = f"the fields in task.yml are {', '.join(reads.fields)}"
    if not equals or not name or not value:
        raise UserError(f"{place}: found {text!r}, expected name=value; {known}")
    found = typed(reads, name, value)
    if problems := reads.field_problems(found):
        raise UserError([f"{place}: {where}: {what}" for where, what in problems])
    return found


def parse_fields(reads: Conversations, texts: Sequence[str], memories: Sequence[str] = ()) -> dict[str, Any]:
    """Read all fields and memories of a command line.

    Raises:
        UserError: Something is wrong with one; all of it is told.
    """
    fields: dict[str, Any] = {}
    problems = []
    for text in texts:
        try:
            fields |= parse_field(reads, text)
        except UserError as error:
            problems += error.problems
    for text in memories:
        try:
            add_memory(reads, fields, text, "--memory")
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return fields


def middle(reads: Conversations) -> dict[str, Any]:
    """Return the middle level of each number of an attribute, for the prompt has them always."""
    return {name: (len(reads.fields[name]["levels"]) - 1) // 2 for name in reads.attribute}


def words(reads: Conversations, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Write fields for people: the title of each, and its value in words."""
    found = []
    for name, value in fields.items():
        if name in reads.fields and value is not None:
            label, spec = reads.label(name, value), reads.fields[name]
            said = "、".join(map(str, label)) if isinstance(label, list) else str(label)
            found.append((spec["title"], f"{value} {said}" if "levels" in spec else said))
    return found


def add_memory(reads: Conversations, fields: dict[str, Any], text: str, place: str) -> None:
    """Put one more memory into fields.

    Raises:
        UserError: The task has no memories, or the text is empty.
    """
    if MEMORIES not in reads.fields:
        raise UserError(
            f"{place}: {reads.task.name} has no field '{MEMORIES}'; its fields are {', '.join(reads.fields)}"
        )
    if not text.strip():
        raise UserError(f"{place}: empty; say what the character is to remember")
    fields[MEMORIES] = [*fields.get(MEMORIES, []), text.strip()]
