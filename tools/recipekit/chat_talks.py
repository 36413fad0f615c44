"""Conversations of real people as they are kept elsewhere: JSONL, JSON or CSV of turns, whoever took them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from recipekit.errors import UserError
from recipekit.raw import chunks
from recipekit.runs import first_problems, relative

ENDINGS = (".jsonl", ".json", ".csv")
TURNS = ("turns", "messages", "utterances", "conversation", "dialogue")
SPEAKER = ("speaker", "role", "interlocutor_id", "from", "話者")
TEXT = ("text", "content", "value", "utterance", "発話")
NAME = ("conversation", "conversation_id", "dialogue_id", "会話")  # columns of a CSV file with a turn a row


@dataclass(frozen=True)
class Talk:
    """A conversation.

    Attributes:
        place: Where it stands.
        turns: Who said what, in order; nothing that is empty.
    """

    place: str
    turns: list[tuple[str, str]]

    @property
    def speakers(self) -> list[str]:
        """Who speaks, in the order in which they begin to."""
        return list(dict.fromkeys(who for who, _ in self.turns))


def files(paths: list[Path]) -> list[Path]:
    """Name the files, those of a folder in place of it.

    Raises:
        UserError: A folder has none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.suffix in ENDINGS) if path.is_dir() else [path]
        if not inside:
            raise UserError(f"{relative(path)}: no files in it that end in {', '.join(ENDINGS)}")
        found += inside
    return found


def read(paths: list[Path]) -> Iterator[Talk]:
    """Read conversations.

    Raises:
        UserError: All that keeps files from being read, the first of each; at the end.
    """
    wrong: list[str] = []
    for path in paths:
        problems: list[str] = []
        try:
            yield from _turns_of_csv(path, problems) if path.suffix == ".csv" else _documents(path, problems)
        except UserError as error:
            problems += error.problems
        wrong += first_problems(path, problems)
    if wrong:
        raise UserError(wrong)


def _documents(path: Path, problems: list[str]) -> Iterator[Talk]:
    for place, found in _objects(path):
        key = next((key for key in TURNS if isinstance(found, dict) and key in found), None)
        turns = found[key] if key else None
        if not isinstance(turns, list):
            keys = ", ".join(found) if isinstance(found, dict) else found if isinstance(found, str) else "no object"
            problems.append(f"{place}: found {keys[:100]}; expected a list of turns under one of {', '.join(TURNS)}")
            continue
        own = [_turn(turn) for turn in turns]
        bad = [number for number, turn in enumerate(own) if turn is None]
        problems += [f"{place}: {key}.{number}: {_expected(turns[number])}" for number in bad]
        if not bad:
            yield Talk(place, [turn for turn in own if turn and turn[1] and turn[0] != "system"])


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix != ".json":
        line = 1
        for chunk in chunks(path):
            for at, row in chunk.rows(line):
                yield f"{relative(path)}:{at}", row
            line += chunk.lines
        return
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{relative(path)}: {error.strerror}; name a file of conversations") from None
    except ValueError as error:
        raise UserError(f"{relative(path)}: not valid JSON: {error}; mend it, or name it .jsonl") from None
    if isinstance(found, dict) and isinstance(found.get("conversations"), list):
        found = found["conversations"]
    if isinstance(found, list):
        yield from ((f"{relative(path)}: conversation {number}", each) for number, each in enumerate(found, 1))
    else:
        yield relative(path), found


def _turn(turn: Any) -> tuple[str, str] | None:
    """Take who spoke and what out of a turn."""
    if not isinstance(turn, Mapping):
        return None
    who = next((turn[key] for key in SPEAKER if key in turn), None)
    text = next((turn[key] for key in TEXT if key in turn), None)
    if who is None or not isinstance(text, str):
        return None
    return str(who).strip(), text.strip()


def _expected(turn: Any) -> str:
    found = ", ".join(map(str, turn)) if isinstance(turn, Mapping) else type(turn).__name__
    return f"found {found[:100]}; expected who speaks ({', '.join(SPEAKER)}) and the text ({', '.join(TEXT)})"


def _turns_of_csv(path: Path, problems: list[str]) -> Iterator[Talk]:
    """Read a CSV file with a turn a row, those of a conversation one after another."""
    name, place, turns = "", "", list[tuple[str, str]]()
    seen: set[str] = set()
    for chunk in chunks(path):
        for line, row in chunk.rows(1):
            here = f"{relative(path)}:{line}"
            key = next((key for key in NAME if key in row), None) if isinstance(row, dict) else None
            turn = _turn(row)
            if isinstance(row, str) or key is None or turn is None:
                what = row if isinstance(row, str) else f"the columns are {', '.join(row)}; {_columns()}"
                problems.append(f"{here}: {what}")
                if not isinstance(row, str):
                    return  # every row of the file has these columns
                continue
            if row[key] != name and turns:
                yield Talk(place, turns)
                turns = []
            if row[key] != name and row[key] in seen:
                problems.append(f"{here}: {key}: '{row[key]}' stands further up already; keep its turns together")
            name, place = row[key], place if turns else here
            seen.add(name)
            if turn[1] and turn[0] != "system":
                turns.append(turn)
    if turns:
        yield Talk(place, turns)


def _columns() -> str:
    return f"expected one of {', '.join(NAME)}, one of {', '.join(SPEAKER)}, and one of {', '.join(TEXT)}"
