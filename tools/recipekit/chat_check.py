"""What is wrong with files of conversations, and what is in them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from recipekit.chat_making import near_pairs, text_of
from recipekit.chat_rows import row_problems
from recipekit.conversations import Conversations, Row, read_rows
from recipekit.errors import UserError
from recipekit.runs import first_problems, relative

KEYS = frozenset(
    ["id", "system", "messages", "context", "conversation", "attribute", "metadata", "chosen", "rejected"]
    + ["kind", "reference", "facts", "set", "phase"]  # of test scenes
)
PAIRS = 3  # near duplicates that are named
BAR = 20  # characters of a bar


@dataclass
class Checked:
    """What files of conversations hold.

    Attributes:
        rows: Rows without problems, each with its place.
        read: Rows read, of every file.
        problems: File -> all that is wrong.
        strange: Keys of rows that nobody reads -> how often.
        nameless: Rows without an id.
    """

    rows: list[tuple[str, Row]] = field(default_factory=list)
    read: Counter[Path] = field(default_factory=Counter)
    problems: dict[Path, list[str]] = field(default_factory=dict)
    strange: Counter[str] = field(default_factory=Counter)
    nameless: int = 0

    @property
    def errors(self) -> list[str]:
        """The problems of every file, the first ones of each."""
        return [line for path, found in self.problems.items() for line in first_problems(path, found)]


def place(path: Path, number: int) -> str:
    """Name a row's place: its line, or its number in a .json document."""
    return f"{relative(path)}: conversation {number}" if path.suffix == ".json" else f"{relative(path)}:{number}"


def check(conversations: Conversations, paths: list[Path], advance: Callable[..., None]) -> Checked:
    """Read files of conversations of either form; what cannot be read is a problem of its file."""
    checked = Checked()
    first: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        found = checked.problems.setdefault(path, [])
        for number, row in _rows(path, found):
            here = place(path, number)
            checked.read[path] += 1
            advance()
            if isinstance(row, str):
                found.append(f"{here}: {row}")
                continue
            wrong = [f"{here}: {key}: {what}" for key, what in row_problems(conversations, row)]
            name = row.get("id")
            if name in (None, ""):
                checked.nameless += 1
            elif (before := first.setdefault(str(name), here)) != here:
                wrong.append(f"{here}: id: '{name}' stands at {before} already; give it another")
            checked.strange.update(key for key in row if key not in KEYS)
            found += wrong
            if not wrong:
                checked.rows.append((here, row))
        if not checked.read[path] and not found:
            found.append(f"{relative(path)}: no rows in it; expected a conversation a line")
    return checked


def _rows(path: Path, problems: list[str]) -> Iterator[tuple[int, Row | str]]:
    try:
        yield from read_rows(path)
    except UserError as error:
        problems += error.problems


def warnings(checked: Checked, threshold: float) -> list[str]:
    """Tell what is no error, but may not be meant."""
    lines = [f"{count:,} rows have a key '{key}', which nothing reads" for key, count in checked.strange.most_common()]
    if checked.nameless:
        lines.append(f"{checked.nameless:,} rows have no id")
    texts, fields = [text_of(row) for _, row in checked.rows], [_fields(row) for _, row in checked.rows]
    pairs = [pair for pair in near_pairs(texts, threshold) if not _is_copy(texts, fields, *pair[:2])]
    if pairs:
        places = [where for where, _ in checked.rows]
        named = ", ".join(f"{places[b]} as {places[a]} ({alike:.2f})" for a, b, alike in pairs[:PAIRS])
        rows = len({later for _, later, _ in pairs})
        lines.append(f"{rows:,} near duplicates of earlier rows: {named}{' ...' if len(pairs) > PAIRS else ''}")
    return lines


def _fields(row: Row) -> list[Any]:
    return [row.get(key) for key in ("system", "context", "attribute", "metadata", "chosen", "rejected")]


def _is_copy(texts: list[str], fields: list[list[Any]], one: int, other: int) -> bool:
    """Tell whether a row says the same and stands for something else, as copies by augment do and sets of scenes."""
    return texts[one] == texts[other] and fields[one] != fields[other]


def sizes(conversations: Conversations, rows: list[Row]) -> Table:
    """Lay out how long conversations and turns are: the least, the middle one and the most."""
    read = [conversations.read(row) for row in rows]
    said = {role: [len(m["content"]) for one in read for m in one.messages if m["role"] == role] for role in
            ("user", "assistant")}  # fmt: skip
    measured = {"turns of a conversation": [len(one.messages) for one in read]}
    measured |= {f"characters, {role}": lengths for role, lengths in said.items()}
    table = Table("", "count", "least", "median", "most", box=None)
    for name, values in measured.items():
        if values:
            table.add_row(name, f"{sum(values):,}", f"{min(values):,}", f"{median(values):g}", f"{max(values):,}")
    return table


def distribution(conversations: Conversations, rows: list[Row]) -> Table:
    """Lay out how often each value of each field stands in rows."""
    table = Table("field", "value", "rows", "share", "", box=None)
    read = [conversations.read(row).fields for row in rows]
    for name, spec in conversations.fields.items():
        if not any(name in fields for fields in read):
            table.add_row(name, "(none)", f"{len(read):,}", "100%")
            continue
        values = [value for fields in read if name in fields for value in _several(fields[name])]
        having = sum(name in fields for fields in read)
        counts = Counter(map(str, values))
        if "text" in spec:
            table.add_row(name, f"({len(counts):,} different)", f"{having:,}", f"{having / len(read):.0%}")
            continue
        order = [str(value) for value in (range(len(spec["levels"])) if "levels" in spec else spec["values"])]
        for number, value in enumerate(order):
            share = counts[value] / len(read)
            cells = (f"{counts[value]:,}", f"{share:.0%}", "━" * round(BAR * share))
            table.add_row(name if number == 0 else "", value, *cells)
        if without := len(read) - having:
            table.add_row("", "(none)", f"{without:,}", f"{without / len(read):.0%}")
    return table


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
