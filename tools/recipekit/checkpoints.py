"""Optimizers of the small models that the repository trains itself, and checkpoints to go on from bit by bit."""

from pathlib import Path
from typing import Any

from recipekit import runs
from recipekit.console import show


def optimizers_of(model: Any, training: dict[str, Any]) -> list[Any]:
    """Build Muon for the matrices within the layers (Jordan 2024), and AdamW for embeddings, head and norms."""
    import torch

    inner: list[Any] = []
    outer: list[Any] = []
    for name, weight in model.named_parameters():
        (inner if weight.dim() == 2 and ".layer" in name else outer).append(weight)
    decay = training["weight_decay"]
    return [
        torch.optim.Muon(inner, weight_decay=decay, momentum=training["momentum"], adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, weight_decay=decay, betas=tuple(training["betas"]), fused=True),
    ]


def save_checkpoint(path: Path, model: Any, optimizers: list[Any], step: int, seconds: float, key: str) -> None:
    """Write weights and optimizer state, whole or not at all."""
    from safetensors.torch import save

    states = {weight: state for optimizer in optimizers for weight, state in optimizer.state.items()}
    entries = {f"model.{name}": weight.detach() for name, weight in model.named_parameters()}
    for name, weight in model.named_parameters():
        entries |= {f"{part}.{name}": value for part, value in states[weight].items()}
    facts = {"step": str(step), "seconds": str(seconds), "key": key}
    runs.write_bytes(path, save({name: value.contiguous() for name, value in entries.items()}, metadata=facts))


def load_checkpoint(path: Path, model: Any, optimizers: list[Any], key: str) -> tuple[int, float]:
    """Go on from a checkpoint where it is of this recipe; returns steps done and seconds taken, else zeros."""
    from safetensors import safe_open

    if not path.exists():
        return 0, 0.0
    weights = dict(model.named_parameters())
    owners = {weight: one for one in optimizers for group in one.param_groups for weight in group["params"]}
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        if facts["key"] != key:
            show(f"the checkpoint in {runs.relative(path.parent)}/ is of another recipe or corpus: starting anew")
            return 0, 0.0
        for entry in file.keys():  # noqa: SIM118 (not a dict)
            part, name = entry.split(".", 1)
            value, weight = file.get_tensor(entry).to(model.device), weights[name]
            if part == "model":
                weight.data.copy_(value)
            else:
                owners[weight].state[weight][part] = value
    return int(facts["step"]), float(facts["seconds"])


def write_card(template: Path, card: Path, facts: dict[str, str]) -> None:
    """Write a model card, with facts in the place of {{ name }}."""
    text = template.read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace("{{ " + name + " }}", value)
    runs.write_text(card, text)
