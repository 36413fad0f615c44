"""Models, tokenizers and LoRA adapters on disk."""

import json
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.runs import relative

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
PICKLED = ("pytorch_model*.bin", "adapter_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Without a word from the caller transformers asks on the terminal whether code beside a model may run.
SAFE: dict[str, Any] = {"trust_remote_code": False}
SAFE_WEIGHTS: dict[str, Any] = {**SAFE, "use_safetensors": True}
# Of a model on the Hub: safe weights and what belongs to them, not the same weights in other forms.
MODEL_FILES = ["model*.safetensors*", "*.json", "*.jinja", "tokenizer*", "*.model", "merges.txt"]


def check_model(folder: Path, remedy: str) -> None:
    """Refuse a folder that holds no model, or one whose weights run code when they are read.

    Raises:
        UserError: There is no such folder, it has no config.json, or its weights are pickled; `remedy` says what to do.
    """
    if not folder.is_dir():
        raise UserError(f"{relative(folder)}: no such folder; expected a model; {remedy}")
    if not (folder / "config.json").is_file():
        raise UserError(f"{relative(folder)}: no config.json in it, so it is no model; {remedy}")
    if pickled := _pickled(folder):
        raise UserError(f"{relative(folder)}: no *.safetensors in it{pickled}; {remedy}")
    if torn := torn_weights(folder, remedy):
        raise UserError(torn)


def torn_weights(folder: Path, remedy: str) -> list[str]:
    """Name the files of weights in a folder that are not whole; it takes no time, as only their heads are read."""
    from safetensors import SafetensorError, safe_open

    problems = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            problems.append(f"{relative(path)}: torn, {error}; {remedy}")
    return problems


def _pickled(folder: Path) -> str:
    """Name the weights of a folder that has none but pickled ones, for an error."""
    found = sorted(path.name for pattern in PICKLED for path in folder.glob(pattern))
    if not found or any(folder.glob("*.safetensors")):
        return ""
    return f", only {', '.join(found)}, which can run code when read, and is not read: convert it to safetensors"


def check_adapter(folder: Path, remedy: str) -> dict[str, Any]:
    """Read an adapter's config, refusing what no finished training leaves behind.

    Raises:
        UserError: Files are missing or torn, or the weights are not finite, or all lora_B are zero as before training.
    """
    from safetensors import SafetensorError, safe_open

    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        what = f"no such file; expected an adapter{_pickled(folder)}; {remedy}"
        raise UserError([f"{relative(folder / name)}: {what}" for name in missing])
    config_path, weights_path = (folder / name for name in ADAPTER_FILES)
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        with safe_open(weights_path, framework="pt") as weights:
            tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118, it is no dict
    except ValueError as error:
        raise UserError(f"{relative(config_path)}: torn, {error}; {remedy}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{relative(weights_path)}: torn, {error}; {remedy}") from None
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{relative(weights_path)}: {broken[0]} is not finite; lower the learning rate; {remedy}")
    if not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name):
        raise UserError(f"{relative(weights_path)}: every lora_B is zero, as before training; {remedy}")
    return config


def trained_files(output: Path, config: dict[str, Any]) -> list[Path]:
    """Name the weights that a phase leaves: its adapter, or where it trains every weight the model's files."""
    if config.get("adapter"):
        return [output / "adapter_model.safetensors"]
    return sorted(output.glob("model*.safetensors")) or [output / "model.safetensors"]


def phase_files(output: Path, config: dict[str, Any]) -> list[Path]:
    """Name the files that make what a phase trained: weights, and the config that says what they are."""
    return [
        output / ("adapter_config.json" if config.get("adapter") else "config.json"),
        *trained_files(output, config),
    ]


def files_of(root: Path, name: str, revision: str | None) -> Path:
    """Return where a model's files lie: a folder below root, or one of the Hub's, fetched where it is not yet."""
    if (root / name).is_dir():
        return root / name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_FILES))


def differs(base: Path, model: Path) -> bool:
    """Tell whether any weight of a model's files is another than in its base's."""
    from safetensors import safe_open

    places = {name: path for path in base.glob("*.safetensors") for name in _names(path)}
    for path in model.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118, it is no dict
                if name not in places:
                    continue
                with safe_open(places[name], framework="pt") as before:
                    own = weights.get_tensor(name)
                    if not (before.get_tensor(name).to(own.dtype) == own).all():
                        return True
    return False


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return list(weights.keys())


def base_of(adapter: Path, config: dict[str, Any], root: Path) -> str:
    """Name the base model an adapter was trained on: a folder, looked for from `root`, or a name on the Hub.

    Raises:
        UserError: The adapter names no base.
    """
    name = config.get("base_model_name_or_path")
    if not name:
        path = relative(adapter / ADAPTER_FILES[0])
        raise UserError(f"{path}: base_model_name_or_path is empty; train the phase again")
    return str(root / name) if (root / name).is_dir() else name


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer of a model's or adapter's folder, or of a model on the Hub."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(source), **SAFE)


def load_config(source: str | Path) -> Any:
    """Load the config of a model's folder, or of a model on the Hub."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(source), **SAFE)


def mark_second_text(tokenizer: Any, config: Any) -> Any:
    """Make a tokenizer mark the second text of a pair for a model that was trained so.

    Tokenizers of Japanese BERT leave the marks away since transformers 5, and such a model then reads one long text.

    Args:
        tokenizer: Changed in place, and returned.
        config: The model's.
    """
    if getattr(config, "type_vocab_size", 0) > 1:
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def load_model(source: str | Path, dtype: Any) -> Any:
    """Load a causal language model for inference, onto the GPU where there is one.

    Args:
        source: Folder, or name on the Hub.
        dtype: torch dtype of the weights in memory.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = "auto" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(str(source), dtype=dtype, device_map=device, **SAFE_WEIGHTS)
    return model.eval()


def load_classifier(source: str | Path, dtype: Any, num_labels: int | None = None) -> Any:
    """Load a model with a head of numbers for inference, onto the GPU where there is one.

    Args:
        source: Folder, or name on the Hub.
        dtype: torch dtype of the weights in memory.
        num_labels: Outputs of the head, where the source is a base that has none yet.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    device = "auto" if torch.cuda.is_available() else "cpu"
    own = {} if num_labels is None else {"num_labels": num_labels}
    model = AutoModelForSequenceClassification.from_pretrained(
        str(source), dtype=dtype, device_map=device, **SAFE_WEIGHTS, **own
    )
    return model.eval()
