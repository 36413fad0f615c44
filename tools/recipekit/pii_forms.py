"""Where the personal information of a row stands in all of its texts: what one gives away is found in the others."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from recipekit import spans, standins
from recipekit.extract import properties_of
from recipekit.name_rule import MASK
from recipekit.pii import Scanner
from recipekit.pii_parts import address_parts
from recipekit.spans import fold
from recipekit.task import Task

_ROUNDS = 8  # of looking again at what is left
_KINDS = {"person_name": "person", "address": "address"}  # `compare` in task.yml -> kind
_ADDRESS_LIKE = re.compile("[市区町村郡]|丁目|番地|[0-9０-９一二三四五六七八九]-?号")
_SAME = [re.compile("[0-9０-９]"), re.compile("[ァ-ヺーｦ-ﾟ]"), re.compile("[A-Za-zＡ-Ｚａ-ｚ]"), re.compile("[ぁ-ゖ]")]
_PLACE_BEHIND = re.compile("[市区町村県郡署駅]")
_VALUE = 200  # characters of a value of a label, at most
_TOWN = 3  # characters of a town's name that is looked for on its own


class Mark(NamedTuple):
    """A stretch of a text that is to be hidden."""

    start: int
    end: int
    kind: str


class Known(NamedTuple):
    """What task.yml says about a row: under which properties and columns names and addresses stand.

    Attributes:
        kinds: Property or column -> kind.
        separator: What is between several values of a CSV cell.
    """

    kinds: Mapping[str, str]
    separator: str

    @classmethod
    def of(cls, task: Task) -> "Known":
        """Read which columns are compared as person_name or address."""
        gold, kinds = task.spec["gold"], dict[str, str]()
        for name, column in task.gold_columns.items():
            if kind := _KINDS.get(column["compare"]):
                kinds |= {name: kind} | dict.fromkeys(properties_of(column["path"]), kind)
        return cls(kinds, gold["separator"])

    def values(self, value: Any, kind: str | None = None) -> Iterator[tuple[str, str]]:
        """Yield kind and text of the names and addresses in a row's label, also where it is JSON in a text."""
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from self.values(inner, self.kinds.get(key))
        elif isinstance(value, list):
            for inner in value:
                yield from self.values(inner, kind)
        elif isinstance(value, str) and kind:
            yield from ((kind, part) for part in value.split(self.separator) if fold(part))
        elif isinstance(value, str) and (start := value.find("{")) in (0, 1):
            try:
                yield from self.values(orjson.loads(value[start : value.rfind("}") + 1]))
            except orjson.JSONDecodeError:
                return


class Forms:
    """Finds what is to be hidden in rows."""

    def __init__(self, ginza: bool = False) -> None:
        self._scanner = Scanner(ginza)

    def marks(self, texts: list[str], known: Iterable[tuple[str, str]]) -> list[list[Mark]]:
        """Mark what is to be hidden in the texts of one row.

        Args:
            texts: All that the row says.
            known: Kind and text of names and addresses that its label has.

        Returns:
            For each text its marks in order, none overlapping another. Hiding them leaves nothing to be found.
        """
        shown = list(texts)
        marks: list[list[Mark]] = [[] for _ in texts]
        told = {(kind, value.strip()) for kind, value in known if self._counts(kind, value)}
        forms = told | {form for kind, value in told for form in self._shorter(kind, value)}
        for _ in range(_ROUNDS):
            found = [[Mark(f.start, f.end, f.kind) for f in self._scanner.scan(text)] for text in shown]
            for text, places in zip(shown, found, strict=True):
                for start, end, kind in places:
                    forms |= {(kind, text[start:end]), *self._shorter(kind, text[start:end])}
            for place, text in enumerate(shown):
                wanted = {mark for form in forms for mark in self._places(text, *form, form in told)}
                wanted |= set(_inside(texts, found, place))
                new = _apart(mark for mark in (*found[place], *wanted) if MASK not in text[mark.start : mark.end])
                marks[place] += new
                for start, end, _ in new:
                    text = text[:start] + MASK * (end - start) + text[end:]
                shown[place] = text
            if not any(found):
                break
        return [sorted(places) for places in marks]

    def split(self, name: str) -> int:
        """Return how many characters of a name in one are the family name."""
        return self._scanner.person.split(name)

    def _counts(self, kind: str, value: str) -> bool:
        invented = MASK in standins.blank(value, MASK)
        return not invented and (kind == "person" or bool(_ADDRESS_LIKE.search(value)))

    def _shorter(self, kind: str, text: str) -> set[tuple[str, str]]:
        """Return what else somebody or some place may be called: the family name, the city."""
        if kind == "person":
            words = re.split(r"[\s・･＝=]+", text)
            split = self.split(text) if len(words) == 1 else 0
            return {(kind, word) for word in (*words, text[:split]) if len(fold(word)) > 1}
        if kind != "address":
            return set()
        parts = [(role, part) for role, part in address_parts(text) if part]
        names = [place for place, (role, part) in enumerate(parts) if role == "place" and len(part) > 1]
        cities = {
            (kind, part + parts[place + 1][1])
            for place, (role, part) in enumerate(parts[:-1])
            if role == "place" and parts[place + 1][1] in "市区町村郡" and len(part) + 1 >= _TOWN
        }
        return cities | {(kind, "".join(part for _, part in parts[place:])) for place in names[1:]}

    def _places(self, text: str, kind: str, form: str, told: bool) -> Iterator[Mark]:
        """Yield where a form stands; a word that may mean something else counts as a whole text or quoted alone.

        What the label tells is hidden in all places where it stands in none that is sure.
        """
        if fold(form) not in fold(text):
            return
        everywhere = self._everywhere(kind, form)
        places = self._all_places(text, form)
        sure = [place for place in places if self._sure(text, *place, kind, everywhere)]
        yield from (Mark(start, end, kind) for start, end in (sure or (places if told else ())))

    @staticmethod
    def _all_places(text: str, form: str) -> list[spans.Span]:
        found: list[spans.Span] = []
        while places := spans.find(text, form):  # again, for those of another width
            found += places
            for start, end in places:
                text = text[:start] + MASK * (end - start) + text[end:]
        return found

    @staticmethod
    def _sure(text: str, start: int, end: int, kind: str, everywhere: bool) -> bool:
        """Tell whether a form stands on its own, and not within a longer word, number or place."""
        around = text[start - 1 : start] + "|" + text[end : end + 1]
        if re.fullmatch(r'["|\s]*', around):
            return True
        edges = [text[place - 1 : place + 1] for place in (start, end) if 0 < place < len(text)]
        cuts = any(same.fullmatch(edge[0]) and same.fullmatch(edge[1]) for edge in edges for same in _SAME)
        of_place = kind == "person" and end - start < 3 and _PLACE_BEHIND.match(text, end)
        return everywhere and not cuts and not of_place

    def _everywhere(self, kind: str, form: str) -> bool:
        word = fold(form)
        if kind == "address":
            return len(word) >= _TOWN
        if kind != "person":
            return True
        if re.fullmatch("[ぁ-ゖ]{1,3}", word) or len(word) == 1:
            return False
        return len(word) > 2 or self._scanner.person.is_name(form)


def _inside(texts: list[str], found: list[list[Mark]], place: int) -> Iterator[Mark]:
    """Yield what was found in a value of the label, where the whole value stands in a text."""
    for value, marks in zip(texts, found, strict=True):
        if marks and len(value) <= _VALUE and len(value) < len(texts[place]):
            for start, end in spans.find(texts[place], value) if value in texts[place] else ():
                yield from (Mark(start + m.start, start + m.end, m.kind) for m in marks if start + m.end <= end)


def _apart(marks: Iterable[Mark]) -> list[Mark]:
    """Keep of overlapping marks the longer."""
    kept: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.start - mark.end, mark)):
        if all(mark.end <= other.start or other.end <= mark.start for other in kept):
            kept.append(mark)
    return kept
