"""A merged model as one GGUF file, a tensor at a time, so that memory holds one tensor and not the model."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType as FileType

from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.gguf_tokenizer import read_tokenizer
from recipekit.runs import relative

ARCHITECTURES = {
    "MistralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": gguf.MODEL_ARCH.QWEN2,
}
TYPES = {
    "f32": (Type.F32, FileType.ALL_F32),
    "f16": (Type.F16, FileType.MOSTLY_F16),
    "bf16": (Type.BF16, FileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, FileType.MOSTLY_Q8_0),
}
BLOCK = 32  # values of q8_0 that share a scale


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model, and what it is in the file.

    Attributes:
        source: Its name in safetensors.
        name: Its name in GGUF.
        shape: Rows and columns as in safetensors.
        type: What its values are stored as.
        heads: Of the query and key of Llama and Mistral, whose rows llama.cpp wants in pairs; None: as they are.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    type: Type
    heads: int | None

    @property
    def stored_bytes(self) -> int:
        """Bytes that it takes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape)) // block * size

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Write float32 values [rows, columns] as they stand in the file."""
        if self.heads:
            values = values.reshape(self.heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return gguf.quants.quantize(np.ascontiguousarray(values), self.type)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Read them back: the other way round."""
        values = gguf.quants.dequantize(np.asarray(stored), self.type).reshape(self.shape).astype(np.float32)
        if self.heads:
            values = values.reshape(self.heads, -1, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
        return values


class Weights:
    """The safetensors files of a folder, read a tensor at a time."""

    def __init__(self, folder: Path) -> None:
        """Open them.

        Raises:
            UserError: One is torn.
        """
        from safetensors import SafetensorError, safe_open

        self.files: dict[str, Any] = {}
        self.stack = ExitStack()
        for path in sorted(folder.glob("*.safetensors")):
            try:
                opened = self.stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{relative(path)}: torn, {error}; merge the model again") from None
            self.files |= dict.fromkeys(opened.keys(), opened)

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *_: Any) -> None:
        self.stack.close()

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self.files[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """Read a tensor in float32."""
        return self.files[name].get_tensor(name).float().numpy()


def architecture(model: Exported) -> gguf.MODEL_ARCH:
    """Say what llama.cpp calls the model's architecture.

    Raises:
        UserError: There is no mapping here, or the model turns positions in a way that is not written.
    """
    name = (model.config.get("architectures") or ["none"])[0]
    path = relative(model.folder / "config.json")
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{path}: architectures: found {name}, expected one of {known}; convert it with "
                        "llama.cpp's own convert_hf_to_gguf.py")  # fmt: skip
    rope = model.config.get("rope_scaling") or model.config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f"{path}: rope_type: found {kind}, expected default; convert it with llama.cpp's own "
                        "convert_hf_to_gguf.py")  # fmt: skip
    return ARCHITECTURES[name]


def plan(model: Exported, weights: Weights, kind: str) -> list[Tensor]:
    """Say what every tensor becomes; vectors stay float32, as llama.cpp wants them.

    Raises:
        UserError: A tensor is none of the architecture's, or one is missing.
    """
    arch, blocks = architecture(model), model.config["num_hidden_layers"]
    names = gguf.get_tensor_name_map(arch, blocks)
    heads = model.config["num_attention_heads"]
    of = {"q_proj": heads, "k_proj": model.config.get("num_key_value_heads") or heads}
    tensors, unknown = [], []
    tied = model.config.get("tie_word_embeddings", False)
    for source in weights.files:
        if source.endswith("rotary_emb.inv_freq") or (tied and source == "lm_head.weight"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        shape = weights.shape(source)
        wanted = TYPES[kind][0] if len(shape) > 1 else Type.F32
        if wanted == Type.Q8_0 and shape[-1] % BLOCK:
            wanted = Type.F16
        turned = of.get(source.split(".")[-2]) if arch == gguf.MODEL_ARCH.LLAMA else None
        if name is None:
            unknown.append(source)
        else:
            tensors.append(Tensor(source, name, shape, wanted, turned))
    missing = _needed(arch, blocks, tied) - {tensor.name for tensor in tensors}
    problems = [f"{source}: no tensor of {arch.name.lower()}" for source in unknown]
    problems += [f"{name}: missing" for name in sorted(missing)]
    if problems:
        raise UserError([f"{relative(model.folder)}: {one}; merge the model again" for one in problems])
    return tensors


def _needed(arch: gguf.MODEL_ARCH, blocks: int, tied: bool) -> set[str]:
    parts = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    biases = ["attn_q", "attn_k", "attn_v"] if arch == gguf.MODEL_ARCH.QWEN2 else []
    ends = {"token_embd.weight", "output_norm.weight"} | (set() if tied else {"output.weight"})
    own = {f"blk.{i}.{part}.weight" for i in range(blocks) for part in parts}
    return ends | own | {f"blk.{i}.{part}.bias" for i in range(blocks) for part in biases}


def add_facts(writer: gguf.GGUFWriter, model: Exported, kind: str) -> None:
    """Write what the model is: sizes, positions, tokenizer, chat template and the tokens that end a reply."""
    config = model.config
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head = config.get("head_dim") or width // heads
    rope = config.get("rope_parameters") or {}
    writer.add_name(model.name)
    writer.add_context_length(model.context)
    writer.add_embedding_length(width)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(TYPES[kind][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_tokenizer(writer, model)


def add_tokenizer(writer: gguf.GGUFWriter, model: Exported) -> None:
    """Write the tokenizer; bos goes before a prompt where the chat template or the task puts it there."""
    found, own = read_tokenizer(model.folder, model.config["vocab_size"]), model.tokenizer
    writer.add_tokenizer_model(found.model)
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    if found.model == "llama":
        writer.add_token_scores(found.scores)
    else:
        writer.add_token_merges(found.merges)
    writer.add_add_space_prefix(found.space_prefix)
    prompt = model.prompts(1)[0]
    writer.add_add_bos_token(bool(own.bos_token) and prompt.startswith(own.bos_token))
    writer.add_add_eos_token(False)
    named = {"bos": own.bos_token_id, "eos": own.eos_token_id, "unk": own.unk_token_id, "pad": own.pad_token_id}
    for name, value in named.items():
        if value is not None:
            getattr(writer, f"add_{name}_token_id")(value)
    if model.end_ids[1:]:
        writer.add_eot_token_id(model.end_ids[1])
    if model.has_template:
        writer.add_chat_template(own.chat_template)


def write_gguf(
    path: Path, model: Exported, kind: str, advance: Callable[..., Any] = lambda *_, **__: None
) -> list[Tensor]:
    """Write a GGUF file; whoever calls it renames it once it is proven.

    Args:
        path: File to write.
        model: What is exported.
        kind: A key of TYPES.
        advance: Called with a number of tensors done, and with total, their number.

    Returns:
        What was written, in order.

    Raises:
        UserError: The model or its tokenizer has no form in GGUF.
    """
    with Weights(model.folder) as weights:
        tensors = plan(model, weights, kind)
        writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture(model)])
        add_facts(writer, model, kind)
        for tensor in tensors:
            rows = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.type) if _packed(tensor.type) else tensor.shape
            dtype = np.dtype({Type.F32: "f4", Type.F16: "f2"}.get(tensor.type, "u1"))
            raw = tensor.type if _packed(tensor.type) else None
            writer.add_tensor_info(tensor.name, rows, dtype, tensor.stored_bytes, raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        advance(0, total=len(tensors))
        for tensor in tensors:
            writer.write_tensor_data(tensor.stored(weights.read(tensor.source)))
            advance(1)
        writer.close()
    return tensors


def _packed(kind: Type) -> bool:
    return kind not in (Type.F32, Type.F16)
