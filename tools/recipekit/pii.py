"""Personal information in Japanese text: names, addresses, phone numbers, mail, card numbers and my numbers."""

from typing import NamedTuple

from recipekit import standins
from recipekit.name_rule import MASK
from recipekit.pii_address import find_addresses
from recipekit.pii_numbers import find_numbers
from recipekit.pii_person import Person

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

    def __init__(self) -> None:
        self.person = Person()

    def scan(self, text: str) -> list[Finding]:
        """Find personal information.

        Returns:
            What was found in order, none overlapping another.
        """
        shown = standins.blank(text, MASK)
        found = [Finding(kind, start, end, text[start:end], sure) for kind, start, end, sure in find_numbers(shown)]
        found += [Finding("address", start, end, text[start:end], sure) for start, end, sure in find_addresses(shown)]
        found += [Finding("person", start, end, text[start:end], sure) for start, end, sure in self.person.find(shown)]
        return _apart(found)


_FIRST = {kind: place for place, kind in enumerate(("mail", "card", "my_number", "phone", "address", "person"))}


def _apart(found: list[Finding]) -> list[Finding]:
    """Keep of overlapping findings the sure ones first, then numbers before addresses before names, then the longer."""
    kept: list[Finding] = []
    for one in sorted(found, key=lambda f: (not f.sure, _FIRST[f.kind], f.start - f.end)):
        if one.end > one.start and all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda f: f.start)
