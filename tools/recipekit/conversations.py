"""Conversations: the two forms that raw data have, what is wrong with one, and the messages a model reads of it.

A row is {"id", "system", "messages", "metadata"}, or {"id", "context", "conversation", "attribute"} where task.yml
names the numbers of an attribute (chat.attribute). What stands in metadata is declared in chat.fields, and
prompts/system.txt makes the system message of it. A row with "chosen" and "rejected" ends before a reply, and holds a
good and a bad one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import orjson

from recipekit import specials
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task

Row = dict[str, Any]
Message = dict[str, Any]  # role, content and, where it is to be left untrained, train: false
Problem = tuple[str, str]  # where in the row, and what is wrong there
ROLES = ("user", "assistant")
OWN = ("id", "system", "messages", "metadata", "chosen", "rejected")


@dataclass(frozen=True)
class Conversation:
    """A conversation, whatever form it came in.

    Attributes:
        id: Its name; None: it has none.
        messages: Turns of user and assistant, in order.
        system: Who the model is, where the conversation says so itself; None: prompts/persona.txt says it.
        fields: What else it says of itself (metadata), by the names of chat.fields.
        chosen: Of a preference, the good reply.
        rejected: Of a preference, the bad one.
    """

    id: str | None
    messages: list[Message]
    system: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    chosen: str | None = None
    rejected: str | None = None

    def row(self) -> Row:
        """Write it in the first form, without what is empty."""
        own = {"id": self.id, "system": self.system, "messages": self.messages, "metadata": self.fields}
        own |= {"chosen": self.chosen, "rejected": self.rejected}
        return {key: value for key, value in own.items() if value not in (None, {}, "")}


def read_rows(path: Path) -> Iterator[tuple[int, Row | str]]:
    """Read raw conversations: a line each, or {"conversations": [...]} as one JSON document.

    Yields:
        1-based line (of a document: 1-based place in its list), and the row, or what is wrong there.

    Raises:
        UserError: The file cannot be read, or is one document without a list of conversations.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; name a file of conversations") from None
    content = content.removeprefix(b"\xef\xbb\xbf")
    if path.suffix == ".json":
        yield from enumerate(_document(path, content), 1)
        return
    for line, text in enumerate(content.splitlines(), 1):
        if text.strip():
            try:
                row = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield line, f"not valid JSON: {error}; mend or remove the line"
            else:
                yield line, row if isinstance(row, dict) else _no_object(row)


def _document(path: Path, content: bytes) -> list[Row | str]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UserError(
            f"{relative(path)}: not valid JSON: {error}; a file with a row a line is called .jsonl"
        ) from None
    rows = document.get("conversations") if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise UserError(f"{relative(path)}: expected a list of conversations, or one under the key 'conversations'")
    return [row if isinstance(row, dict) else _no_object(row) for row in rows]


def _no_object(row: Any) -> str:
    return f"expected an object, found {_kind(row)}; mend or remove it"


class Conversations:
    """Reads the rows of a task of kind chat, and makes of each what a model reads.

    Attributes:
        fields: chat.fields of task.yml: name -> {title, and values, levels or text; many}.
        attribute: The fields that the numbers of "attribute" are, in order; empty: there is no such form.
    """

    def __init__(self, task: Task) -> None:
        """Read what task.yml and the prompt's files say."""
        self.task = task
        chat = task.spec["chat"]
        self.fields: dict[str, dict[str, Any]] = chat["fields"]
        self.attribute: list[str] = chat.get("attribute", [])
        self.default = (task.dir / task.spec["prompt"]["persona"]).read_text(encoding="utf-8").strip()
        self.defuse: Callable[[str], str] = specials.defuser(task.spec["prompt"].get("special_tokens", []))

    @cached_property
    def _template(self) -> jinja2.Template:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return environment.from_string((self.task.dir / self.task.spec["prompt"]["system"]).read_text(encoding="utf-8"))

    def read(self, row: Row) -> Conversation:
        """Read a row that has no problems."""
        name = row.get("id")
        fields = dict(row.get("metadata") or {})
        if self.attribute and "attribute" in row:
            fields |= zip(self.attribute, row["attribute"], strict=True)
        if "context" in row:
            fields["context"] = row["context"]
        return Conversation(
            None if name in (None, "") else str(name), row[self._turns_key(row)], row.get("system") or None, fields,
            row.get("chosen"), row.get("rejected"),
        )  # fmt: skip

    def problems(self, row: Row, scene: bool = False) -> list[Problem]:
        """Tell all that is wrong with a row.

        Args:
            row: The row.
            scene: Whether it is to end with what the user says, as a test scene does; so does a preference.
        """
        key, metadata = self._turns_key(row), row.get("metadata")
        metadata = {} if metadata is None else metadata
        preference = "chosen" in row or "rejected" in row
        problems = list(message_problems(row.get(key), key, "user" if scene or preference else "assistant"))
        if preference:
            problems += _preference_problems(row)
        if not isinstance(metadata, dict):
            return [*problems, ("metadata", f"expected an object, found {_kind(metadata)}")]
        return [*self._shape_problems(row, metadata), *problems, *self.field_problems(metadata, "metadata.")]

    def _turns_key(self, row: Row) -> str:
        return "conversation" if self.attribute and "conversation" in row else "messages"

    def field_problems(self, fields: Mapping[str, Any], before: str = "") -> list[Problem]:
        """Tell what is wrong with metadata; `before` stands before each field's name."""
        problems = []
        for name, value in fields.items():
            spec = self.fields.get(name)
            if spec is None:
                known = f"the fields in task.yml are {', '.join(self.fields)}"
                problems.append((f"{before}{name}", f"no such field; {known}"))
            elif spec.get("many"):
                if not isinstance(value, list):
                    problems.append((f"{before}{name}", f"expected a list, found {_kind(value)}"))
                    continue
                found = ((i, value_problem(spec, one)) for i, one in enumerate(value))
                problems += [(f"{before}{name}.{i}", what) for i, what in found if what]
            elif what := value_problem(spec, value):
                problems.append((f"{before}{name}", what))
        return problems

    def _shape_problems(self, row: Row, metadata: Mapping[str, Any]) -> Iterator[Problem]:
        if "system" in row and (not isinstance(row["system"], str) or not row["system"].strip()):
            yield "system", "empty or no text; say who the model is, or leave the key out (prompts/persona.txt says it)"
        if not self.attribute:
            return
        if "attribute" in row:
            found, levels = row["attribute"], [len(self.fields[name]["levels"]) for name in self.attribute]
            if not isinstance(found, list) or len(found) != len(levels):
                yield "attribute", f"expected a list [{', '.join(self.attribute)}], found {found!r}"
            else:
                for i, (name, value) in enumerate(zip(self.attribute, found, strict=True)):
                    if what := value_problem(self.fields[name], value):
                        yield f"attribute.{i}", f"{name}: {what}"
        elif missing := [name for name in self.attribute if name not in metadata]:
            yield "attribute", f"missing; expected the numbers of {', '.join(missing)}"
        if "context" in row and (not isinstance(row["context"], str) or not row["context"].strip()):
            yield "context", "empty or no text; say what the conversation is about"

    def system(self, conversation: Conversation) -> str:
        """Render the system message of a conversation.

        Raises:
            UserError: prompts/system.txt asks for what is no field.
        """
        values = {name: conversation.fields.get(name) for name in self.fields}
        labels = {name: self.label(name, value) for name, value in values.items()}
        persona = conversation.system or self.default
        try:
            text = self._template.render(persona=persona, labels=labels, **values)
        except jinja2.TemplateError as error:
            path = relative(self.task.dir / self.task.spec["prompt"]["system"])
            known = f"the variables are persona, labels, {', '.join(self.fields)}"
            raise UserError(f"{path}: {error}; {known}") from None
        return self.defuse(text.strip())

    def label(self, name: str, value: Any) -> Any:
        """Return the words for a field's value; of a list a list; None stays."""
        spec = self.fields[name]
        if isinstance(value, list):
            return [self.label(name, one) for one in value]
        if value is None or "text" in spec:
            return value
        return spec["levels"][value] if "levels" in spec else spec["values"][value]

    def messages(self, conversation: Conversation) -> list[Message]:
        """Return the messages that a model reads, the system message first; role and content alone.

        What trains is what is served: regenerate, predict and chat all take these.
        """
        said = [{"role": m["role"], "content": self.defuse(m["content"].strip())} for m in conversation.messages]
        return [{"role": "system", "content": self.system(conversation)}, *said]


def message_problems(messages: Any, key: str, last: str) -> Iterator[Problem]:
    """Tell what is wrong with a conversation's turns.

    Args:
        messages: The turns.
        key: The key that they stand under.
        last: The role that the last one is to have.
    """
    if not isinstance(messages, list) or not messages:
        what = "missing" if messages is None else "empty" if messages == [] else f"a {_kind(messages)}"
        yield key, f"{what}; expected a list of turns, each with role and content"
        return
    expected = "user"
    for i, message in enumerate(messages):
        place = f"{key}.{i}"
        if not isinstance(message, dict):
            yield place, f"expected an object with role and content, found {_kind(message)}"
            continue
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            hint = "; the system text stands under the key 'system'" if role == "system" else ""
            yield f"{place}.role", f"found {role!r}, expected user or assistant{hint}"
        elif role != expected:
            yield f"{place}.role", f"found '{role}', expected '{expected}': user begins, and roles take turns"
        if not isinstance(content, str) or not content.strip():
            what = "empty" if isinstance(content, str) else f"a {_kind(content)}" if content is not None else "missing"
            yield f"{place}.content", f"{what}; write what is said, or remove this turn and its answer"
        if not isinstance(message.get("train", True), bool):
            yield f"{place}.train", f"found {message['train']!r}, expected true or false"
        expected = ROLES[1 - ROLES.index(role)] if role in ROLES else expected
    end = messages[-1]
    if isinstance(end, dict) and end.get("role") in ROLES and end["role"] != last:
        yield f"{key}.{len(messages) - 1}.role", f"found '{end['role']}', expected '{last}' at the end"
    if last == "assistant" and all(isinstance(m, dict) for m in messages) and not any(map(trains, messages)):
        yield key, "no turn of the assistant is trained (train: false); leave the row out, or train one"


def trains(message: Mapping[str, Any]) -> bool:
    """Tell whether a turn is learned: those of the assistant are, unless train says false."""
    return message.get("role") == "assistant" and message.get("train", True) is not False


def _preference_problems(row: Row) -> Iterator[Problem]:
    for key in ("chosen", "rejected"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            yield key, "missing or empty; a preference has a good reply (chosen) and a bad one (rejected)"
    if isinstance(row.get("chosen"), str) and row.get("chosen") == row.get("rejected"):
        yield "rejected", "the same as chosen; nothing can be learned of two equal replies"


def value_problem(spec: Mapping[str, Any], value: Any) -> str | None:
    """Tell what is wrong with one value of a field; None: nothing."""
    if "levels" in spec:
        most = len(spec["levels"]) - 1
        good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        return None if good else f"found {value!r}, expected a whole number from 0 to {most}"
    if "values" in spec:
        known = isinstance(value, str) and value in spec["values"]
        return None if known else f"found {value!r}, expected one of {', '.join(spec['values'])}"
    return None if isinstance(value, str) and value.strip() else f"found {value!r}, expected a text"


def _kind(value: Any) -> str:
    """Name a value's type as JSON does."""
    kinds = {"str": "text", "dict": "object", "list": "list", "bool": "boolean", "NoneType": "null"}
    return kinds.get(type(value).__name__, "number")
