"""Merging an adapter into its base file by file, in the memory of one file."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LORA = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Settings of an adapter under which a weight is more than itself + scale * B A; PEFT knows what to do with them.
OTHERS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "fan_in_fan_out",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "velora_config",
    "monteclora_config",
)
PLAIN_STARTS = (
    True,
    False,
    "gaussian",
)  # of init_lora_weights; PiSSA and its kin take from the base what they begin with


class Update(NamedTuple):
    """What LoRA adds to a weight of shape [out, in]: scale * b @ a, of shapes [out, rank] and [rank, in]."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the sum, in float32."""
        return torch.addmm(weight.float(), self.b.float(), self.a.float(), alpha=self.scale)


def files(folder: Path) -> dict[str, Path]:
    """Return where each weight of a model lies, in its one file or, as transformers looks, else as its index says."""
    if (folder / WEIGHTS).is_file():
        with safe_open(folder / WEIGHTS, framework="pt") as stored:
            return dict.fromkeys(stored.keys(), folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        return {}
    places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
    return {name: folder / file for name, file in places.items()}


def updates(source: Path, adapter: Path) -> dict[str, Update] | None:
    """Read what an adapter adds to which weights.

    Args:
        source: The base's folder.
        adapter: The adapter's folder, or that of a model whose every weight was trained, to which nothing is added.

    Returns:
        Weight name -> update; None where the adapter is more than plain LoRA on weights that the base's files name.
    """
    path = adapter / "adapter_config.json"
    if not path.is_file():
        return {} if files(adapter) else None
    config = json.loads(path.read_text(encoding="utf-8"))
    if any(config.get(name) for name in OTHERS) or config.get("init_lora_weights", True) not in PLAIN_STARTS:
        return None
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118, it is no dict
            if not (found := LORA.fullmatch(name)):
                return None
            pairs.setdefault(f"{found[1]}.weight", {})[found[2]] = stored.get_tensor(name)
    if not set(pairs) <= set(files(source)) or any(len(pair) < 2 for pair in pairs.values()):
        return None
    rank = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    return {name: Update(pair["A"], pair["B"], config["lora_alpha"] / rank) for name, pair in pairs.items()}


def merge(source: Path, found: dict[str, Update], target: Path, dtype: torch.dtype) -> None:
    """Write a base with what an adapter adds, in files of the base's names.

    Args:
        source: The base's folder.
        found: Weight name -> update.
        target: Folder to write into.
        dtype: What floating-point weights are stored in; sums are made in float32.
    """
    places, total = files(source), 0
    for path in sorted(set(places.values())):
        tensors = {}
        with safe_open(path, framework="pt") as stored:
            for name in (name for name, place in places.items() if place == path):
                weight = stored.get_tensor(name)
                weight = found[name].added_to(weight) if name in found else weight
                tensors[name] = weight.to(dtype) if weight.is_floating_point() else weight
        save_file(tensors, target / path.name, metadata={"format": "pt"})
        total += sum(tensor.nbytes for tensor in tensors.values())
    if set(places.values()) != {source / WEIGHTS}:
        index = {"metadata": {"total_size": total}, "weight_map": {name: path.name for name, path in places.items()}}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
