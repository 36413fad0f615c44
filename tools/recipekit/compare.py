"""An answer beside the gold of its article: which values agree, and what is wrong with the others.

Entities (persons) are paired first, a predicted one with at most one gold one, so that a right age on the wrong person
is an error. Which one somebody is, is told by the key column of task.yml: two entities can be a pair where their keys
agree, or are at least half alike (a misspelt name), or where both have none. Of all ways to pair them the best is
taken: agreeing keys first, then how alike the keys are, then the number of agreeing columns.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jsonschema_rs
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from recipekit import spans
from recipekit.extract import Extractor
from recipekit.gold import Entity, GoldRow
from recipekit.normalise import KINDS, Form, agree
from recipekit.task import Task

ALIKE = 0.5  # of two values' characters; from here on a wrong one is a wrong span, and a wrong name still the person's
CLASSES = {
    "missed": "gold has a value, the answer none",
    "spurious": "the answer has a value of the article, gold none",
    "wrong span": "the answer has the right place of the article, but more or less of it",
    "wrong person": "the value is right for another entity of the article",
    "hallucinated": "the value does not stand in the article",
    "format": "the answer is no JSON of the task's schema, so that all its values are missed",
}


class Slot(NamedTuple):
    """A gold value, a predicted one, or two that belong together.

    Attributes:
        column: Gold column.
        gold: Value as it is written in the gold file, None where there is none.
        predicted: Value as it is written in the answer, None where there is none.
        alike: Likeness of the two, 0 to 1; 1 where they agree, 0 where one is missing. A spurious value that stands for
            a missed one keeps its likeness to it.
        right: Whether they agree.
        wrong: One of CLASSES; "" where right.
    """

    column: str
    gold: str | None
    predicted: str | None
    alike: float
    right: bool
    wrong: str = ""


class Comparison(NamedTuple):
    """What an answer got right and wrong.

    Attributes:
        slots: All values of gold and answer.
        entities: Entity's name -> numbers of gold ones, predicted ones and those that are right in every column.
        valid: Whether the answer fits the schema; one that does not counts as empty.
    """

    slots: list[Slot]
    entities: dict[str, tuple[int, int, int]]
    valid: bool


@lru_cache(maxsize=65536)
def likeness(a: str, b: str) -> float:
    """Return how alike two texts are, 0 to 1: 1 - edits / length of the longer (Levenshtein)."""
    return Levenshtein.normalized_similarity(a, b)


def assign(weights: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of weights is greatest; pairs of weight 0 are left out."""
    if not weights or not weights[0]:
        return []
    if len(weights) == len(weights[0]) == 1:
        pairs = [(0, 0)]
    else:
        pairs = list(zip(*(places.tolist() for places in linear_sum_assignment(weights, maximize=True)), strict=True))
    return [(i, j) for i, j in pairs if weights[i][j] > 0]


class Comparer:
    """Compares answers with gold as a task.yml says.

    Args:
        task: Its gold columns and output schema count.
    """

    def __init__(self, task: Task) -> None:
        self.extractor = Extractor(task)
        self.kinds: dict[str, Callable[[str], Form]] = {c: KINDS[s["compare"]] for c, s in task.gold_columns.items()}
        self.keys, self.columns = self.extractor.keys, self.extractor.columns
        self.is_valid = jsonschema_rs.validator_for(task.output_schema).is_valid

    def compare(self, gold: GoldRow, output: Any, article: str | None = None) -> Comparison:
        """Compare one answer.

        Args:
            gold: The article's.
            output: The parsed answer; None or one that breaks the schema counts as empty.
            article: Its text; without it no value is told to be hallucinated.
        """
        valid = output is not None and self.is_valid(output)
        entities, sets = self.extractor.values(output) if valid else ({}, {})
        slots: list[Slot] = []
        counts = {}
        for name in self.keys:
            if (right := gold.entities.get(name, [])) or name in entities:
                counts[name] = self._pair(name, right, entities.get(name, []), slots)
        for column in self.extractor.sets:
            if (values := gold.sets.get(column, [])) or column in sets:
                self._match(column, values, sets.get(column, []), slots)
        return Comparison([part for slot in slots for part in self._judge(slot, article, valid)], counts, valid)

    def _pair(self, name: str, gold: list[Entity], predicted: list[Entity], slots: list[Slot]) -> tuple[int, int, int]:
        if len(gold) > 1:
            gold = sorted(gold, key=self._order)
        if len(predicted) > 1:
            predicted = sorted(predicted, key=self._order)
        pairs = assign([[self._weight(name, g, p) for p in predicted] for g in gold])
        columns = self.columns[name]
        right = 0
        for i, j in pairs:
            found = [
                self._slot(c, gold[i].get(c), predicted[j].get(c)) for c in columns if c in gold[i] or c in predicted[j]
            ]
            right += all(slot.right for slot in found)
            slots += self._anothers(name, found, predicted[j], [g for place, g in enumerate(gold) if place != i])
        for i in set(range(len(gold))) - {i for i, _ in pairs}:
            slots += [Slot(c, gold[i][c], None, 0.0, False) for c in columns if c in gold[i]]
        for j in set(range(len(predicted))) - {j for _, j in pairs}:
            found = [Slot(c, None, predicted[j][c], 0.0, False) for c in columns if c in predicted[j]]
            slots += self._anothers(name, found, predicted[j], gold)
        return len(gold), len(predicted), right

    def _anothers(self, name: str, slots: list[Slot], predicted: Entity, others: list[Entity]) -> list[Slot]:
        """Mark the wrong values that are right for another one of the gold entities."""
        key = self.keys[name]
        others = [
            g for g in others if not (key in g and key in predicted and self._slot(key, g[key], predicted[key]).right)
        ]
        return [
            slot._replace(wrong="wrong person")
            if slot.predicted is not None
            and not slot.right
            and any(self._slot(slot.column, g[slot.column], slot.predicted).right for g in others if slot.column in g)
            else slot
            for slot in slots
        ]

    def _order(self, entity: Entity) -> list[Form]:
        return [kind(entity[c]) if c in entity else Form("", "") for c, kind in self.kinds.items()]

    def _weight(self, name: str, gold: Entity, predicted: Entity) -> float:
        key = self.keys[name]
        if (key in gold) != (key in predicted):
            return 0
        near = self._slot(key, gold[key], predicted[key]).alike if key in gold else 0.0
        if key in gold and near < ALIKE:
            return 0
        both = [self._slot(c, gold[c], predicted[c]) for c in self.columns[name] if c in gold and c in predicted]
        agreeing = sum(slot.right for slot in both)
        # An agreeing key outweighs near ones, a nearer one any number of columns; likeness of columns breaks ties.
        return 1e6 * (near == 1) + 1e3 * near + agreeing + 1e-3 * math.fsum(slot.alike for slot in both)

    def _slot(self, column: str, gold: str | None, predicted: str | None) -> Slot:
        if gold is None or predicted is None:
            return Slot(column, gold, predicted, 0.0, False)
        if gold == predicted:
            return Slot(column, gold, predicted, 1.0, True)
        kind = self.kinds[column]
        a, b = kind(gold), kind(predicted)
        if agree(a, b):
            return Slot(column, gold, predicted, 1.0, True)
        # Values that differ in the detail alone (two prefectures) are alike, but not the same.
        return Slot(column, gold, predicted, min(likeness(a.detail + a.key, b.detail + b.key), 0.99), False)

    def _match(self, column: str, gold: list[str], predicted: list[str], slots: list[Slot]) -> None:
        """Pair the values of two sets: equal ones, then agreeing ones, then those that are alike."""
        if gold == predicted and len(gold) == 1:
            slots.append(Slot(column, gold[0], gold[0], 1.0, True))
            return
        left, right = self._distinct(column, gold), self._distinct(column, predicted)
        for form in [form for form in left if form in right]:
            slots.append(Slot(column, left.pop(form), right.pop(form), 1.0, True))
        rest, others = sorted(left.items()), sorted(right.items())
        found = [[self._slot(column, g, p) for _, p in others] for _, g in rest]
        pairs = assign([[(s.alike + 1e3 * s.right) * (s.alike >= ALIKE) for s in row] for row in found])
        slots += [found[i][j] for i, j in pairs]
        slots += [Slot(column, rest[i][1], None, 0.0, False) for i in set(range(len(rest))) - {i for i, _ in pairs}]
        slots += [Slot(column, None, others[j][1], 0.0, False) for j in set(range(len(others))) - {j for _, j in pairs}]

    def _distinct(self, column: str, values: list[str]) -> dict[Form, str]:
        """Return one value of those that agree with each other, by normal form; the more detailed one stays."""
        if not values:
            return {}
        forms: dict[Form, str] = {}
        for value in values:
            forms.setdefault(self.kinds[column](value), value)
        detailed = {form.key for form in forms if form.detail} if len(forms) > 1 else ()
        return {form: value for form, value in forms.items() if form.detail or form.key not in detailed}

    def _judge(self, slot: Slot, article: str | None, valid: bool) -> list[Slot]:
        """Name what is wrong with a slot; two values that have nothing to do with each other become two slots."""
        if slot.right:
            return [slot]
        if not valid:
            return [slot._replace(wrong="format")]
        if slot.predicted is None:
            return [slot._replace(wrong="missed")]
        if slot.wrong:
            return [slot]
        if article is not None and not spans.contains(article, slot.predicted):
            return [slot._replace(wrong="hallucinated")]
        if slot.gold is None:
            return [slot._replace(wrong="spurious")]
        if _overlap(slot.gold, slot.predicted, article) or (article is None and slot.alike >= ALIKE):
            return [slot._replace(wrong="wrong span")]
        missed = Slot(slot.column, slot.gold, None, 0.0, False, "missed")
        return [missed, slot._replace(gold=None, wrong="spurious")]


def _overlap(a: str, b: str, article: str | None) -> bool:
    """Tell whether one value is inside the other, or the two stand in the article at places that overlap."""
    if a in b or b in a or article is None:
        return a in b or b in a
    places = spans.find(article, b)
    return any(start < end and begin < stop for start, stop in spans.find(article, a) for begin, end in places)
