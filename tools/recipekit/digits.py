"""Numbers as single digits, which is how a language model answers a regression task: 開放性5 誠実性4 ...

A digit is drawn so that its mean over rows is the label (4.25 becomes 4 three times out of four), and an estimate is
the mean of the digits' probabilities, so nothing is lost to rounding.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipekit.errors import UserError
from recipekit.segments import encode
from recipekit.task import Task


def levels(scale: Sequence[float]) -> dict[str, float]:
    """Return the digits of a scale with their values: whole numbers as they are, other scales in ten even steps."""
    low, high = scale
    if float(low).is_integer() and float(high).is_integer() and low >= 0 and high <= 9:
        return {str(value): float(value) for value in range(int(low), int(high) + 1)}
    return {str(step): low + (high - low) * step / 9 for step in range(10)}


def draw(targets: Mapping[str, Mapping[str, Any]], label: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Round the targets of a label to digits, up or down by chance; what is no target stays.

    Args:
        targets: Of the task.
        label: Of a row.
        text: Its text, which chance is drawn from, so that the same row always has the same digits.
    """
    found = dict(label)
    for name in targets.keys() & label.keys():
        digits = levels(targets[name]["scale"])
        values = list(digits.values())
        place = (float(label[name]) - values[0]) / (values[1] - values[0])
        chance = int.from_bytes(hashlib.blake2b(f"{name}\0{text}".encode(), digest_size=8).digest(), "big") / 2**64
        found[name] = list(digits)[min(math.floor(place + chance), len(digits) - 1)]
    return found


@dataclass(frozen=True)
class Slots:
    """Where the digits stand in an answer's tokens.

    Attributes:
        ids: Tokens of an answer, with any digits in their places.
        places: Of the digit of each target.
        digits: Token of each digit, by target.
        values: Value of each digit, by target.
    """

    ids: list[int]
    places: list[int]
    digits: list[list[int]]
    values: list[NDArray[np.float64]]

    @classmethod
    def of(cls, task: Task, tokenizer: Any) -> "Slots":
        """Find the digits' places by writing answers that differ in one digit.

        Raises:
            UserError: A digit of some target is not one token of its own.
        """
        scales = {name: levels(target["scale"]) for name, target in task.targets.items()}
        first = {name: next(iter(digits)) for name, digits in scales.items()}
        ids = encode(tokenizer, [task.answer(first)])
        places, tokens = [], []
        for name, digits in scales.items():
            others = [encode(tokenizer, [task.answer({**first, name: digit})]) for digit in digits]
            changed = {i for own in others if len(own) == len(ids) for i in range(len(ids)) if own[i] != ids[i]}
            if len(changed) != 1 or any(len(own) != len(ids) for own in others):
                raise UserError(
                    f"regression.targets.{name} in task.yml: the base's tokenizer does not keep the digit after "
                    f"'{task.targets[name].get('title', name)}' as one token; take a base whose tokenizer splits digits"
                )
            places.append(changed.pop())
            tokens.append([own[places[-1]] for own in others])
        values = [np.array(list(digits.values())) for digits in scales.values()]
        return cls(ids, places, tokens, values)
