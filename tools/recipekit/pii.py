"""Personal information in Japanese text: names, addresses, phone numbers, mail, card numbers and my numbers."""

from typing import NamedTuple

from recipekit import standins
from recipekit.name_rule import MASK
from recipekit.pii_address import find_addresses
from recipekit.pii_numbers import find_numbers
from recipekit.pii_person import Model, Person

_SENTENCE = 10  # characters from which on the model has something to read
KINDS = ("person", "address", "phone", "mail", "card", "my_number")


class Finding(NamedTuple):
    """A stretch of text that tells who somebody is.

    Attributes:
        kind: One of KINDS.
        start: Its first character in the text.
        end: Behind its last one.
        text: What stands there.
        sure: False where only a weak rule says so.
    """

    kind: str
    start: int
    end: int
    text: str
    sure: bool


class Scanner:
    """Finds personal information; what tools/mask_pii.py put in its place is none. One scanner a process."""

    def __init__(self, ginza: bool = False) -> None:
        """Load the dictionary, and GiNZA's model where more names are worth a hundredth of the speed."""
        self.person = Person()
        self._model = Model() if ginza else None

    def scan(self, text: str) -> list[Finding]:
        """Find personal information.

        Returns:
            What was found in order, none overlapping another.
        """
        shown = text
        numbers = sorted(find_numbers(text), key=lambda number: (_FIRST.get(number[0], len(_FIRST)), number[1]))
        whole = [number for number in numbers if number[0]]
        for _, start, end, _ in numbers:  # nobody's too: what stands beside a number is read alike before and after
            shown = shown[:start] + MASK * (end - start) + shown[end:]
        shown, places = _collapsed(standins.blank(shown, MASK))
        found = [("address", *place) for place in find_addresses(shown)]
        found += [("person", *place) for place in self.person.find(shown)]
        if self._model and len(shown) >= _SENTENCE:
            found += [("person", *place) for place in self._model.find(shown)]
        whole += [(kind, places[start], places[end - 1] + 1, sure) for kind, start, end, sure in found if end > start]
        return _apart([Finding(kind, start, end, text[start:end], sure) for kind, start, end, sure in whole], text)


def _collapsed(text: str) -> tuple[str, list[int]]:
    """Write one mask for several, so that the words beside it read alike however long a stand-in is; and the places."""
    places = [place for place, character in enumerate(text) if character != MASK or text[place - 1 : place] != MASK]
    if len(places) == len(text):
        return text, places
    return "".join(text[place] for place in places), places


_FIRST = {kind: place for place, kind in enumerate(("mail", "card", "my_number", "phone", "address", "person"))}


def _apart(found: list[Finding], text: str) -> list[Finding]:
    """Join overlapping findings of a kind; of others keep the sure first, then numbers, addresses and names."""
    joined: list[Finding] = []
    for one in sorted(found, key=lambda f: (_FIRST[f.kind], f.start)):
        last = joined[-1] if joined else None
        if last and last.kind == one.kind and one.start < last.end:
            end = max(last.end, one.end)
            joined[-1] = Finding(one.kind, last.start, end, text[last.start : end], last.sure or one.sure)
        else:
            joined.append(one)
    kept: list[Finding] = []
    for one in sorted(joined, key=lambda f: (not f.sure, _FIRST[f.kind], f.start - f.end)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda f: f.start)
