"""An Axolotl plugin that measures training: rows, tokens, seconds and memory of the steps after the first few.

`PROBE_WARMUP` steps are not counted, then as many as fit in `PROBE_SECONDS`, at least one; training ends there, and
`PROBE_RESULT` gets what was measured.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from axolotl.monkeypatch.attention import sdpa_varlen
from transformers import TrainerCallback

from invented import peak_rss
from recipekit.runs import write_text


class Probe(BasePlugin):
    """Keeps the ids of every batch that the model reads, and gives them to a callback."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[torch.Tensor] = []

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """Look at what the model reads."""

        def note(_: Any, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.batches.append(kwargs["input_ids"].clone())  # stays on the GPU: to read it now would wait for it

        model.register_forward_pre_hook(note, with_kwargs=True)

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        """Watch the steps."""
        return [Timer(self.batches, trainer.processing_class)]


class Timer(TrainerCallback):
    """Measures, and ends the training."""

    def __init__(self, batches: list[torch.Tensor], tokenizer: Any) -> None:
        self.batches, self.tokenizer = batches, tokenizer
        self.warmup, self.seconds = int(os.environ["PROBE_WARMUP"]), float(os.environ["PROBE_SECONDS"])
        self.started = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count memory from here on, not what loading took."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start, or end, what is measured, once the GPU has done the step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step <= self.warmup:
            self.started = now
            self.batches.clear()
        elif now - self.started >= self.seconds:
            found = {"seconds": now - self.started, "steps": state.global_step - self.warmup}
            found |= count(self.batches, self.tokenizer.bos_token_id, self.tokenizer.pad_token_id)
            attention = kwargs["model"].config._attn_implementation
            attention += " (varlen)" if sdpa_varlen._PATCH_APPLIED else ""
            write_text(Path(os.environ["PROBE_RESULT"]), json.dumps(found | memory() | {"attention": attention}))
            control.should_training_stop = True


def count(batches: list[torch.Tensor], bos: int, pad: int) -> dict[str, int]:
    """Count rows, tokens and pairs of tokens of a row that see each other; a row begins with bos.

    Args:
        batches: Token ids, each of shape [rows or packs, tokens].
        bos: Token that every row begins with, and that stands nowhere else.
        pad: Token that fills up; nowhere else, either.
    """
    found = {"examples": 0, "tokens": 0, "pairs": 0, "places": 0}
    for batch in batches:
        ids = batch.flatten()
        real = ids[ids != pad]
        starts = (real == bos).nonzero().flatten()
        ends = torch.cat([starts[1:], starts.new_tensor([len(real)])])
        lengths = ends - starts
        found["examples"] += len(lengths)
        found["tokens"] += int(lengths.sum())
        found["pairs"] += int((lengths * (lengths + 1) // 2).sum())
        found["places"] += ids.numel()
    return found


def memory() -> dict[str, Any]:
    """Read the peak of the GPU's memory since training began, in bytes; without a GPU that of the process."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "peak": peak_rss()}
    peaks = {"peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    return {"device": torch.cuda.get_device_name(), **peaks}
