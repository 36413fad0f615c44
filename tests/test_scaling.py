"""What docs/scaling.md promises, on CPU ranks: more ranks, or more machines, train as one does; ZeRO-3 trains, too."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from test_zero2 import CONFIGS, make_base, partition

STEPS, ROWS_A_STEP = 6, 8
LOSS, WEIGHT = 1e-5, 1e-6  # greatest differences that other sums in float32 may make, of a loss and of a weight


def make_data(path: Path) -> None:
    """Write rows with three trained tokens each: every rank's mean counts alike, whatever it trains (Axolotl's way)."""
    rows = [
        {"segments": [{"label": False, "text": f"<s>{i} + {i} = "}, {"label": True, "text": f"{i + i}</s>"}]}
        for i in range(10, 50)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_config(folder: Path, output: str, **extra: object) -> Path:
    """Write the config of a run in float32, so that a difference is more than rounding."""
    config = {
        "base_model": str(folder / "base"), "plugins": ["seed_plugin.Seeded", "zero2_plugin.DeepSpeedOnCpu"],
        "bf16": False, "tf32": False,
        "deepspeed": str(CONFIGS / "zero2.json"),
        "datasets": [{"path": str(folder / "rows.jsonl"), "type": "input_output", "ds_type": "json"}],
        "dataset_prepared_path": str(folder / "prepared" / output), "sequence_len": 64, "attn_implementation": "sdpa",
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "lora_target_linear": True,
        "lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False, "lora_embedding_kernel": False,
        "gradient_accumulation_steps": 1, "max_grad_norm": 1.0, "optimizer": "adamw_torch", "learning_rate": 0.01,
        "adam_epsilon": 1e-3, # with 1e-8 a gradient that is nearly zero moves a weight by its sign: by what was rounded
        "lr_scheduler": "cosine", "num_epochs": 2, "max_steps": STEPS, "save_steps": STEPS, "logging_steps": 1,
        "val_set_size": 0, "seed": 42, "output_dir": str(folder / output), **extra,
    }  # fmt: skip
    path = folder / f"{output}.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
    return path


def start(path: Path, *launcher: str) -> subprocess.Popen[str]:
    """Start `axolotl train` on CPUs."""
    env = os.environ | {
        "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parent), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    env.pop("ACCELERATE_USE_CPU", None)
    command = ["axolotl", "train", str(path), "--launcher", *launcher]
    return subprocess.Popen(
        command, cwd=path.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(*processes: subprocess.Popen[str]) -> None:
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-6000:]


def losses(output: Path) -> list[float]:
    state = json.loads((output / f"checkpoint-{STEPS}" / "trainer_state.json").read_text(encoding="utf-8"))
    found = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(found) == STEPS
    return found


def weights(output: Path) -> torch.Tensor:
    tensors = load_file(output / "adapter_model.safetensors")
    return torch.cat([tensors[name].flatten() for name in sorted(tensors)])


def assert_equal(one: Path, other: Path) -> None:
    """Two runs learned the same, and something."""
    assert losses(one) == pytest.approx(losses(other), abs=LOSS)
    assert losses(one)[-1] < losses(one)[0]
    difference = (weights(one) - weights(other)).abs().max().item()
    assert difference <= WEIGHT, difference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scaling")
    make_base(folder / "base")
    make_data(folder / "rows.jsonl")
    return folder


@pytest.fixture(scope="module")
def one_rank(folder: Path) -> Path:
    """One process without DeepSpeed: what all others are held against."""
    finish(
        start(
            write_config(folder, "one", micro_batch_size=ROWS_A_STEP, deepspeed=None, plugins=["seed_plugin.Seeded"]),
            "python",
        )
    )
    return folder / "one"


@pytest.fixture(scope="module")
def two_ranks(folder: Path) -> Path:
    """Two ranks of one machine, as `torchrun --nproc_per_node=2` starts them."""
    path = write_config(folder, "two", micro_batch_size=ROWS_A_STEP // 2)
    finish(start(path, "torchrun", "--", "--standalone", "--nproc_per_node=2"))
    return folder / "two"


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns_with_the_same_rows_a_step(one_rank: Path, two_ranks: Path) -> None:
    zero = partition(two_ranks / f"checkpoint-{STEPS}", 1)["optimizer_state_dict"]
    assert (zero["zero_stage"], zero["partition_count"]) == (2, [2])
    assert_equal(two_ranks, one_rank)


@pytest.mark.slow
def test_two_machines_learn_what_one_with_two_ranks_learns(folder: Path, two_ranks: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = write_config(folder, "machines", micro_batch_size=ROWS_A_STEP // 2)
    launcher = ["torchrun", "--", "--nnodes", "2", "--nproc_per_node", "1", "--rdzv_id", "recipe"]
    launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{port}"]
    finish(start(path, *launcher), start(path, *launcher))
    checkpoint = folder / "machines" / f"checkpoint-{STEPS}"
    assert {one.name for one in checkpoint.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert losses(folder / "machines") == losses(two_ranks)
    assert torch.equal(weights(folder / "machines"), weights(two_ranks))


@pytest.mark.slow
def test_zero3_learns_what_one_rank_learns(folder: Path, one_rank: Path) -> None:
    zero3 = str(CONFIGS / "zero3.json")
    path = write_config(folder, "zero3", micro_batch_size=ROWS_A_STEP // 2, deepspeed=zero3)
    finish(start(path, "torchrun", "--", "--standalone", "--nproc_per_node=2"))
    assert_equal(folder / "zero3", one_rank)
