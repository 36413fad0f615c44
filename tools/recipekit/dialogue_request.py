"""What is asked of a served model: dialogues or texts, checked and made into what training rows hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from recipekit import persona_chat
from recipekit.errors import UserError
from recipekit.rawfiles import splits
from recipekit.task import Task

SHOWN = 20  # problems
LONGEST_PLACE = 80  # characters: keys may be of any length
INPUT = {"body": "body", "utterances": "utterances and speaker"}
JSON_TYPES = {
    "NoneType": "null", "bool": "a boolean", "int": "a number", "float": "a number", "str": "a string",
    "list": "an array", "dict": "an object", "bytes": "bytes",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How much a request may hold.

    Attributes:
        size: Bytes of a request.
        dialogues: Dialogues of a batch.
        utterances: Utterances of a dialogue.
        characters: Characters of a dialogue, all utterances together.
        name: Characters of a speaker's name.
        seconds: In which a request has to arrive.
    """

    size: int = 2 * 2**20
    dialogues: int = 64
    utterances: int = 1_000
    characters: int = 20_000
    name: int = 100
    seconds: float = 30


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("string_unicode", "half of a surrogate pair") from None
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Utterance(BaseModel):
    """Who said what."""

    model_config = ConfigDict(extra="forbid", strict=True)

    speaker: Text
    text: Text


class Dialogue(BaseModel):
    """Utterances and whose traits are asked for, or a body: what this speaker said, an utterance a line."""

    model_config = ConfigDict(extra="forbid", strict=True)

    utterances: list[Utterance] | None = Field(default=None, examples=[[{"speaker": "A", "text": "こんにちは。"}]])
    speaker: Text | None = Field(default=None, examples=["A"])
    body: Text | None = Field(default=None, examples=[None])


class Batch(BaseModel):
    """Several dialogues."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dialogues: list[Dialogue]


def context_of(task: Task) -> str | None:
    """Tell what a task's rows hold of a dialogue ("none", "partner"); None where they are not made of dialogues."""
    data = task.spec["data"]
    for owner in (data, *splits(data), *data.get("train", {}).values()):
        rows = owner.get("rows", {})
        if rows.get("format") == "real_persona_chat":
            return rows.get("context", "none")
    return None


class BodyMaker:
    """Makes bodies of dialogues as training rows were made.

    Args:
        task: Whose rows.
        limits: What a dialogue may hold.
    """

    def __init__(self, task: Task, limits: Limits) -> None:
        self._task = task
        self._limits = limits
        self._context = context_of(task)

    def bodies(self, dialogues: Sequence[Dialogue], batch: bool) -> list[str]:
        """Check dialogues and make their bodies.

        Args:
            dialogues: What was asked for.
            batch: Whether problems name which dialogue they are of.

        Raises:
            UserError: What is wrong with them, of the first 20 problems.
        """
        if not 1 <= len(dialogues) <= self._limits.dialogues:
            raise UserError(
                f"dialogues: found {len(dialogues)}, expected 1 to {self._limits.dialogues}; send several requests"
            )
        places = [f"dialogues[{number}]." if batch else "" for number in range(len(dialogues))]
        problems = [
            f"{place}{problem}"
            for place, dialogue in zip(places, dialogues, strict=True)
            for problem in self._problems(dialogue)
        ]
        if problems:
            raise UserError(shortened(problems))
        return [self._body(dialogue) for dialogue in dialogues]

    def _body(self, dialogue: Dialogue) -> str:
        if dialogue.body is not None:
            return self._task.clean(dialogue.body)
        assert dialogue.utterances and dialogue.speaker and self._context
        lines = [(each.speaker, persona_chat.clean(each.text)) for each in dialogue.utterances]
        said = persona_chat.Dialogue("", "", list(dict(lines)), lines)
        return self._task.clean(persona_chat.body(said, dialogue.speaker, self._context))

    def _problems(self, dialogue: Dialogue) -> Iterator[str]:
        if dialogue.utterances is None:
            yield from self._body_problems(dialogue)
        elif dialogue.body is not None:
            yield "body: found beside utterances, expected one of them; leave one out"
        elif self._context is None:
            yield f"utterances: {self._task.name} estimates from texts, not from dialogues; send body"
        else:
            yield from self._utterance_problems(dialogue, dialogue.utterances)

    def _body_problems(self, dialogue: Dialogue) -> Iterator[str]:
        if dialogue.body is None:
            wanted = INPUT["body"] if self._context is None else f"{INPUT['utterances']}, or {INPUT['body']}"
            yield f"body: neither body nor utterances is there; send {wanted}"
            return
        if not self._task.clean(dialogue.body):
            yield "body: empty, expected a text; send what the speaker said"
        if dialogue.speaker is not None:
            yield from self._name_problems("speaker", dialogue.speaker)
        yield from self._length_problems("body", len(dialogue.body))

    def _utterance_problems(self, dialogue: Dialogue, utterances: list[Utterance]) -> Iterator[str]:
        if not 1 <= len(utterances) <= self._limits.utterances:
            yield f"utterances: found {len(utterances):,}, expected 1 to {self._limits.utterances:,}; send those"
            return
        for number, each in enumerate(utterances):
            if not each.text.strip():
                yield f"utterances[{number}].text: empty, expected a text; leave the utterance out"
            yield from self._name_problems(f"utterances[{number}].speaker", each.speaker)
        speakers = list(dict.fromkeys(each.speaker for each in utterances))
        wanted = " or ".join(repr(speaker[:40]) for speaker in speakers)
        if len(speakers) > 2:
            yield f"utterances: found {len(speakers)} speakers, expected two; leave out what others said"
        elif dialogue.speaker is None:
            yield f"speaker: not there, expected {wanted}; say whose traits are asked for"
        elif dialogue.speaker not in speakers:
            yield f"speaker: {dialogue.speaker[:40]!r} says nothing, expected {wanted}; mend it"
        yield from self._length_problems("utterances", sum(len(each.text) for each in utterances))

    def _name_problems(self, place: str, name: str) -> Iterator[str]:
        if not name.strip():
            yield f"{place}: empty, expected a name such as 'A'; add it"
        elif len(name) > self._limits.name:
            yield f"{place}: found {len(name):,} characters, expected at most {self._limits.name}; shorten it"

    def _length_problems(self, place: str, length: int) -> Iterator[str]:
        if length > self._limits.characters:
            yield f"{place}: found {length:,} characters, expected at most {self._limits.characters:,}; send a part"


def shortened(problems: list[str]) -> list[str]:
    """Return the first 20 problems, and a line that says how many more there are."""
    return problems[:SHOWN] + ([f"and {len(problems) - SHOWN:,} more"] if len(problems) > SHOWN else [])


def schema_problems(errors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say in a line each what pydantic found; nothing of the request's texts is in it.

    Args:
        errors: As `RequestValidationError.errors()` gives them.
    """
    problems = []
    for error in errors:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"][1:]).lstrip(".")
        found = type(error.get("input")).__name__
        match error["type"]:
            case "json_invalid":
                what = f"not valid JSON, at character {error['loc'][-1]}; mend it"
                place = "request"
            case "missing":
                what = "not there; add it" if place else "nothing was sent; send JSON"
            case "extra_forbidden":
                what = "unknown key; leave it out, or mend its name"
            case "string_unicode":
                what = "half of a surrogate pair in it, expected valid Unicode; mend the text"
            case _:
                what = f"found {JSON_TYPES.get(found, found)}; {error['msg'].replace('Input', 'it').lower()}; mend it"
        shown = place if len(place) <= LONGEST_PLACE else f"{place[:LONGEST_PLACE]}..."
        problems.append(f"{shown or 'request'}: {what}".encode(errors="replace").decode())
    return problems
