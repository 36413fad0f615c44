"""What was drafted and decided, an event a line: nothing that was done is lost, and everything can be taken back."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from recipekit.conversations import Conversation
from recipekit.draft_input import Scene
from recipekit.errors import UserError
from recipekit.runs import digest, relative

Event = dict[str, Any]
Source = Literal["human", "model", "edited"]
DECISIONS = ("user", "reply", "finish", "reject")  # events that undo takes back
EVENTS = ("scene", "draft", "undo", *DECISIONS)


class Journal:
    """An append-only file of events, each on disk before it counts.

    Attributes:
        events: All of them.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there; a last line that was torn by a crash is cut off.

        Raises:
            UserError: The file cannot be read or written, or a line is no event.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab+")
            self._stream.seek(0)
            content = self._stream.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                self._stream.truncate(whole)
        except OSError as error:
            raise UserError(f"{relative(path)}: {error.strerror}; make room there, or see to its rights") from None
        self.events: list[Event] = []
        for line, text in enumerate(content[:whole].splitlines(), 1):
            try:
                event = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise UserError(f"{relative(path)}:{line}: not valid JSON: {error}; remove the line") from None
            if not isinstance(event, dict) or event.get("do") not in EVENTS:
                raise UserError(f"{relative(path)}:{line}: do: expected one of {', '.join(EVENTS)}; remove the line")
            self.events.append(event)

    def append(self, event: Event) -> None:
        """Write an event, and return once it is on disk.

        Raises:
            UserError: It cannot be written; then the file is as before.
        """
        before = self._stream.seek(0, os.SEEK_END)
        try:
            self._stream.write(orjson.dumps(event) + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            os.ftruncate(self._stream.fileno(), before)
            raise UserError(f"{relative(self.path)}: {error.strerror}; make room there, then try again") from None
        self.events.append(event)

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()


@dataclass(frozen=True)
class Draft:
    """What a model wrote.

    Attributes:
        text: The reply.
        ended: Whether the model ended it itself.
    """

    text: str
    ended: bool


@dataclass
class Talk:
    """A scene and what was decided about it so far.

    Attributes:
        scene: The scene.
        line: Of the journal, where it stands.
        users: What the user says, as far as it is known.
        replies: What was accepted, in order.
        sources: Who wrote each of these.
        context: The scene's, or what a person wrote for it.
        ended: How it ended; None: it has not.
        drafts: What a model wrote, by what had been said before it.
    """

    scene: Scene
    line: int
    users: list[str]
    replies: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    context: str | None = None
    ended: Literal["accepted", "rejected"] | None = None
    drafts: dict[str, list[Draft]] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """What it says of itself, the context with it."""
        return {**self.scene.fields, **({"context": self.context} if self.context else {})}

    @property
    def needs_user(self) -> bool:
        """Tell whether it is the user's turn, and what they say is not known."""
        return self.ended is None and len(self.users) == len(self.replies)

    @property
    def source(self) -> Source:
        """Who wrote its replies: a model or a human all of them, else they are edited."""
        kinds = set(self.sources)
        return kinds.pop() if len(kinds) == 1 else "edited"

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The turns that there are, without the user's that come later."""
        said: list[dict[str, Any]] = []
        for i, text in enumerate(self.users[: len(self.replies) + 1]):
            said.append({"role": "user", "content": text})
            if i < len(self.replies):
                said.append({"role": "assistant", "content": self.replies[i]})
        return said

    @property
    def history(self) -> str:
        """Tell apart what was said before the next reply."""
        shown = self.messages if self.ended is None else self.messages[: 2 * len(self.replies)]
        return digest([self.fields, shown])[:16]

    @property
    def drafted(self) -> list[Draft]:
        """What a model wrote for the next reply."""
        return self.drafts.get(self.history, [])

    def conversation(self) -> Conversation:
        """Return it as a model reads it."""
        return Conversation(self.scene.id, self.messages, self.scene.system, self.fields)


def talks(events: Sequence[Event]) -> dict[str, Talk]:
    """Work out where every scene stands, by its id, in the order that they came in."""
    found: dict[str, Talk] = {}
    for line, event in enumerate(events, 1):
        if event["do"] == "scene":
            scene = Scene(**event["scene"])
            found[scene.id] = Talk(scene, line, list(scene.turns), context=scene.fields.get("context"))
        elif event["do"] == "draft":
            drafts = found[event["id"]].drafts.setdefault(event["after"], [])
            drafts.append(Draft(event["text"], event["ended"]))
    for event in standing(events):
        _apply(found[event["id"]], event)
    return found


def standing(events: Sequence[Event]) -> list[Event]:
    """Return the decisions that were not taken back."""
    found: list[Event] = []
    for event in events:
        if event["do"] in DECISIONS:
            found.append(event)
        elif event["do"] == "undo" and found:
            found.pop()
    return found


def _apply(talk: Talk, event: Mapping[str, Any]) -> None:
    if event["do"] == "user":
        talk.users.append(event["text"])
        talk.context = event.get("context") or talk.context
    elif event["do"] == "reply":
        talk.replies.append(event["text"])
        talk.sources.append(event["source"])
        if len(talk.replies) >= talk.scene.wanted:
            talk.ended = "accepted"
    else:
        talk.ended = "accepted" if event["do"] == "finish" else "rejected"


def accepted(found: Mapping[str, Talk]) -> Iterator[Talk]:
    """Yield the conversations that were accepted."""
    return (talk for talk in found.values() if talk.ended == "accepted")
