"""Scenes that replies are to be drafted for: what a file of contexts holds, and what the data lack most."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipekit import yamlfile
from recipekit.chat_bias import SOURCE, bins
from recipekit.chat_fields import ATTRIBUTE, typed
from recipekit.chat_making import csv_rows
from recipekit.conversations import Conversation, Conversations, read_rows
from recipekit.errors import UserError
from recipekit.runs import digest, relative

ENDINGS = (".yml", ".yaml", ".jsonl", ".csv")
FORM = 'such as {"context": "...", "fields": {...}, "user": "..."}'
KEYS = ("id", "system", "context", "attribute", "fields", "user")
Entry = tuple[str, dict[str, Any]]  # its place, and what stands there


@dataclass(frozen=True)
class Scene:
    """A conversation that is to be.

    Attributes:
        id: Its name in the journal and in the data.
        fields: What it says of itself (metadata), by the names of chat.fields.
        turns: What the user says, in order, as far as it is known.
        wanted: Exchanges that it is to have.
        system: Who the model is, where the scene says so itself.
    """

    id: str
    fields: dict[str, Any]
    turns: list[str]
    wanted: int
    system: str | None = None

    def row(self) -> dict[str, Any]:
        """Write it as the journal holds it."""
        return asdict(self)


def read(conversations: Conversations, path: Path, wanted: int | None) -> list[Scene]:
    """Read a file of contexts.

    Args:
        conversations: Of the task.
        path: .yml with a list under "scenes", .jsonl with an object a line, or .csv with a column a key.
        wanted: Exchanges of each conversation; None: as many as the scene has turns of the user, at least one.

    Raises:
        UserError: The file cannot be read, or scenes are wrong; all of them at once.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f"{relative(path)}: expected a file that ends in {', '.join(ENDINGS)}")
    problems: list[str] = []
    scenes: dict[str, tuple[Scene, str]] = {}
    for place, entry in list(_entries(conversations, path, problems)):
        found, wrong = _scene(conversations, entry, wanted)
        problems += [f"{place}: {key}: {what}" for key, what in wrong]
        if found and found.id in scenes:
            problems.append(f"{place}: the same id or content as {scenes[found.id][1]}; change or remove one of them")
        elif found:
            scenes[found.id] = found, place
    if problems:
        raise UserError(problems)
    if not scenes:
        raise UserError(f"{relative(path)}: no scenes; write some, {FORM}")
    return [scene for scene, _ in scenes.values()]


def _entries(conversations: Conversations, path: Path, problems: list[str]) -> Iterator[Entry]:
    """Yield what stands in a file; what is no object becomes a problem."""
    shown = relative(path)
    if path.suffix in (".yml", ".yaml"):
        document, lines = yamlfile.load(path)
        scenes = document.get("scenes")
        if not isinstance(scenes, list):
            raise UserError(f"{shown}: scenes: expected a list of scenes under this key, each {FORM}")
        found: list[tuple[int, Any]] = [(lines["scenes", i], scene) for i, scene in enumerate(scenes)]
    elif path.suffix == ".jsonl":
        found = list(read_rows(path))
    else:
        found = list(_cells(conversations, path))
    for line, entry in found:
        if isinstance(entry, dict):
            yield f"{shown}:{line}", entry
        elif isinstance(entry, str) and path.suffix == ".jsonl":
            problems.append(f"{shown}:{line}: {entry}")
        else:
            problems.append(f"{shown}:{line}: expected an object, found {type(entry).__name__}; write it {FORM}")


def _cells(conversations: Conversations, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a CSV: id, system, context, attribute, the fields, and user, user2, user3 ... for several turns."""
    rows = csv_rows(path)
    line, names = next(rows, (1, []))
    names = [name.strip() for name in names]
    known = {"id", "system", "context", ATTRIBUTE, *conversations.fields}
    if unknown := [name for name in names if name not in known and not _is_turn(name)]:
        raise UserError(
            f"{relative(path)}:{line}: no such column: {', '.join(map(repr, unknown))}; the columns are "
            f"{', '.join(sorted(known))}, user, and user2, user3 ... for further turns"
        )
    for line, values in rows:
        cells = {name: value.strip() for name, value in zip(names, values, strict=False) if value.strip()}
        entry: dict[str, Any] = {key: cells[key] for key in ("id", "system", "context") if key in cells}
        entry["fields"] = {}
        for name in cells:
            if name == ATTRIBUTE or (name in conversations.fields and name != "context"):
                entry["fields"] |= typed(conversations, name, cells[name])
        entry["user"] = [cells[name] for name in names if _is_turn(name) and name in cells]
        yield line, entry


def _is_turn(name: str) -> bool:
    return name == "user" or (name.startswith("user") and name[4:].isdigit())


def _scene(
    conversations: Conversations, entry: Mapping[str, Any], wanted: int | None
) -> tuple[Scene | None, list[tuple[str, str]]]:
    """Read a scene, or tell what is wrong with it."""
    wrong = [(key, f"no such key; the keys are {', '.join(KEYS)}") for key in entry if key not in KEYS]
    fields = entry.get("fields") or {}
    if not isinstance(fields, dict):
        return None, [*wrong, ("fields", f"expected an object, found {type(fields).__name__}")]
    fields = dict(fields)
    if "context" in entry:
        fields["context"] = entry["context"]
    if "attribute" in entry:
        names, numbers = conversations.attribute, entry["attribute"]
        if not names or not isinstance(numbers, list) or len(numbers) != len(names):
            wrong.append(("attribute", f"found {numbers!r}, expected a list [{', '.join(names)}]"))
        else:
            fields |= zip(names, numbers, strict=True)
    wrong += conversations.field_problems(fields)
    turns = entry.get("user") or []
    turns = [turns] if isinstance(turns, str) else turns
    if not isinstance(turns, list) or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        wrong.append(("user", f"found {turns!r}, expected what the user says: a text, or a list of texts"))
    system = entry.get("system")
    if system is not None and (not isinstance(system, str) or not system.strip()):
        wrong.append(("system", "empty or no text; say who the model is, or leave the key out"))
    if not entry.get("id") and not turns and not fields:
        wrong.append(("user", "nothing is said of this scene; give it a context, fields or a turn of the user"))
    if wrong:
        return None, wrong
    name = str(entry.get("id") or f"draft-{digest(dict(entry))[:12]}")
    return Scene(name, fields, [turn.strip() for turn in turns], max(wanted or 1, len(turns)), system), []


class Gaps:
    """Hands out what the data lack most, and counts what it has handed out.

    Args:
        conversations: Of the task.
        rows: The data.
        pair: Two fields whose combinations are to be even, or none.
        seed: Decides between what is lacking alike.
    """

    def __init__(
        self, conversations: Conversations, rows: Sequence[Conversation], pair: Sequence[str], seed: int
    ) -> None:
        self.values = {
            name: list(bins(spec)) for name, spec in conversations.fields.items()
            if "text" not in spec and not spec.get("many") and name != SOURCE
        }  # fmt: skip
        self.pair = list(pair)
        self.rng = random.Random(seed)
        self.counts: Counter[Any] = Counter()
        for row in rows:
            self.count(row.fields)

    def count(self, fields: Mapping[str, Any]) -> None:
        """Count a conversation."""
        both = tuple(fields.get(name) for name in self.pair)
        self.counts[both] += 1
        for name in self.values:
            self.counts[name, fields.get(name)] += 1
            self.counts[name, fields.get(name), both] += 1

    def fill(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Give a conversation values of the fields that it does not have: the emptiest pair, then the rarest values."""
        filled = dict(fields)
        if self.pair:
            choices: list[list[Any]] = [
                [filled[name]] if filled.get(name) is not None else self.values[name] for name in self.pair
            ]
            first, second = choices
            filled |= zip(self.pair, self._least([(a, b) for a in first for b in second], self._of_pair), strict=True)
        both = tuple(filled.get(name) for name in self.pair)
        for name, values in self.values.items():
            if filled.get(name) is None:
                filled[name] = self._least(values, lambda v, n=name: (self.counts[n, v], self.counts[n, v, both]))
        self.count(filled)
        return filled

    def _of_pair(self, both: Any) -> Any:
        return self.counts[both]

    def _least(self, choices: Sequence[Any], key: Any) -> Any:
        least = min(map(key, choices))
        return self.rng.choice([choice for choice in choices if key(choice) == least])
