"""Recall and precision of a scanner on texts whose personal information is marked: 昨日、[person:広瀬好孝]さんは..."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from recipekit import ROOT
from recipekit.pii import KINDS
from recipekit.pii_forms import Forms

SAMPLES = ROOT / "data" / "samples" / "pii"
_MARK = re.compile(rf"\[({'|'.join(KINDS)}):([^\]]*)\]")


class Place(NamedTuple):
    """A marked or found stretch of a text: its kind, its first character and the one behind its last."""

    kind: str
    start: int
    end: int


class Score(NamedTuple):
    """How a kind was found.

    Attributes:
        marked: Stretches in the sample.
        hidden: Of them, those that findings of any kind cover wholly: nothing of them would be left.
        found: Stretches found.
        right: Of them, those that touch a marked one of their kind.
    """

    marked: int
    hidden: int
    found: int
    right: int

    @property
    def recall(self) -> float:
        """Share of the marked stretches that are hidden."""
        return self.hidden / self.marked if self.marked else 1.0

    @property
    def precision(self) -> float:
        """Share of the found stretches that are right."""
        return self.right / self.found if self.found else 1.0


def read_marked(path: Path) -> list[tuple[str, list[Place]]]:
    """Read a sample, a line each of genre, tab and marked text; returns plain texts with their marks."""
    samples = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text, marks, behind = "", [], 0
        marked = line.partition("\t")[2]
        for match in _MARK.finditer(marked):
            text += marked[behind : match.start()]
            marks.append(Place(match[1], len(text), len(text) + len(match[2])))
            text += match[2]
            behind = match.end()
        samples.append((text + marked[behind:], marks))
    return samples


def measure(samples: Iterable[tuple[str, list[Place]]], scan: Callable[[str], Iterable[Place]]) -> dict[str, Score]:
    """Compare what a scanner finds with what is marked; a kind each, and "all"."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for text, marks in samples:
        found = list(scan(text))
        covered = {place for one in found for place in range(one.start, one.end)}
        for mark in marks:
            needed = {place for place in range(mark.start, mark.end) if not text[place].isspace()}
            counts[mark.kind].update(marked=1, hidden=needed <= covered)
        for one in found:
            touches = any(m.kind == one.kind and m.start < one.end and one.start < m.end for m in marks)
            counts[one.kind].update(found=1, right=touches)
    scores = {kind: Score(*(count[field] for field in Score._fields)) for kind, count in counts.items()}
    return scores | {"all": Score(*map(sum, zip(*scores.values(), strict=True)))}


def of_samples(ginza: bool) -> dict[str, dict[str, Score]]:
    """Measure the scanner on both halves of the sample: the one that the rules were written on, and the other."""
    forms = Forms(ginza)

    def scan(text: str) -> list[Place]:
        return [Place(mark.kind, mark.start, mark.end) for mark in forms.marks([text], ())[0]]

    return {name: measure(read_marked(SAMPLES / f"{name}.txt"), scan) for name in ("dev", "held_out")}
