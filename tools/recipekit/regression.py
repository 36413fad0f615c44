"""Heads that turn a text into numbers and classes: declared in a phase's YAML, read by training and prediction alike.

regression:
  heads:
    age: {scale: [0, 110]}        # a number, from least to greatest
    sex: {classes: [女, 男]}       # one of several
  ranking: {by: odai_id, loss: listwise}  # where the order of the rows of one group counts
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

Array = NDArray[np.float64]
HUBER = 0.1  # of the scale: beyond this error the loss grows no faster than the error
MARGIN = 1e-3  # of the scale: the nearest that a sigmoid's start comes to an end of it


class Head(BaseModel):
    """One thing to estimate.

    Attributes:
        scale: Least and greatest value of a number.
        classes: Names of the classes, of which one is right.
        weight: Of the head's loss in the sum.
        offset: What scaling by shift takes away; unset, the least training label.
    """

    model_config = ConfigDict(extra="forbid")

    scale: tuple[float, float] | None = None
    classes: list[str] | None = Field(default=None, min_length=2)
    weight: float = Field(default=1.0, gt=0)
    offset: float | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Head":
        if (self.scale is None) == (self.classes is None):
            raise ValueError("expected either scale: [least, greatest] or classes: [name, ...]")
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError(f"scale: found {list(self.scale)}, expected [least, greatest]")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a name stands twice")
        return self

    @property
    def size(self) -> int:
        """How many of the model's outputs belong to the head."""
        return len(self.classes) if self.classes else 1


class RankingConfig(BaseModel):
    """What the order of rows counts for.

    Attributes:
        by: Key of the rows whose values are ranked within.
        loss: Added to the head's own, with batches of whole groups; none: the order is only scored, as eval_ndcg.
        weight: Of that loss.
        temperature: Of listwise: what scaled labels are divided by before their softmax.
    """

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1)
    loss: Literal["none", "pairwise", "listwise"] = "none"
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=0.1, gt=0)


class RegressionConfig(BaseModel):
    """The key `regression` of a phase's YAML.

    Attributes:
        heads: Name, as in the rows' labels -> head.
        loss: Of numbers, after scaling; classes have cross-entropy.
        activation: What stands between the model's output and a scaled number.
        scaling: range divides by the scale, so that numbers become 0 to 1; shift only takes the head's offset away, so
            that a sigmoid reaches no number that is more than 1 above it.
        new_head: Begin with a new head on an adapter whose head was for other targets.
        ranking: Where the order within groups counts.
    """

    model_config = ConfigDict(extra="forbid")

    heads: dict[str, Head] = Field(min_length=1)
    loss: Literal["mse", "huber"] = "mse"
    activation: Literal["sigmoid", "none"] = "sigmoid"
    scaling: Literal["range", "shift"] = "range"
    new_head: bool = False
    ranking: RankingConfig | None = None

    @model_validator(mode="after")
    def _one_order(self) -> "RegressionConfig":
        if self.ranking and (len(self.heads) != 1 or not self.numbers):
            raise ValueError(
                f"ranking: found {len(self.heads)} heads, expected one, with a scale, that rows are ordered by"
            )
        return self

    @property
    def num_labels(self) -> int:
        """How many outputs the model has."""
        return sum(head.size for head in self.heads.values())

    @property
    def numbers(self) -> list[str]:
        """Names of the heads that estimate numbers."""
        return [name for name, head in self.heads.items() if head.scale]

    @property
    def id2label(self) -> dict[int, str]:
        """Name the model's outputs, for its config.json."""
        names = [
            f"{name}={each}" if each else name for name, head in self.heads.items() for each in (head.classes or [""])
        ]
        return dict(enumerate(names))

    def places(self) -> dict[str, slice]:
        """Tell which outputs belong to which head."""
        ends = np.cumsum([head.size for head in self.heads.values()]).tolist()
        return {name: slice(end - head.size, end) for (name, head), end in zip(self.heads.items(), ends, strict=True)}

    def encode(self, labels: Mapping[str, Any]) -> list[float]:
        """Write a row's labels as the numbers that training compares with: scaled values, and places of classes.

        Raises:
            KeyError: A label is missing.
            ValueError: A class is not known, or a number is none.
        """
        return [
            float(head.classes.index(labels[name])) if head.classes else self._scaled(head, float(labels[name]))
            for name, head in self.heads.items()
        ]

    def fitted(self, labels: Sequence[Mapping[str, Any]]) -> "RegressionConfig":
        """Fill in what depends on the training rows: the offsets of scaling by shift.

        Args:
            labels: Of all training rows.
        """
        if self.scaling != "shift":
            return self
        least = {name: min(float(row[name]) for row in labels) for name in self.numbers}
        heads = {
            name: head.model_copy(update={"offset": least[name]}) if name in least and head.offset is None else head
            for name, head in self.heads.items()
        }
        return self.model_copy(update={"heads": heads})

    def _line(self, head: Head) -> tuple[float, float]:
        """Return what a scaled 0 stands for, and how much more a scaled 1 does."""
        low, high = head.scale or (0.0, 1.0)
        return (low, high - low) if self.scaling == "range" else (low if head.offset is None else head.offset, 1.0)

    def _scaled(self, head: Head, value: float) -> float:
        zero, width = self._line(head)
        return (value - zero) / width

    def decode(self, outputs: Array) -> dict[str, Array]:
        """Turn the model's outputs into values.

        Args:
            outputs: Float of shape [rows, num_labels].

        Returns:
            Head -> numbers within the scale, shape [rows], or probabilities of its classes, shape [rows, classes].
        """
        found: dict[str, Array] = {}
        for name, place in self.places().items():
            head, part = self.heads[name], outputs[:, place].astype(np.float64)
            if head.scale is None:
                power = np.exp(part - part.max(1, keepdims=True))
                found[name] = power / power.sum(1, keepdims=True)
                continue
            zero, width = self._line(head)
            scaled = 1 / (1 + np.exp(-part[:, 0])) if self.activation == "sigmoid" else part[:, 0]
            found[name] = np.clip(zero + scaled * width, *head.scale)
        return found

    def decode_labels(self, labels: Array) -> dict[str, Array]:
        """Turn encoded labels, shape [rows, heads or more], back into values and places of classes, shape [rows]."""
        found: dict[str, Array] = {}
        for column, (name, head) in enumerate(self.heads.items()):
            zero, width = self._line(head)
            found[name] = labels[:, column] if head.classes else zero + labels[:, column] * width
        return found

    def start(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Choose the head's first biases, so that training starts at the constant mean rather than mid-scale.

        Args:
            rows: Encoded labels of the training rows, shape [rows, heads or more].

        Returns:
            num_labels biases: means of numbers before the activation, logarithms of the classes' shares.
        """
        biases: list[float] = []
        columns = np.asarray(rows, np.float64).T[: len(self.heads)]
        for column, head in zip(columns, self.heads.values(), strict=True):
            if head.classes:
                counts = np.bincount(column.astype(int), minlength=len(head.classes)) + 1
                biases += np.log(counts / counts.sum()).tolist()
            else:
                mean = float(column.mean())
                within = min(max(mean, MARGIN), 1 - MARGIN)
                biases.append(float(np.log(within / (1 - within))) if self.activation == "sigmoid" else mean)
        return biases
