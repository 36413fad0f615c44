"""What was written into a GGUF file, read back: every value within its type's rounding, and the tokenizer's own tokens.

Where llama.cpp's binding (xllamacpp) is installed, llama.cpp reads the file as well: its tokens and its likeliest reply
have to be those of transformers.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.gguf_write import BLOCK, Tensor, Weights
from recipekit.models import load_model
from recipekit.runs import relative

GREEDY = 24  # tokens of a reply that are compared
TIE = 0.01  # share of the logits' deviation: those nearer than that change places when sums are made in another order
SMALL = 2**31  # bytes; a larger file and the model beside it need much memory
HALF = {Type.F32: 0.0, Type.F16: 2.0**-11, Type.BF16: 2.0**-8}  # largest rounding, as a share of the value


def bound(values: np.ndarray, kind: Type) -> np.ndarray:
    """Return how far off each value may be after rounding; the smallest float16 steps are absolute."""
    if kind in HALF:
        return np.abs(values) * HALF[kind] + (2.0**-25 if kind == Type.F16 else 0)
    most = np.abs(values.reshape(-1, BLOCK)).max(axis=1, keepdims=True)
    # half a step of a 127th of the block's largest value; the step itself is float16
    return np.broadcast_to(most * (0.5 / 127 + 2.0**-11) + 2.0**-18, (most.size, BLOCK)).reshape(values.shape)


def check_tensors(path: Path, model: Exported, tensors: list[Tensor]) -> float:
    """Hold every value of a file against the model's.

    Returns:
        The largest difference.

    Raises:
        UserError: One is further off than its type rounds, or a tensor is missing.
    """
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    if found.keys() != {tensor.name for tensor in tensors}:
        raise UserError(f"{relative(path)}: holds {len(found)} tensors, expected {len(tensors)}; export again")
    most = 0.0
    with Weights(model.folder) as weights:
        for tensor in tensors:
            meant = weights.read(tensor.source)
            with np.errstate(invalid="ignore"):  # what is not finite is off as well
                off = np.abs(tensor.values(found[tensor.name].data) - meant)
            if not (off <= bound(meant, tensor.type)).all():
                raise UserError(f"{relative(path)}: {tensor.name} is off by {off.max():.2g}; export again")
            most = max(most, float(off.max()))
    return most


def has_llama_cpp() -> bool:
    """Tell whether llama.cpp's binding is installed."""
    return importlib.util.find_spec("xllamacpp") is not None


@contextmanager
def llama_cpp(path: Path, context: int) -> Iterator[Any]:
    """Run llama.cpp on a file, as a server on this machine; yields a function that asks it."""
    import httpx
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.hostnames, settings.port = str(path), ["127.0.0.1"], 0
    settings.n_ctx, settings.n_parallel, settings.warmup, settings.verbosity = context, 1, False, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = min(4, len(os.sched_getaffinity(0)))
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)

    def ask(place: str, **request: Any) -> Any:
        answer = httpx.post(f"{server.listening_address}{place}", json=request, timeout=600)
        answer.raise_for_status()
        return answer.json()

    yield ask


def check_tokens(path: Path, model: Exported, ask: Any) -> int:
    """Hold llama.cpp's tokens, and its rendering of conversations, against the tokenizer's.

    Returns:
        How many texts gave the same tokens.

    Raises:
        UserError: One gave others.
    """
    bos, prompts = model.tokenizer.bos_token, model.prompts()
    for text in prompts:
        meant = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        given = text.removeprefix(bos) if bos else text
        found = ask("/tokenize", content=given, add_special=True, parse_special=True)["tokens"]
        if found != meant:
            place = next((i for i, (a, b) in enumerate(zip(found, meant, strict=False)) if a != b), len(meant))
            raise UserError(
                f"{relative(path)}: llama.cpp reads other tokens from token {place} on: {found[place:][:8]}, expected "
                f"{meant[place:][:8]}, of {text[:60]!r}; this tokenizer cannot be exported to GGUF"
            )
    if model.has_template:
        for messages in model.conversations():
            found = ask("/apply-template", messages=messages)["prompt"]
            meant = model.render(messages)
            if found.removeprefix(bos or "") != meant.removeprefix(bos or ""):
                raise UserError(f"{relative(path)}: llama.cpp renders {found!r}, expected {meant!r}; its Jinja lacks "
                                "something that the chat template uses")  # fmt: skip
    return len(prompts)


def check_greedy(path: Path, model: Exported, ask: Any) -> int:
    """Hold llama.cpp's likeliest reply against that of transformers; a tie within TIE may go either way.

    Returns:
        How many tokens were the same.

    Raises:
        UserError: They differ.
    """
    import torch

    ids = model.tokenizer(model.prompts()[-1], add_special_tokens=False)["input_ids"]
    greedy = {"temperature": 0, "samplers": ["temperature"], "return_tokens": True, "cache_prompt": False}
    found = ask("/completion", prompt=ids, n_predict=GREEDY, **greedy)["tokens"]
    own = load_model(model.folder, torch.float32)
    for place, token in enumerate(found):
        with torch.inference_mode():
            logits = own(torch.tensor([ids + found[:place]], device=own.device)).logits[0, -1].float()
        if (behind := ((logits.max() - logits[token]) / logits.std()).item()) > TIE:
            raise UserError(f"{relative(path)}: token {place} of llama.cpp's likeliest reply is {behind:.3g} deviations"
                            " behind that of transformers; export again, and where it stays so report it")  # fmt: skip
    return len(found)


def check_by_llama_cpp(path: Path, model: Exported, exact: bool) -> str:
    """Let llama.cpp read a file, and say what agreed.

    Args:
        path: The GGUF file.
        model: What it was made of.
        exact: Whether the file holds the model's very values, so that replies have to be the same.

    Raises:
        UserError: Something did not agree.
    """
    with llama_cpp(path, min(model.num_ctx, 2048)) as ask:
        words = f"llama.cpp reads the same tokens of {check_tokens(path, model, ask)} prompts"
        if exact and path.stat().st_size < SMALL:
            words += f" and gives the same likeliest {check_greedy(path, model, ask)} tokens"
    return words
