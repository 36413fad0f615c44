"""Conversations of a chat task as its files hold them, raw or regenerated, each with the place it stands at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recipekit.chat_rows import accepted_path, sound_rows
from recipekit.conversations import Conversation, Conversations, message_problems, read_rows
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task

DRAFTS = "drafts"  # the data set that drafts which were accepted make


@dataclass(frozen=True)
class Said:
    """A conversation and where it came from.

    Attributes:
        set: Its data set.
        place: Its file, and which row it is there.
        conversation: What was said; of a preference the good reply stands at the end.
    """

    set: str
    place: str
    conversation: Conversation

    @property
    def name(self) -> str:
        """Its id or, where it has none, its place."""
        return self.conversation.id or self.place

    @property
    def text(self) -> str:
        """All that is said, a turn a line."""
        return "\n".join(message["content"] for message in self.conversation.messages)


def raw_names(task: Task) -> dict[str, str]:
    """Return the names of a chat task's raw files, by data set; a curriculum's are "curriculum" and "validation"."""
    data = task.spec["data"]
    names = {"curriculum": "file", "validation": "validation"}
    own = {name: data["curriculum"][key] for name, key in names.items() if key in data.get("curriculum", {})}
    return own | {name: spec["file"] for name, spec in data["train"].items() if "file" in spec}


def raw_files(task: Task) -> dict[str, Path]:
    """Return the raw files of a chat task that there are, data set -> file, accepted drafts under "drafts"."""
    files = {name: task.raw_dir / file for name, file in raw_names(task).items()}
    files[DRAFTS] = accepted_path(task)
    return {name: path for name, path in files.items() if path.is_file()}


def read_data(conversations: Conversations, drafts: bool = True) -> list[Said]:
    """Read the raw conversations that there are; pairs of a good and a bad reply are no conversations of their own.

    Args:
        conversations: Of the task.
        drafts: Whether accepted drafts are among them.

    Raises:
        UserError: Rows are wrong.
    """
    files = [(name, path) for name, path in raw_files(conversations.task).items() if drafts or name != DRAFTS]
    return [said for said in read_sets(conversations, files) if said.conversation.chosen is None]


def read_sets(conversations: Conversations, files: Sequence[tuple[str, Path]]) -> list[Said]:
    """Read files of conversations; those of a curriculum come under the names of its groups.

    What is regenerated does not say its fields any more: they are those of the raw row with the same id.

    Args:
        conversations: Of the task.
        files: Data set and file.

    Raises:
        UserError: A file cannot be read, or rows are wrong; all of them at once.
    """
    problems: list[str] = []
    rows: list[Said] = []
    known: dict[str | None, dict[str, Any]] = {}
    for name, path in files:
        if is_regenerated(path):
            known = known or {said.conversation.id: said.conversation.fields for said in read_data(conversations)}
            found = _regenerated(conversations, path, known, problems)
        else:
            found = sound_rows(conversations, path, problems)
        for number, conversation in enumerate(found, 1):
            place = f"{relative(path)}, row {number}"
            rows.append(Said(_group(conversations.task, name, conversation), place, _whole(conversation)))
    if problems:
        raise UserError(problems)
    return rows


def is_regenerated(path: Path) -> bool:
    """Tell whether the system message stands among a file's messages, as it does in what is trained."""
    row = next((row for _, row in read_rows(path)), None)
    messages = row.get("messages") if isinstance(row, dict) else None
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and first.get("role") == "system"


def _regenerated(
    conversations: Conversations, path: Path, known: Mapping[str | None, dict[str, Any]], problems: list[str]
) -> Iterator[Conversation]:
    """Read what regenerate wrote, which is sound; what was changed in it since goes to `problems`."""
    for line, row in read_rows(path):
        messages = row.get("messages") if isinstance(row, dict) else None
        said = messages[1:] if isinstance(messages, list) else None
        chosen = row.get("chosen") if isinstance(row, dict) else None
        wrong = list(message_problems(said, "messages", "user" if chosen else "assistant"))
        if isinstance(row, str):
            wrong = [("row", row)]
        if wrong or not isinstance(row, dict):
            remedy = f"run: uv run tools/regenerate_segments.py {conversations.task.name}"
            problems += [f"{relative(path)}:{line}: {key}: {what}; {remedy}" for key, what in wrong]
            continue
        reply = chosen["content"] if isinstance(chosen, dict) else chosen
        yield Conversation(row.get("id"), said or [], None, dict(known.get(row.get("id"), {})), reply)


def _whole(conversation: Conversation) -> Conversation:
    """Put a preference's good reply at its end."""
    if conversation.chosen is None:
        return conversation
    reply = {"role": "assistant", "content": conversation.chosen}
    return replace(conversation, messages=[*conversation.messages, reply])


def _group(task: Task, name: str, found: Conversation) -> str:
    """Name the data set that a row comes into."""
    curriculum = task.spec["data"].get("curriculum")
    if curriculum is None or name not in ("curriculum", "validation", DRAFTS):
        return name
    value, role = found.fields.get(curriculum["by"]), "validation" if name == "validation" else "train"
    names = (group for group, values in task.groups.items() if value in values and task.role(group) == role)
    return next(names, name)
