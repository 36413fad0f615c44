"""Estimators: articles in, rows of a regression task out; its model has heads, or writes digits (a decoder)."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.inputs import Article
from recipekit.regressor import FILE, Regressor
from recipekit.runs import relative
from recipekit.task import Task

Row = dict[str, Any]
CHUNK = 512  # articles at a time; among them those of like length are read together


class HeadEstimator:
    """Estimates with a model that has heads."""

    def __init__(self, task: Task, folder: Path, batch_size: int) -> None:
        """Load the model.

        Raises:
            UserError: Its heads are not the task's targets.
        """
        self.regressor = Regressor.load(folder)
        self.batch_size = batch_size
        if self.regressor.targets != list(task.targets):
            raise UserError(
                f"{relative(folder / FILE)}: estimates {', '.join(self.regressor.targets)}, expected the targets of "
                f"recipes/{task.spec['name']}/task.yml: {', '.join(task.targets)}; train the last phase again"
            )

    def predict(self, articles: Iterable[Article]) -> Iterator[Row]:
        """Yield a row an article."""
        waiting = iter(articles)
        while chunk := list(islice(waiting, CHUNK)):
            values = self.regressor.predict([article.body for article in chunk], batch_size=self.batch_size)
            for article, own in zip(chunk, values.round(4).tolist(), strict=True):
                yield {"id": article.id, "output": dict(zip(self.regressor.targets, own, strict=True)), "valid": True}
