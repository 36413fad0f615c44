"""Scenes written by hand in YAML -> rows.

persona: |                   # who the model is; without it prompts/persona.txt says it
  あなたはさくら、...
metadata: {source: human}    # of every scene, unless it says otherwise
scenes:
  - affection_level: friend  # fields of task.yml stand beside the turns
    turns:
      - あなた: ただいま
      - さくら: おかえり！
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipekit import yamlfile
from recipekit.chat_making import make_row, source
from recipekit.chat_rows import row_problems
from recipekit.conversations import ROLES, Conversations, Message, Row
from recipekit.errors import UserError
from recipekit.runs import first_problems, relative

TOP = ("persona", "speakers", "metadata", "scenes")
OWN = ("id", "persona", "turns")  # of a scene, beside fields of task.yml
PASSED = ("chosen", "rejected", "kind", "reference", "facts", "set", "phase")  # of preferences and test scenes
USERS = ("あなた", "ユーザー")
Path_ = tuple[str | int, ...]


class Scenes:
    """A file of scenes.

    Args:
        conversations: Of the task.
        path: The file.

    Raises:
        UserError: It is no YAML, or a key at its top is wrong.
    """

    def __init__(self, conversations: Conversations, path: Path) -> None:
        self.conversations, self.path = conversations, path
        self.content, self.lines = yamlfile.load(path)
        self.found: list[str] = []
        self.speakers = dict.fromkeys(USERS, "user") | {"user": "user", "assistant": "assistant"}
        if character := conversations.task.spec["chat"].get("character"):
            self.speakers[character] = "assistant"
        self._top()

    def _top(self) -> None:
        for key in self.content:
            if key not in TOP:
                self._problem((key,), key, f"no such key; expected {', '.join(TOP)}")
        self._text(self.content, (), "persona")
        speakers = self._mapping("speakers", "user: and assistant:, each with the name that turns have")
        for role, name in speakers.items():
            if role not in ROLES or not isinstance(name, str):
                self._problem(("speakers", str(role)), f"speakers.{role}", "expected user or assistant, with a name")
            else:
                self.speakers[name] = role
        self.metadata = self._mapping("metadata", "fields of every scene")
        scenes = self.content.get("scenes")
        if not isinstance(scenes, list) or not scenes:
            self._problem(("scenes",), "scenes", "missing or empty; expected a list of scenes, each with turns")
        if self.found:
            raise UserError(self.found)
        self.scenes: list[Any] = scenes or []

    def _mapping(self, key: str, expected: str) -> dict[str, Any]:
        value = self.content.get(key)
        if value is not None and not isinstance(value, dict):
            self._problem((key,), key, f"found {value!r}, expected {expected}")
        return value if isinstance(value, dict) else {}

    def _problem(self, path: Path_, key: str, what: str) -> None:
        while path and path not in self.lines:
            path = path[:-1]
        self.found.append(f"{relative(self.path)}:{self.lines.get(path, 1)}: {key}: {what}")

    def _text(self, content: dict[str, Any], before: Path_, key: str) -> str | None:
        value = content.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self._problem((*before, key), key, f"found {value!r}, expected a text")
            return None
        return value.strip() if value else None

    def rows(self) -> list[Row]:
        """Make a row of each scene.

        Raises:
            UserError: All that is wrong with the scenes, the first of it.
        """
        rows = [row for number, scene in enumerate(self.scenes) if (row := self._row(number, scene))]
        if self.found:
            raise UserError(first_problems(self.path, self.found))
        return rows

    def _row(self, number: int, scene: Any) -> Row | None:
        at: Path_ = ("scenes", number)
        if not isinstance(scene, dict):
            self._problem(at, f"scenes.{number}", f"found {scene!r}, expected a scene with turns")
            return None
        before = len(self.found)
        messages = list(self._messages(at, scene.get("turns")))
        persona = self._text(scene, at, "persona") or self._text(self.content, (), "persona")
        fields = source(self.conversations, "human") | self._fields(self.metadata)
        fields |= self._fields({key: scene[key] for key in scene if key not in (*OWN, *PASSED)})
        name = str(scene.get("id") or f"{self.path.stem}-{number + 1:04}")
        if len(self.found) > before:
            return None
        row = make_row(self.conversations, name, messages, fields, persona)
        row |= {key: scene[key] for key in PASSED if key in scene}
        for key, what in row_problems(self.conversations, row):
            self._problem(self._where(at, key), key, what)
        return row

    def _fields(self, written: dict[str, Any]) -> dict[str, Any]:
        """Take apart `attribute: [4, 0]`, which stands for two fields."""
        numbers, found = self.conversations.attribute, written.get("attribute")
        if numbers and isinstance(found, list) and len(found) == len(numbers):
            rest = {key: value for key, value in written.items() if key != "attribute"}
            return rest | dict(zip(numbers, found, strict=True))
        return dict(written)

    def _messages(self, at: Path_, turns: Any) -> Iterator[Message]:
        if not isinstance(turns, list):
            self._problem((*at, "turns"), "turns", "missing or no list; expected turns such as `- あなた: ただいま`")
            return
        for number, turn in enumerate(turns):
            place = (*at, "turns", number)
            said = [key for key in turn if key != "train"] if isinstance(turn, dict) else []
            if not isinstance(turn, dict) or len(said) != 1:
                self._problem(place, f"turns.{number}", "expected one speaker and what is said, `- あなた: ただいま`")
            elif said[0] not in self.speakers:
                known = f"expected {', '.join(self.speakers)}; other names stand under 'speakers'"
                self._problem(place, f"turns.{number}", f"unknown speaker '{said[0]}', {known}")
            elif not isinstance(turn[said[0]], str):
                what = f"found {turn[said[0]]!r}, expected a text; put it into quotes"
                self._problem(place, f"turns.{number}", what)
            else:
                message = {"role": self.speakers[said[0]], "content": turn[said[0]].strip()}
                yield message | {key: turn[key] for key in ("train",) if key in turn}

    def _where(self, at: Path_, key: str) -> Path_:
        """Return where in the file a row's key was written."""
        parts = key.removeprefix("metadata.").split(".")
        if parts[0] in ("messages", "conversation"):
            return (*at, "turns", *map(int, parts[1:2]))
        own = (*at, *(int(part) if part.isdecimal() else part for part in parts))
        inherited = ("metadata", *own[len(at) :])
        return inherited if own[: len(at) + 1] not in self.lines and inherited[:2] in self.lines else own


def read(conversations: Conversations, paths: list[Path]) -> list[Row]:
    """Make the rows of files of scenes.

    Raises:
        UserError: All that is wrong with any of them.
    """
    rows: list[Row] = []
    found: list[str] = []
    first: dict[str, str] = {}
    for path in paths:
        try:
            file = Scenes(conversations, path)
            made = file.rows()
        except UserError as error:
            found += error.problems
            continue
        for number, row in enumerate(made):
            place = f"{relative(path)}:{file.lines['scenes', number]}"
            if (before := first.setdefault(row["id"], place)) != place:
                found.append(f"{place}: id: '{row['id']}' stands at {before} already; give it another")
        rows += made
    if found:
        raise UserError(found)
    return rows
