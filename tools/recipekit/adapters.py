"""Digests of adapters: the same for a model in memory, whatever its precision, and for the file it was saved to."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def lora_alone(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the modules that are trained whole, such as a head."""
    return {name: tensor for name, tensor in tensors.items() if "lora_" in name}


def adapter_digest(path: Path, whole: bool = True) -> str:
    """Digest the tensors of a safetensors file: names, shapes and values as float32.

    Args:
        path: The file.
        whole: Also those that are no LoRA, such as a head.

    Raises:
        ValueError: The file is torn, or holds a type that adapters do not have.
    """
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        if end > len(content):
            raise ValueError(f"{path} is cut off")
        tensors[name] = _as_float32(content[start:end], entry["dtype"]).reshape(entry["shape"])
    return tensors_digest(tensors if whole else lora_alone(tensors))


def tensors_digest(tensors: Mapping[str, Any]) -> str:
    """Digest float32 arrays by name, shape and value."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], dtype=np.float32)
        sha.update(f"{name} {list(array.shape)}\0".encode() + array.tobytes())
    return sha.hexdigest()


def _as_float32(content: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype not in ("F32", "F16"):
        raise ValueError(f"adapters are F32, F16 or BF16, found {dtype}")
    return np.frombuffer(content, np.float32 if dtype == "F32" else np.float16).astype(np.float32)
