"""Estimators: articles in, rows of a regression task out; its model has heads, or writes digits (a decoder)."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipekit import decoding, models, windows
from recipekit.digits import Slots
from recipekit.errors import UserError
from recipekit.inputs import Article, pair_digest
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
            texts = [article.body for article in chunk]
            pairs = [article.pair for article in chunk if article.pair is not None] or None
            values = self.regressor.predict(texts, pairs, self.batch_size)
            for article, own in zip(chunk, values.round(4).tolist(), strict=True):
                row = {"id": article.id, "output": dict(zip(self.regressor.targets, own, strict=True)), "valid": True}
                yield row | ({"digest": pair_digest(article.body, article.pair)} if article.pair is not None else {})


class DigitEstimator:
    """Estimates with a language model that writes a digit for each target: the mean of the digits' probabilities."""

    def __init__(self, task: Task, folder: Path, batch_size: int) -> None:
        """Load the model.

        Raises:
            UserError: Its tokenizer has no token for each digit, or its context leaves no room for a text.
        """
        import torch

        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        self.task = task
        self.model, self.tokenizer = models.load_model(folder, dtype), models.load_tokenizer(folder)
        self.slots = Slots.of(task, self.tokenizer)
        self.batch_size = batch_size
        self.room = decoding.context_length(self.model.config) - len(self.slots.ids)
        windows.check_room(task, self.tokenizer, self.room)

    def predict(self, articles: Iterable[Article]) -> Iterator[Row]:
        """Yield a row an article; one that is longer than the context is the mean of its parts."""
        waiting = iter(articles)
        while chunk := list(islice(waiting, CHUNK)):
            parts = [windows.prompts(self.task, self.tokenizer, article.body, self.room) for article in chunk]
            values = self._estimate([prompt for prompts in parts for prompt in prompts])
            ends = np.cumsum([len(prompts) for prompts in parts])
            for article, own in zip(chunk, np.split(values, ends[:-1]), strict=True):
                means = own.mean(0).round(4).tolist()
                yield {"id": article.id, "output": dict(zip(self.task.targets, means, strict=True)), "valid": True}

    def _estimate(self, prompts: list[list[int]]) -> NDArray[np.float64]:
        found = np.zeros((len(prompts), len(self.slots.places)))
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            found[places] = self._batch([prompts[i] for i in places])
        return found

    def _batch(self, prompts: list[list[int]]) -> NDArray[np.float64]:
        """Read prompts padded on the left, then the answer from digit to digit, each the most probable one."""
        import torch

        most = max(map(len, prompts))
        device = self.model.device
        mask = torch.tensor([[0] * (most - len(own)) + [1] * len(own) for own in prompts], device=device)
        chunk = torch.tensor([[0] * (most - len(own)) + own for own in prompts], device=device)
        means, past, done = [], None, 0
        with torch.inference_mode():
            for place, tokens, values in zip(self.slots.places, self.slots.digits, self.slots.values, strict=True):
                given = torch.tensor([self.slots.ids[done:place]] * len(prompts), device=device, dtype=chunk.dtype)
                chunk = torch.cat([chunk, given], 1)
                mask = torch.cat([mask, torch.ones_like(given)], 1) if given.shape[1] else mask
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -chunk.shape[1] :]
                out = self.model(
                    chunk, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True,
                    logits_to_keep=1,
                )  # fmt: skip
                power = out.logits[:, -1, tokens].float().softmax(-1)
                means.append((power.cpu().numpy() * values).sum(-1))
                chunk = torch.tensor(tokens, device=device)[power.argmax(-1)][:, None]
                mask = torch.cat([mask, torch.ones_like(chunk)], 1)
                past, done = out.past_key_values, place + 1
        return np.stack(means, 1)


def load(task: Task, folder: Path, batch_size: int) -> HeadEstimator | DigitEstimator:
    """Load what a merged model of a regression task estimates with: its heads where it has them."""
    return (HeadEstimator if (folder / FILE).exists() else DigitEstimator)(task, folder, batch_size)
