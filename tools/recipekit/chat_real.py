"""Real conversations -> rows: two speakers become user and character, each conversation is judged, and masked."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipekit.chat_making import NEAR, make_row, repeated
from recipekit.chat_mask import Said, mask
from recipekit.chat_quality import Limits, Reason
from recipekit.chat_rows import row_problems
from recipekit.chat_talks import Talk
from recipekit.conversations import Conversations, Message, Row

ASSISTANTS = ("assistant", "bot", "gpt", "ai", "character")  # speakers who are the model, by what they are called
ROLE_NAMES = (*ASSISTANTS, "user", "human", "ユーザー", "あなた")
MARK = re.compile(r"<([A-Z]+)>")  # in place of a speaker's name, as corpora have it
SOMEBODY = "○○"
Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Wrapping:
    """What is made of conversations.

    Attributes:
        conversations: Of the task.
        limits: What is taken.
        assistant: The speaker who becomes the model; None: one who is called so, else who speaks second.
        fields: Of every row.
        system: Who the model is; None: prompts/persona.txt says it.
        name: What ids begin with.
    """

    conversations: Conversations
    limits: Limits
    assistant: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    system: str | None = None
    name: str = "real"


@dataclass
class Wrapped:
    """What came of it.

    Attributes:
        rows: Rows, masked.
        rejected: Those that were not taken: place and reasons, nothing of what was said.
        reasons: Reason -> conversations that have it.
        counts: What was changed in those that were taken.
        found: Kind of personal information -> places.
        read: Conversations read.
    """

    rows: list[Row] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    read: int = 0

    def reject(self, place: str, reasons: list[Reason]) -> None:
        """Note why a conversation is not taken."""
        self.rejected.append({"place": place, "reasons": [{"kind": kind, "found": what} for kind, what in reasons]})
        self.reasons.update({kind for kind, _ in reasons})


def wrap(
    talks: Iterable[Talk], wrapping: Wrapping, key: Path | None, ginza: bool, advance: Callable[..., None]
) -> Wrapped:
    """Make rows of conversations.

    Args:
        talks: The conversations.
        wrapping: What is made of them.
        key: As of `chat_mask.mask`.
        ginza: As of `chat_mask.mask`.
        advance: Told of conversations that were judged and of those that were masked.
    """
    result = Wrapped()
    taken: list[tuple[Talk, str, Turns]] = []
    for talk in talks:
        result.read += 1
        advance()
        speaker, reasons = _assistant(talk, wrapping.assistant)
        turns = ordered(talk.turns, speaker, result.counts) if speaker else list(talk.turns)
        reasons += wrapping.limits.reasons(turns)
        if reasons:
            result.reject(talk.place, reasons)
        else:
            taken.append((talk, speaker, turns))
    alike = repeated(["\n".join(text for _, text in turns) for *_, turns in taken], NEAR)
    for later, first in alike.items():
        result.reject(taken[later][0].place, [("near duplicate", f"of {taken[first][0].place}")])
    taken = [one for number, one in enumerate(taken) if number not in alike]
    said = [Said(_names(talk), [text for _, text in turns]) for talk, _, turns in taken]
    masked, result.found = mask(said, key, ginza, advance) if said else ([], Counter())
    for (talk, speaker, turns), texts in zip(taken, masked, strict=True):
        messages = _messages(wrapping.conversations, [who for who, _ in turns], texts, speaker)
        number = len(result.rows) + 1
        row = make_row(
            wrapping.conversations, f"{wrapping.name}-{number:05}", messages, wrapping.fields, wrapping.system
        )
        if wrong := row_problems(wrapping.conversations, row):
            result.reject(talk.place, [("form", f"{where}: {what}") for where, what in wrong])
            continue
        result.counts["turns left untrained"] += sum("train" in message for message in messages)
        result.rows.append(row)
    return result


def _assistant(talk: Talk, wanted: str | None) -> tuple[str, list[Reason]]:
    """Choose who becomes the model; empty, and the reason, where nobody can."""
    speakers = talk.speakers
    if len(speakers) != 2:
        return "", [("speakers", f"{len(speakers)} speakers, expected 2")]
    if wanted is not None:
        return (wanted, []) if wanted in speakers else ("", [("speakers", "the one of --assistant does not speak")])
    return next((who for who in speakers if who.casefold() in ASSISTANTS), speakers[1]), []


def ordered(turns: Turns, assistant: str, counts: Counter[str]) -> Turns:
    """Put turns into the order of a row: user and model in turns, the user first, the model last.

    What one says in several turns is joined, a line each; a greeting of the model before the user speaks, and what the
    user says after its last reply, go.
    """
    joined: Turns = []
    for who, text in turns:
        if joined and joined[-1][0] == who:
            joined[-1] = (who, f"{joined[-1][1]}\n{text}")
            counts["turns joined"] += 1
        else:
            joined.append((who, text))
    start = 1 if joined and joined[0][0] == assistant else 0
    end = len(joined) - 1 if joined and joined[-1][0] != assistant else len(joined)
    counts["turns cut off"] += start + len(joined) - end
    return joined[start:end]


def _names(talk: Talk) -> list[str]:
    """Return what of a conversation's speakers may be a name: neither a role nor a code such as AB."""
    return [who for who in talk.speakers if who.casefold() not in ROLE_NAMES and not re.fullmatch("[A-Z0-9_-]+", who)]


def _messages(conversations: Conversations, speakers: list[str], texts: list[str], assistant: str) -> list[Message]:
    """Make turns of texts; a mark for the model's name becomes the character's, others a blank that is not trained."""
    character = conversations.task.spec["chat"].get("character", SOMEBODY)
    messages: list[Message] = []
    for who, text in zip(speakers, texts, strict=True):
        content = MARK.sub(lambda match: character if match[1] == assistant else SOMEBODY, text)
        message: Message = {"role": "assistant" if who == assistant else "user", "content": content}
        if who == assistant and SOMEBODY in content:
            message["train"] = False
        messages.append(message)
    return messages
