"""Proof that a merged model is its base and its adapter: what it is proven on, and how near logits have to be."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from recipekit import models
from recipekit.chat_tokens import render
from recipekit.errors import UserError
from recipekit.regression import RegressionConfig
from recipekit.resolve import data_files
from recipekit.segments import encode_row, read_jsonl
from recipekit.task import Task

# Largest difference of a logit from base + adapter, as a share of the adapter's own largest effect. float32: the same
# sum in another order, measured 3e-6 to 7e-5. bfloat16: each changed weight is rounded by up to 1/512, measured 0.02 to
# 0.2 for adapters that change weights by 10% to 1%. Another adapter, or none, is off by about 1.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.3}
PROVEN_TOKENS = 64
PROVEN_ROWS = 8  # of a regression, which has one row of outputs each


@dataclass(frozen=True)
class Proof:
    """What a merge is proven on, and how its models are loaded.

    Attributes:
        rows: What the model reads, name -> numbers: a prompt with its answer, or several texts of a regression.
        spec: The heads of a regression; None of a language model.
    """

    rows: list[dict[str, list[int]]]
    spec: RegressionConfig | None

    @classmethod
    def of(cls, task: Task, config: dict[str, Any], tokenizer: Any) -> "Proof":
        """Take the first validation rows, or training rows where there is no validation set."""
        rows = read_jsonl(data_files(task, config)[-1])
        if task.is_chat:
            row = next(rows)[1]
            asked = [*row["messages"], row["chosen"]] if "chosen" in row else row["messages"]
            return cls(
                [{"input_ids": list(tokenizer(render(tokenizer, asked), add_special_tokens=False)["input_ids"])}], None
            )
        if "regression" not in config:
            return cls([{"input_ids": encode_row(tokenizer, next(rows)[1])[0]}], None)
        first = [row for _, row in islice(rows, PROVEN_ROWS)]
        tokens = [
            dict(tokenizer(row["body"], row.get("pair"), truncation=True, max_length=config["sequence_len"]))
            for row in first
        ]
        return cls(tokens, fitted_heads(task, config))

    def load(self, source: str | Path, float32: bool = True) -> Any:
        """Load a model in float32 or, of language models, as it is stored: logits are summed in float32 either way."""
        import torch

        if self.spec is None:
            return models.load_model(source, torch.float32 if float32 else "auto")
        return models.load_classifier(source, torch.float32, self.spec.num_labels)

    def logits(self, model: Any) -> Any:
        """Return a prompt's last logits, or the outputs of the texts; float32 on the CPU, shape [rows, outputs]."""
        import torch

        keep = {"logits_to_keep": PROVEN_TOKENS} if self.spec is None else {}
        with torch.inference_mode(), _in_float32():
            found = [
                model(**{name: torch.tensor([ids], device=model.device) for name, ids in row.items()}, **keep).logits
                for row in self.rows
            ]
        return torch.cat([one.reshape(-1, one.shape[-1]).float().cpu() for one in found])


def _in_float32() -> Any:
    """Make a context in which layers compute in float32, whatever their weights are stored in, one at a time."""
    import torch
    from torch.nn import functional
    from torch.overrides import TorchFunctionMode

    class InFloat32(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in layers:
                args = [
                    arg.float() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg for arg in args
                ]
            return func(*args, **(kwargs or {}))

    layers = {functional.linear, functional.embedding, functional.layer_norm, torch.matmul, torch.bmm}
    return InFloat32()


def fitted_heads(task: Task, config: dict[str, Any]) -> RegressionConfig:
    """Read the heads of a phase, and what training took from its rows."""
    rows = (row for entry in config["datasets"] for _, row in read_jsonl(task.root / entry["path"]))
    return RegressionConfig.model_validate(config["regression"]).fitted([row["labels"] for row in rows])


def prove(base: Any, tuned: Any, merged: Any, dtype: str) -> dict[str, float]:
    """Hold merged logits against those of base and adapter.

    Args:
        base: Logits of the base alone, shape [tokens, vocab].
        tuned: Logits of base and adapter.
        merged: Logits of the merged model.
        dtype: What the merged weights are stored in.

    Returns:
        The adapter's largest effect on a logit, and the merge's largest error as a share of it.

    Raises:
        UserError: The merged model is not base and adapter, or is no other than the base.
    """
    effect = (tuned - base).abs().max().item()
    error = (merged - tuned).abs().max().item() / max(effect, 1e-12)
    if not effect > 1e-4:
        raise UserError(f"the adapter changes no logit by more than {effect:.1e}; check learning_rate and train again")
    if not error <= TOLERANCE[dtype]:
        raise UserError(
            f"merged model: its logits are off from base + adapter's by {error:.2g} of the adapter's effect, expected "
            f"at most {TOLERANCE[dtype]}: another adapter or base was merged, or {dtype} rounds a weak adapter away; "
            "run the step again, and where it stays so train longer"
        )
    return {"adapter_effect": round(effect, 4), "merge_error": float(f"{error:.2g}")}
