"""What a conversation says of itself, given as name=value on a command line or in a chat."""

from collections.abc import Sequence
from typing import Any

from recipekit.conversations import Conversations
from recipekit.errors import UserError

MEMORIES = "memories"


def parse_field(reads: Conversations, text: str, place: str = "--set") -> tuple[str, Any]:
    """Read name=value; of a field with many values they stand with commas between, of one with levels as a number.

    Raises:
        UserError: There is no such field or value.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name or not value:
        known = ", ".join(reads.fields)
        raise UserError(f"{place}: found {text!r}, expected name=value; the fields in task.yml are {known}")
    spec = reads.fields.get(name, {})
    found: Any = [part.strip() for part in value.split(",") if part.strip()] if spec.get("many") else value
    if "levels" in spec and value.isascii() and value.isdecimal():
        found = int(value)
    if problems := reads.field_problems({name: found}):
        raise UserError([f"{place}: {where}: {what}" for where, what in problems])
    return name, found


def parse_fields(reads: Conversations, texts: Sequence[str], memories: Sequence[str]) -> dict[str, Any]:
    """Read all fields and memories of a command line.

    The numbers of an attribute that are not given are in the middle of their levels, for the prompt has them always.

    Raises:
        UserError: Something is wrong with one; all of it is told.
    """
    fields: dict[str, Any] = {name: (len(reads.fields[name]["levels"]) - 1) // 2 for name in reads.attribute}
    problems = []
    for text in texts:
        try:
            name, value = parse_field(reads, text)
            fields[name] = value
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
