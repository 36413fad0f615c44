"""Texts -> numbers and classes, with a merged model of a regression task.

regressor = Regressor.load(Path("outputs/bigfive/merged"))
values = regressor.predict(["..."])  # [texts, targets]
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from recipekit import models
from recipekit.errors import UserError
from recipekit.regression import Array, RegressionConfig
from recipekit.runs import relative

FILE = "regression.json"  # beside the merged weights: heads, what training scaled with, and how wide errors are
COVERAGE = 0.8  # share of validation rows whose error is within an interval


class Regressor:
    """A model with regression heads.

    Attributes:
        spec: The heads.
        targets: Names of those that estimate numbers, in order.
        max_length: Tokens at which a text is cut.
        interval: Target -> half width of the interval that held COVERAGE of the validation rows; empty where unknown.
    """

    def __init__(
        self, model: Any, tokenizer: Any, spec: RegressionConfig, max_length: int, interval: dict[str, float]
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.spec = spec
        self.targets = spec.numbers
        self.max_length = max_length
        self.interval = interval

    @classmethod
    def load(cls, folder: Path) -> "Regressor":
        """Load a merged model in bfloat16 onto a GPU, or in float32 on the CPU.

        Raises:
            UserError: The folder holds no merged model of a regression task.
        """
        import torch

        facts = read_facts(folder)
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        model = models.load_classifier(folder, dtype)
        return cls(model, models.load_tokenizer(folder), facts.regression, facts.max_length, facts.interval)

    def outputs(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32,
        advance: Callable[..., Any] = lambda n: None,
    ) -> Array:  # fmt: skip
        """Compute the model's outputs, longest texts first, so that batches are of like length.

        Args:
            texts: What is read.
            pairs: The second text of each, where the model compares two.
            batch_size: Texts at a time.
            advance: Called with the number of texts done.

        Returns:
            Float of shape [texts, outputs].
        """
        import torch

        found = np.zeros((len(texts), self.spec.num_labels))
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]) - (len(pairs[i]) if pairs else 0))
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                places = order[start : start + batch_size]
                own = [texts[i] for i in places], [pairs[i] for i in places] if pairs else None
                batch = self.tokenizer(
                    *own, truncation=True, max_length=self.max_length, padding=True, return_tensors="pt"
                )
                found[places] = self.model(**batch.to(self.model.device)).logits.float().cpu().numpy()
                advance(len(places))
        return found

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, batch_size: int = 32,
        advance: Callable[..., Any] = lambda n: None,
    ) -> Array:  # fmt: skip
        """Estimate the targets of texts, in the units of the labels; arguments as of `outputs`.

        Returns:
            Float of shape [texts, targets].
        """
        values = self.spec.decode(self.outputs(texts, pairs, batch_size, advance))
        return np.stack([values[name] for name in self.targets], axis=1)


class Facts(BaseModel):
    """What regression.json says; attributes as of Regressor."""

    regression: RegressionConfig
    max_length: int = Field(gt=0)
    interval: dict[str, float]


def read_facts(folder: Path) -> Facts:
    """Read what stands beside a merged model about its heads.

    Raises:
        UserError: There is nothing to read, or it is torn.
    """
    path = folder / FILE
    models.check_model(folder, "run: uv run tools/merge.py TASK --profile cpu or gpu")
    try:
        return Facts.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        what = "no such file, so this is no model of a regression task"
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"not whole, {'.'.join(map(str, first['loc']))}: {first['msg']}".replace("whole, : ", "whole: ")
    raise UserError(f"{relative(path)}: {what}; merge the task's last phase again with tools/merge.py")


def half_width(errors: Array) -> float:
    """Return the half width of a split-conformal interval (Vovk 2005): what COVERAGE of new errors stay within.

    Args:
        errors: Absolute errors on rows that training has not seen, shape [rows].
    """
    rank = min(math.ceil((len(errors) + 1) * COVERAGE), len(errors))
    return float(np.sort(errors)[rank - 1])
