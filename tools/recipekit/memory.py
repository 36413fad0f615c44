"""How much memory training takes: docs/memory.md has the formula, term by term, and its sources."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit.architecture import Architecture

GB = 1e9
FRAGMENTS = 0.05  # of activations and work: what the allocator cannot use
CONTEXT = 1.0 * GB  # CUDA context, cuBLAS and NCCL buffers, kernels
QUANTISED = 0.5 + 0.127 / 8  # bytes of a 4-bit weight with its doubly quantised constants (QLoRA)
SINGLE, HALF = 4, 2  # bytes of a number


@dataclass(frozen=True)
class Setting:
    """What of a run's config memory depends on.

    Attributes:
        rows: Rows, or packs, at a time.
        length: Tokens of each.
        bytes: Of a number of the base and its activations.
        mixed: Whether autocast is on: LoRA matrices in float32 on a base in bfloat16.
        fused: Whether Axolotl's LoRA kernels compute the layers.
        liger_norm: Whether Liger computes the norms.
        liger_loss: Whether Liger computes the loss without logits.
        packed: Whether rows are packed.
        attention: As the config names it.
        dropout: Of the adapter.
        mask: Bytes that dropout keeps of a number: a truth value on GPUs, a number on CPUs.
        checkpointing: Whether activations are computed again in the backward pass.
        four_bit: Whether the base is quantised.
        eight_bit_optimizer: Whether the optimizer's states are.
        zero: ZeRO's stage with DeepSpeed; None: no DeepSpeed.
        gpus: How many share the run.
        logits: Whether there are any.
        full: Whether every weight is trained, not an adapter.
    """

    rows: int
    length: int
    bytes: int = HALF
    mixed: bool = True
    fused: bool = False
    liger_norm: bool = False
    liger_loss: bool = False
    packed: bool = False
    attention: str = "sdpa"
    dropout: float = 0.0
    mask: int = 1
    checkpointing: bool = False
    four_bit: bool = False
    eight_bit_optimizer: bool = False
    zero: int | None = None
    gpus: int = 1
    logits: bool = True
    full: bool = False

    @property
    def tokens(self) -> int:
        """Tokens at a time."""
        return self.rows * self.length


def setting(config: dict[str, Any], decoder: bool, gpus: int, root: Path) -> Setting:
    """Read a setting from a config for GPUs; rows are taken to be sequence_len long."""
    half = bool(config.get("bf16") or config.get("fp16"))
    zero = None
    if config.get("deepspeed"):
        content = json.loads((root / config["deepspeed"]).read_text(encoding="utf-8"))
        zero = content.get("zero_optimization", {}).get("stage", 0)
    kernels = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
    return Setting(
        rows=config.get("micro_batch_size", 1) * (2 if config.get("rl") else 1),  # a preference is two rows
        length=config["sequence_len"],
        bytes=HALF if half else SINGLE,
        mixed=half,
        fused=half and decoder and all(config.get(key) is not False for key in kernels),
        liger_norm=bool(config.get("liger_rms_norm")),
        liger_loss=bool(config.get("liger_fused_linear_cross_entropy")) and not config.get("rl"),
        packed=bool(config.get("sample_packing")),
        attention=str(config.get("attn_implementation", "sdpa")),
        dropout=float(config.get("lora_dropout") or 0),
        checkpointing=bool(config.get("gradient_checkpointing")),
        four_bit=bool(config.get("load_in_4bit")),
        eight_bit_optimizer="8bit" in str(config.get("optimizer")),
        zero=zero,
        gpus=gpus,
        logits="regression" not in config,
        full=not config.get("adapter"),
    )


def predict(model: Architecture, run: Setting) -> dict[str, float]:
    """Predict the memory of each GPU at its peak, in bytes, by part.

    Returns:
        weights, adapter, gradients, optimizer, activations, and the greater of logits and backward, which come after
        each other; framework is the rest.
    """
    parts = _states(model, run)
    layer = sum(layer_bytes(model, run).values()) * run.tokens
    entry = run.bytes * model.hidden * run.tokens
    parts["activations"] = (entry if run.checkpointing else layer) * model.layers + 2 * entry + _mask(run)
    work = {"logits": _logits(model, run), "backward": run.bytes * run.tokens * (3 * model.inner + 2 * model.hidden)}
    if run.checkpointing:
        work["backward"] += layer  # computed again
    greater = max(work, key=lambda name: work[name])
    parts[greater] = work[greater]
    parts["framework"] = CONTEXT + FRAGMENTS * (parts["activations"] + parts[greater])
    return parts


def _states(model: Architecture, run: Setting) -> dict[str, float]:
    """Weights, and what is kept for each trained parameter (Rajbhandari et al. 2020, ZeRO)."""
    trained, states = model.adapter + model.head, 2 if run.eight_bit_optimizer else 2 * SINGLE
    own = SINGLE if run.mixed else run.bytes  # bytes of a trained number
    if run.full:
        trained, own = model.parameters, run.bytes
        states = states if run.eight_bit_optimizer or run.bytes == SINGLE else 2 * run.bytes
    weights = float(model.parameters * run.bytes)
    if run.four_bit:
        weights = QUANTISED * model.quantised + run.bytes * (model.parameters - model.quantised)
    if run.zero is None:
        return {
            "weights": weights,
            "adapter": 0.0 if run.full else trained * own,
            "gradients": trained * own,
            "optimizer": trained * (states if run.mixed or run.bytes == SINGLE else 2 * run.bytes),
        }
    shard = {stage: run.gpus if run.zero >= stage else 1 for stage in (1, 2, 3)}
    gathered = 2 * run.bytes * model.quantised / model.layers if shard[3] > 1 else 0  # a layer, and the next one
    return {
        "weights": weights / shard[3] + gathered,
        "adapter": 0.0 if run.full else HALF * trained / shard[3],
        "gradients": HALF * trained / shard[2],
        "optimizer": (SINGLE + (2 if run.eight_bit_optimizer else 2 * SINGLE))
        * trained
        / shard[1],  # with a copy of the weights in float32
    }


def layer_bytes(model: Architecture, run: Setting) -> dict[str, float]:
    """Count the bytes that a layer keeps of a token for the backward pass, by what keeps them."""
    e, h, f = run.bytes, model.hidden, model.inner
    keys = model.queries if run.packed and run.attention == "sdpa" else model.keys  # under a mask heads are repeated
    found = {"attention": e * (2 * model.queries + 2 * keys) + SINGLE * model.heads}
    if run.attention == "eager":
        found["scores"] = model.heads * run.length * (2 * e + run.mask)
    if model.decoder:
        found["norms"] = 2 * h * (e if run.liger_norm else SINGLE)
        found["mlp"] = e * f * (2 if run.fused else 3)  # gate, up and, unless computed again, the activated gate
    else:
        found["norms"] = 2 * h * (SINGLE if run.mixed else e)
        found["mlp"] = e * f
        found["dropout"] = 2 * h * run.mask if model.dropout else 0
    return found | {"adapter inputs": _adapter_inputs(model, run)}


def _adapter_inputs(model: Architecture, run: Setting) -> float:
    """Count what LoRA matrices keep of a token: what they read, once for all or a copy for each."""
    if not model.targets:
        return 0
    e, inputs = run.bytes, model.inputs / model.layers
    if run.fused:
        return e * 2 * model.hidden + (e * (2 * model.hidden + model.queries) if run.dropout else 0)
    if run.mixed or run.dropout:
        return inputs * (e + (run.mask if run.dropout else 0))  # a copy, and a mask
    return e * (2 * model.hidden + model.inner)


def _mask(run: Setting) -> float:
    """Count sdpa's mask of packed rows, which keeps them apart: as truth values, and as numbers."""
    if not run.packed or run.attention not in ("sdpa", "eager"):
        return 0
    return (1 + run.bytes) * (run.rows * run.length) ** 2  # micro_batch_size packs are one long sequence


def _logits(model: Architecture, run: Setting) -> float:
    """Count the logits, their logarithms and both gradients, in float32; Liger makes them of some tokens at a time."""
    if not run.logits:
        return 0
    if not run.liger_loss:
        return run.tokens * model.vocabulary * (run.bytes + 3 * SINGLE)
    some = 1 << (-(-run.tokens // -(-model.vocabulary // model.hidden)) - 1).bit_length()
    return run.bytes * (min(some, run.tokens) * model.vocabulary + run.tokens * model.hidden)
