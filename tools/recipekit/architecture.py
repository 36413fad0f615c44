"""The sizes of a base model that memory depends on, from its config.json alone."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.task import Task

TABLE = "architectures.yml"  # in recipes/


@dataclass(frozen=True)
class Architecture:
    """A base model with an adapter on it.

    Attributes:
        parameters: Of the base, all of them.
        quantised: Of these, those that 4-bit loading quantises: linear layers but for the head.
        adapter: Parameters of the LoRA matrices.
        head: Parameters of a head that is trained whole.
        targets: Linear layers with LoRA matrices.
        inputs: Width of what these read, added up over all layers.
        hidden: Width of the residual stream.
        layers: How many.
        heads: Attention heads.
        queries: Width of all queries together.
        keys: Width of all keys together, less with grouped heads.
        inner: Width within an MLP.
        vocabulary: Tokens; the width of the logits.
        decoder: Whether it is one of Llama's kind (RMSNorm, gated MLP); else one of BERT's.
        dropout: Of hidden states.
    """

    parameters: int
    quantised: int
    adapter: int
    head: int
    targets: int
    inputs: int
    hidden: int
    layers: int
    heads: int
    queries: int
    keys: int
    inner: int
    vocabulary: int
    decoder: bool
    dropout: float


def read_config(task: Task, name: str, revision: str | None = None) -> dict[str, Any]:
    """Read a base's config.json: from its folder, the Hub's cache, or the table of the recipes' bases.

    Raises:
        UserError: None of these has it.
    """
    from huggingface_hub import try_to_load_from_cache

    path = task.root / name / "config.json"
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        path = Path(cached) if isinstance(cached, str) else path
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    table, _ = yamlfile.load(task.root / "recipes" / TABLE)
    if name in table:
        return table[name]
    remedy = f"fetch it with: hf download {name} config.json, or write its sizes into recipes/{TABLE}"
    raise UserError(f"base_model {name}: no config.json here, so its memory cannot be estimated; {remedy}")


def architecture(values: dict[str, Any], config: dict[str, Any]) -> Architecture:
    """Count a base model's parameters, and an adapter's on it, on the meta device: exactly, and without weights.

    Args:
        values: Its config.json.
        config: A phase's config: adapter, targets and rank; with `regression` it is a classifier.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    values = dict(values)
    sizes = AutoConfig.for_model(values.pop("model_type"), **values)
    kind = AutoModelForSequenceClassification if "regression" in config else AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(sizes)
    head = model.get_output_embeddings()
    linear = {name: one for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and one is not head}
    targets = [one for name, one in linear.items() if config.get("adapter") and _targeted(name, config)]
    rank, width = int(config.get("lora_r") or 0), sizes.hidden_size
    heads, inner = sizes.num_attention_heads, sizes.intermediate_size
    size = getattr(sizes, "head_dim", None) or width // heads
    whole = [one for name, one in model.named_children() if name in ("classifier", "score")]
    return Architecture(
        parameters=model.num_parameters(),
        quantised=sum(one.weight.numel() for one in linear.values()),
        adapter=sum(rank * (one.in_features + one.out_features) for one in targets),
        head=sum(weight.numel() for one in whole for weight in one.parameters()),
        targets=len(targets),
        inputs=sum(one.in_features for one in targets),
        hidden=width,
        layers=sizes.num_hidden_layers,
        heads=heads,
        queries=heads * size,
        keys=(getattr(sizes, "num_key_value_heads", None) or heads) * size,
        inner=inner,
        vocabulary=sizes.vocab_size,
        decoder=any(name.endswith("gate_proj") for name in linear),
        dropout=float(getattr(sizes, "hidden_dropout_prob", 0.0) or 0.0),
    )


def _targeted(name: str, config: dict[str, Any]) -> bool:
    """Tell whether a layer gets LoRA matrices, as PEFT decides: by the end of its name, or by a regular expression."""
    targets = config.get("lora_target_modules")
    if config.get("lora_target_linear") or targets == "all-linear":
        return "classifier" not in name and "score" not in name
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == end or name.endswith(f".{end}") for end in targets or [])
