"""The shipped DeepSpeed configs: accepted by DeepSpeed, and zero2.json really trains and resumes on two ranks."""

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).parents[1] / "deepspeed_configs"
ROWS, STEPS, SAVED_AT, RANKS, MICRO_BATCH, ACCUMULATION, CLIP, HIDDEN = 40, 6, 3, 2, 2, 2, 0.5, 32
# What transformers fills in; an "auto" anywhere else is dropped by DeepSpeed in silence.
FILLED = {
    "bf16.enabled", "gradient_clipping", "gradient_accumulation_steps", "train_micro_batch_size_per_gpu",
    "train_batch_size", "zero_optimization.reduce_bucket_size", "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_param_persistence_threshold",
}  # fmt: skip


def leaves(config: dict, prefix: str = "") -> dict:
    """Flatten a nested config to {"zero_optimization.stage": 2, ...}."""
    flat: dict = {}
    for key, value in config.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def zero_keys() -> set[str]:
    """The keys of the installed DeepSpeedZeroConfig, read from its source: importing DeepSpeed takes 20 seconds."""
    spec = find_spec("deepspeed")
    assert spec and spec.origin
    source = Path(spec.origin).parent / "runtime/zero/config.py"
    classes = [node for node in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    fields = next(node for node in classes if node.name == "DeepSpeedZeroConfig").body
    keys = set()
    for field in (node for node in fields if isinstance(node, ast.AnnAssign)):
        aliases = [word.value.value for word in getattr(field.value, "keywords", []) if word.arg == "alias"]
        keys |= {ast.unparse(field.target), *aliases}
    return keys


@pytest.mark.parametrize("stage", [2, 3])
def test_config_is_accepted_and_keeps_the_optimizer_on_the_gpu(stage: int) -> None:
    config = json.loads((CONFIGS / f"zero{stage}.json").read_text(encoding="utf-8"))
    zero = config["zero_optimization"]
    assert zero["stage"] == stage
    assert set(zero) <= zero_keys()
    assert not [key for key in zero if "offload" in key]
    assert zero["overlap_comm"] and zero["contiguous_gradients"]
    assert set(leaves(config)) - {f"zero_optimization.{key}" for key in zero} <= FILLED
    assert {key for key, value in leaves(config).items() if value == "auto"} <= FILLED


def make_base(path: Path) -> None:
    """Save a random two-layer Mistral and a byte-level tokenizer without merges."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

    alphabet = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(path)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(alphabet), hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128, sliding_window=None,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(path)


def make_data(path: Path) -> None:
    rows = [
        {"segments": [{"label": False, "text": f"<s>{i} + {i} = "}, {"label": True, "text": f"{i + i}</s>"}]}
        for i in range(ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train(folder: Path, output: str, **extra: object) -> Path:
    """Train with the shipped zero2.json on CPU ranks; returns the output folder."""
    config = {
        "base_model": str(folder / "base"), "plugins": ["zero2_plugin.DeepSpeedOnCpu"],
        "deepspeed": str(CONFIGS / "zero2.json"), "bf16": True, "tf32": False,
        "datasets": [{"path": str(folder / "rows.jsonl"), "type": "input_output", "ds_type": "json"}],
        "dataset_prepared_path": str(folder / "prepared"), "sequence_len": 64, "attn_implementation": "sdpa",
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_linear": True,
        "lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False, "lora_embedding_kernel": False,
        "micro_batch_size": MICRO_BATCH, "gradient_accumulation_steps": ACCUMULATION, "max_grad_norm": CLIP,
        "optimizer": "adamw_torch_fused", "learning_rate": 0.01, "lr_scheduler": "cosine", "num_epochs": 2,
        "max_steps": STEPS, "save_steps": SAVED_AT, "logging_steps": 1, "val_set_size": 0, "seed": 42,
        "output_dir": str(folder / output), **extra,
    }  # fmt: skip
    path = folder / f"{output}.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    env = os.environ | {
        "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parent), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    env.pop("ACCELERATE_USE_CPU", None)  # with it accelerate trains on, without DeepSpeed
    # --standalone lets torchrun take a free port itself
    launcher = ["--launcher", "torchrun", "--", "--standalone", f"--nproc_per_node={RANKS}"]
    command = ["axolotl", "train", str(path), *launcher]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return folder / output


def partition(checkpoint: Path, rank: int) -> dict:
    """What DeepSpeed saved of one rank: the resolved config, its part of the fp32 weights and of Adam's moments."""
    import torch
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    (path,) = checkpoint.glob(f"global_step*/*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
        return torch.load(path, weights_only=True)


def adapter_size(folder: Path) -> int:
    from safetensors.torch import load_file

    return sum(tensor.numel() for tensor in load_file(folder / "adapter_model.safetensors").values())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A whole run, and one that resumes from its checkpoint in the middle."""
    folder = tmp_path_factory.mktemp("zero2")
    make_base(folder / "base")
    make_data(folder / "rows.jsonl")
    whole = train(folder, "whole")
    return whole, train(folder, "resumed", resume_from_checkpoint=str(whole / f"checkpoint-{SAVED_AT}"))


@pytest.mark.slow
def test_zero2_partitions_over_two_ranks(runs: tuple[Path, Path]) -> None:
    checkpoint = runs[0] / f"checkpoint-{STEPS}"
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == STEPS
    assert state["epoch"] == pytest.approx(STEPS * RANKS * MICRO_BATCH * ACCUMULATION / ROWS)
    assert {path.name for path in checkpoint.glob("rng_state*")} == {f"rng_state_{rank}.pth" for rank in range(RANKS)}
    ranks = [partition(checkpoint, rank) for rank in range(RANKS)]
    for saved in ranks:
        zero = saved["optimizer_state_dict"]
        assert (zero["zero_stage"], zero["partition_count"]) == (2, [RANKS])
        assert zero["base_optimizer_state"]["state"][0]["step"] == STEPS
    sizes = [saved["optimizer_state_dict"]["single_partition_of_fp32_groups"][0].numel() for saved in ranks]
    assert sizes[0] == sizes[1] and sum(sizes) == adapter_size(checkpoint)


@pytest.mark.slow
def test_zero2_resolves_to_what_the_file_asks_for(runs: tuple[Path, Path]) -> None:
    filled = {
        "bf16.enabled": True, "gradient_clipping": CLIP, "gradient_accumulation_steps": ACCUMULATION,
        "train_micro_batch_size_per_gpu": MICRO_BATCH, "train_batch_size": RANKS * MICRO_BATCH * ACCUMULATION,
        "zero_optimization.reduce_bucket_size": HIDDEN * HIDDEN,
    }  # fmt: skip
    asked = leaves(json.loads((CONFIGS / "zero2.json").read_text(encoding="utf-8")))
    added = {"steps_per_print": float("inf"), "fp16.enabled": False, "zero_allow_untested_optimizer": True}
    resolved = leaves(partition(runs[0] / f"checkpoint-{STEPS}", 0)["ds_config"])
    assert resolved == {key: filled[key] if value == "auto" else value for key, value in asked.items()} | added


@pytest.mark.slow
def test_resuming_ends_where_the_whole_run_ends(runs: tuple[Path, Path]) -> None:
    import torch

    whole, resumed = runs
    assert [path.name for path in resumed.glob("checkpoint-*")] == [f"checkpoint-{STEPS}"], "it started from step 0"
    checkpoints = whole / f"checkpoint-{SAVED_AT}", whole / f"checkpoint-{STEPS}", resumed / f"checkpoint-{STEPS}"
    for rank in range(RANKS):
        start, end, again = (partition(path, rank)["optimizer_state_dict"] for path in checkpoints)
        weights = [state["single_partition_of_fp32_groups"][0] for state in (start, end, again)]
        assert not torch.equal(weights[0], weights[1])
        assert torch.equal(weights[1], weights[2])
        for name in ("step", "exp_avg", "exp_avg_sq"):
            moments = [state["base_optimizer_state"]["state"][0][name] for state in (end, again)]
            assert torch.equal(*moments), name
    adapters = [(path / "adapter_model.safetensors").read_bytes() for path in runs]
    assert adapters[0] == adapters[1]
