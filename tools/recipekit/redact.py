"""Personal names taken out of what is shown of a case: 広瀬好孝容疑者 becomes 人物1容疑者, and 広瀬容疑者 as well.

A number is one person of the article. What is taken for a name:

- gold and predicted values of the columns that task.yml compares as person_name, and every text that the answer has
  under the same property: people that are not asked for, such as victims, stand there too. They are hidden wherever
  they stand, in any width and spacing, and so are their beginnings and ends of two characters and more (広瀬, 好孝).
- in the article, what stands before さん, 氏, 容疑者, ... or an age in brackets, up to 12 characters of kanji, katakana
  or Latin script and 5 of hiragana. These are hidden everywhere, too.
- before 選手, 弁護士, 署長, ... likewise, but there alone: 金砂署長 may be a place.
- the reading in brackets after a name.

It hides rather too much: 会社員 with the name right behind it, 佐久市 where somebody is 佐久間健太. It cannot find:
people whom the answer does not name and who stand in the article without any of these words behind them
(「花子は泣いた」; of 「山田、鈴木両氏」 the first); a surname in hiragana before kanji; names in hiragana before
容疑者, 弁護士, ...; initials and nicknames; people told by other things than their name. Look through the result
before you pass it on.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from recipekit import spans
from recipekit.compare import Slot
from recipekit.evaluation import Case
from recipekit.extract import properties_of
from recipekit.name_rule import CJK, HONORIFICS, MASK, READING, ROLES, SHORT, names_before_titles
from recipekit.spans import fold
from recipekit.task import Task

WITHHELD = "…（形式不正の回答は伏せています / broken answers are withheld）"
_SUFFIX = re.compile(rf"(?<=.)(?:{ROLES}|{HONORIFICS}|{SHORT}|\([^()]*\)|（[^（）]*）)+$")
_ESCAPES = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
TEXT = r'"(?:[^"\\]|\\.)*"?'  # of JSON, which may be broken off


def redact(task: Task) -> Callable[[Case], Case]:
    """Return a function that takes personal names out of a case: its article, slots and prediction, but not its id."""
    columns = {name for name, spec in task.gold_columns.items() if spec["compare"] == "person_name"}
    properties = name_properties(task)
    separator = task.spec["gold"]["separator"]

    def redacted(case: Case) -> Case:
        names = _Names(properties)
        slots = case.comparison.slots
        values = [value for slot in slots if slot.column in columns for value in (slot.gold, slot.predicted) if value]
        names.learn([part for value in values for part in value.split(separator)] + list(names.named(case.prediction)))
        names.trusted = {s.gold for s in slots if s.gold and len(s.gold) > 2 and s.column not in columns}
        article = names.read(case.article) if case.article is not None else None
        slots = [_slot(slot, names.whole if slot.column in columns else names.hide) for slot in slots]
        prediction = {key: value if key == "id" else names.walk(value, key) for key, value in case.prediction.items()}
        if not case.comparison.valid:  # names may stand anywhere in it
            prediction |= {key: WITHHELD for key in ("raw", "output") if prediction.get(key) is not None}
        return Case(case.id, article, case.comparison._replace(slots=slots), prediction)

    return redacted


def name_properties(task: Task) -> set[str]:
    """Name the properties of an answer that personal names stand under."""
    entities = task.spec["gold"].get("entities", {})
    columns = [spec for spec in task.gold_columns.values() if spec["compare"] == "person_name"]
    paths = [spec["path"] for spec in columns]
    paths += [entities[spec["entity"]]["path"] for spec in columns if "entity" in spec]
    return {name for path in paths for name in properties_of(path)}


def _slot(slot: Slot, hide: Callable[[str], str]) -> Slot:
    return slot._replace(gold=slot.gold and hide(slot.gold), predicted=slot.predicted and hide(slot.predicted))


class _Names:
    """The names of one case.

    Attributes:
        people: Folded name -> number.
        forms: What is hidden wherever it stands, folded -> number.
        trusted: Gold values of other columns: no part of a name that the rule finds.
    """

    def __init__(self, properties: set[str]) -> None:
        self.properties = properties
        self.people: dict[str, int] = {}
        self.forms: dict[str, int] = {}
        self.trusted: set[str] = set()
        keys = "|".join(map(re.escape, properties))
        self._written = re.compile(rf'("(?:{keys})"\s*:\s*)(\[(?:\s*{TEXT}\s*,?)*|{TEXT})') if keys else None

    def learn(self, values: Iterable[str]) -> None:
        """Take values for names, parts of others last, so that a surname gets the number of the whole name."""
        names = list(dict.fromkeys(_SUFFIX.sub("", value.strip()) for value in values))
        for name in sorted(names, key=lambda name: any(name in other and name != other for other in names)):
            self._add(name, pieces=len(fold(name)) <= 8)

    def named(self, value: Any, is_name: bool = False) -> Iterator[str]:
        """Yield the texts under the names' properties, also of JSON in a text that may be broken off."""
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from self.named(inner, key in self.properties)
        elif isinstance(value, list):
            for inner in value:
                yield from self.named(inner, is_name)
        elif isinstance(value, str) and is_name:
            yield value
        elif isinstance(value, str) and self._written:
            for found in self._written.finditer(_unescape(value)):
                yield from (text.strip('"') for text in re.findall(TEXT, found[2]))

    def read(self, article: str) -> str:
        """Learn the names that the rule finds in an article, and hide all in it."""
        for _, name, sure in self._matches(self._masked(article)[0]):
            if sure:
                self._add(name, pieces=len(name) <= 4)
        return self.hide(article)

    def whole(self, value: str) -> str:
        """Hide a value that is a name."""
        return f"人物{self._number(_SUFFIX.sub('', value.strip()))}" if fold(value) else value

    def hide(self, text: str) -> str:
        """Hide the names in a text."""
        masked, found = self._masked(text)
        found += [(start, start + len(name), self._number(name)) for start, name, _ in self._matches(masked)]
        for _, end, number in list(found):
            if reading := READING.match(text, end):
                found.append((*reading.span(1), number))
        shown, position = "", 0
        for start, end, number in sorted(found):
            shown += f"{text[position:start]}人物{number}" if start >= position else ""
            position = max(position, end)
        return shown + text[position:]

    def walk(self, value: Any, key: str = "") -> Any:
        """Hide the names in every text of a JSON value."""
        if isinstance(value, dict):
            return {self.hide(name): self.walk(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.walk(inner, key) for inner in value]
        if not isinstance(value, str):
            return value
        if key in self.properties:
            return self.whole(value)
        text = _unescape(value)
        if self._written:
            text = self._written.sub(self._rewrite, text)
        return self.hide(text)

    def _rewrite(self, match: re.Match[str]) -> str:
        return match[1] + re.sub(
            TEXT, lambda text: re.sub('[^"]+', lambda name: self.whole(name[0]), text[0]), match[2]
        )

    def _add(self, name: str, pieces: bool) -> None:
        number = self._number(name)
        for form in (name, *(_pieces(name) if pieces else ())):
            if len(fold(form)) > 1 and any(character.isalpha() for character in form):
                self.forms.setdefault(fold(form), number)

    def _number(self, name: str) -> int:
        """Return a person's number; a part of a name is the person's, and so is a name with more around it."""
        name = fold(name)
        near = [known for known in self.people if known.startswith(name)]
        near += [known for known in self.people if name in known or (len(known) > 1 and known in name)]
        number = self.people[near[0]] if near else len(set(self.people.values())) + 1
        return self.people.setdefault(name, number)

    def _masked(self, text: str) -> tuple[str, list[tuple[int, int, int]]]:
        """Return a text with the known names masked, and (start, end, number) of them."""
        found = []
        folded = fold(text)
        for form in sorted((form for form in self.forms if form in folded), key=lambda form: -len(form)):
            while places := spans.find(text, form):  # again, for those of another width
                found += [(start, end, self.forms[form]) for start, end in places]
                text = _mask(text, places)
        return text, found

    def _matches(self, text: str) -> Iterator[tuple[int, str, bool]]:
        """Yield where the rule finds a name, the name, and whether nothing but a person is called so."""
        for value in self.trusted:
            text = _mask(text, spans.find(text, value))
        return names_before_titles(text)


def _mask(text: str, places: list[spans.Span]) -> str:
    for start, end in places:
        text = text[:start] + MASK * (end - start) + text[end:]
    return text


def _pieces(name: str) -> Iterator[str]:
    """Yield what else a name may be called by: its parts, or where it is written in one its beginnings and ends."""
    parts = re.split(r"[・･＝=,\s]+", name)
    if len(parts) > 1:
        yield from parts
        name = "".join(parts)
    elif re.fullmatch(rf"[{CJK}ぁ-ゖ]+", name):
        yield from (
            piece
            for size in range(len(name) - 1, 1, -1)
            for piece in (name[:size], name[-size:])
            if re.search("[㐀-鿿]", piece)
        )


def _unescape(text: str) -> str:
    r"""Read the characters that JSON wrote as \uXXXX, so that names are found in them."""
    return _ESCAPES.sub(lambda match: json.loads(f'"{match[0]}"'), text)
