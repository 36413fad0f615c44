"""Copies of conversations that say more of themselves: another feeling, relation or memory, and the same replies."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
import yaml

from recipekit.chat_making import read_text, unused
from recipekit.conversations import Conversations, Row
from recipekit.errors import UserError
from recipekit.raw import key
from recipekit.runs import first_problems, relative

MOST = 3  # texts that are drawn for a field with many
SAID = ("messages", "conversation", "chosen", "rejected", "system")  # keys that no augmentation touches


@dataclass
class Augmented:
    """What came of it.

    Attributes:
        rows: The copies.
        copies: Field -> copies.
        has: Field -> rows that say it already, of which none was made.
    """

    rows: list[Row] = field(default_factory=list)
    copies: Counter[str] = field(default_factory=Counter)
    has: Counter[str] = field(default_factory=Counter)


def read_shares(
    conversations: Conversations, written: Sequence[str], texts: Mapping[str, list[str]]
) -> dict[str, float]:
    """Read FIELD=SHARE options.

    Raises:
        UserError: All that is wrong: no such field, no share, or a field of texts without a list of them.
    """
    shares: dict[str, float] = {}
    wrong = []
    for each in written:
        name, _, share = each.partition("=")
        spec = conversations.fields.get(name)
        try:
            shares[name] = float(share)
            good = 0 < shares[name] <= 1
        except ValueError:
            good = False
        if spec is None:
            wrong.append(f"--draw {each}: no such field; the fields in task.yml are {', '.join(conversations.fields)}")
        elif not good:
            wrong.append(f"--draw {each}: expected FIELD=SHARE, the share above 0 and up to 1, as {name}=0.3")
        elif "text" in spec and name not in texts:
            wrong.append(f"--draw {each}: {name} is text; give a list of them: --texts {name}=FILE")
    wrong += [f"--texts {name}: no --draw {name}=SHARE goes with it" for name in texts if name not in shares]
    if wrong or not shares:
        raise UserError(wrong or "--draw is missing: say which field which share of rows gets, as --draw emotion=0.3")
    return shares


def read_texts(written: Sequence[str]) -> dict[str, list[str]]:
    """Read FIELD=FILE options: a list as YAML or JSON, or a text a line (.txt).

    Raises:
        UserError: A file cannot be read, or is no list of texts; all that is wrong.
    """
    found: dict[str, list[str]] = {}
    wrong: list[str] = []
    for each in written:
        name, _, file = each.partition("=")
        if not file:
            wrong.append(f"--texts {each}: expected FIELD=FILE, as memories=memories.txt")
            continue
        try:
            found[name] = _texts(Path(file))
        except UserError as error:
            wrong += error.problems
    if wrong:
        raise UserError(wrong)
    return found


def _texts(path: Path) -> list[str]:
    try:
        content = read_text(path, "a list of texts")
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        values = lines if path.suffix == ".txt" else yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise UserError(f"{relative(path)}: not valid YAML or JSON: {' '.join(str(error).split())}; mend it") from None
    if not isinstance(values, list) or not values:
        raise UserError(
            f"{relative(path)}: expected a list of texts, found {type(values).__name__ if values else 'nothing'}"
        )
    wrong = [f"{relative(path)}: {number}: found {value!r}, expected a text" for number, value in enumerate(values, 1)
             if not isinstance(value, str) or not value.strip()]  # fmt: skip
    if wrong:
        raise UserError(first_problems(path, wrong))
    return list(dict.fromkeys(value.strip() for value in values))


def augment(
    conversations: Conversations, rows: Sequence[Row], shares: Mapping[str, float], texts: Mapping[str, list[str]],
    seed: int, replace: bool,
) -> Augmented:  # fmt: skip
    """Copy a share of rows for each field, with a value drawn for it; what a row draws depends on its id and the seed.

    Args:
        conversations: Of the task.
        rows: Rows without problems, each with an id.
        shares: Field -> share of the rows.
        texts: Field -> what is drawn from, of fields that are text.
        seed: Of the draws.
        replace: Whether rows that say a field already get another value in their copy; to fields with many values
            some are added anyway.
    """
    made = Augmented()
    names = {str(row["id"]) for row in rows}
    for name, share in shares.items():
        adds = replace or conversations.fields[name].get("many")
        free = [row for row in rows if adds or name not in conversations.read(row).fields]
        made.has[name] = len(rows) - len(free)
        order = sorted(free, key=lambda row: key(f"{seed}\0{name}\0{row['id']}"))
        chosen = {str(row["id"]) for row in order[: round(share * len(rows))]}
        for row in free:
            if str(row["id"]) in chosen:
                copy = _copy(conversations, row, name, texts.get(name, []), Random(f"{seed}\0{name}\0{row['id']}"))
                if copy == row:  # nothing new is left to add
                    continue
                copy["id"] = unused(f"{row['id']}-{name}", names)
                names.add(copy["id"])
                made.rows.append(copy)
                made.copies[name] += 1
    return made


def _copy(conversations: Conversations, row: Row, name: str, texts: list[str], rng: Random) -> Row:
    spec = conversations.fields[name]
    before = conversations.read(row).fields.get(name)
    value = _drawn(spec, before, texts, rng)
    copy = dict(row)
    if name in conversations.attribute and "attribute" in row:
        place = conversations.attribute.index(name)
        copy["attribute"] = [*row["attribute"][:place], value, *row["attribute"][place + 1 :]]
    elif name == "context" and "context" in row:
        copy["context"] = value
    else:
        copy["metadata"] = {**(row.get("metadata") or {}), name: value}
    if _said(copy) != _said(row):
        raise AssertionError(f"{row['id']}: an augmentation changed what is said")
    return copy


def _said(row: Row) -> bytes:
    return orjson.dumps([row.get(part) for part in SAID])


def _drawn(spec: Mapping[str, Any], before: Any, texts: list[str], rng: Random) -> Any:
    """Draw a value that is not the one of before; of a field with many a few, which come to those of before."""
    known: list[Any] = texts or [*(range(len(spec["levels"])) if "levels" in spec else spec["values"])]
    if not spec.get("many"):
        return rng.choice([value for value in known if value != before] or known)
    new = [value for value in known if value not in (before or [])]
    return [*(before or []), *rng.sample(new, min(rng.randint(1, MOST), len(new)))]
