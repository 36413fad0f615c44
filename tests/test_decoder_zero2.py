"""bigfive's decoder phases as they stand: chained, packed and on ZeRO-2, over two CPU ranks and on a tiny base."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from recipekit import ROOT, digits, segments
from recipekit.task import load_task
from test_zero2 import partition
from tiny import TEXT, tiny_base

STEPS, RANKS = 4, 2
# What a CPU cannot do, and the size of the run; all else is what phaseN_decoder.yml says.
CHANGED = {
    "base_model": "base", "overrides_of_model_config": None, "special_tokens": None, "tf32": False,
    "plugins": ["zero2_plugin.DeepSpeedOnCpu", "recipekit.run_plugin.RunPlugin"], "liger_rms_norm": None,
    "liger_fused_linear_cross_entropy": None, "lora_mlp_kernel": False, "lora_qkv_kernel": False,
    "lora_o_kernel": False, "lora_embedding_kernel": False, "sequence_len": 512, "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": None, "num_epochs": None, "max_steps": STEPS, "eval_steps": STEPS,
    "save_steps": STEPS, "warmup_steps": 1, "learning_rate": 1e-2, "use_mlflow": None, "mlflow_tracking_uri": None,
    "mlflow_experiment_name": None, "mlflow_run_name": None,
}  # fmt: skip


def write_rows(root: Path) -> None:
    task = load_task("bigfive:decoder")
    rng = random.Random(0)
    (root / "data/train").mkdir(parents=True)
    for name, number in (("personas", 160), ("personas_val", 8), ("dialogues", 160), ("dialogues_val", 8)):
        rows = []
        for _ in range(number):
            body = "".join(rng.choices(TEXT, k=rng.randint(10, 40)))
            label = {"age": 40, "sex": "女"} if "personas" in name else dict.fromkeys(task.targets, rng.randint(1, 7))
            row = segments.build(task, body, digits.draw(task.targets, label, body))
            row["segments"] = [row["segments"][0] | {"text": "<s>抽出。"}, *row["segments"][-1:]]
            row["segments"].insert(1, {"label": False, "text": body})
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
        (root / f"data/train/bigfive_{name}_segments.jsonl").write_text("".join(rows), encoding="utf-8")


def train(root: Path, phase: str) -> Path:
    config = yaml.safe_load((ROOT / f"recipes/bigfive/{phase}.yml").read_text(encoding="utf-8")) | CHANGED
    assert config["sample_packing"] and config["deepspeed"] == "deepspeed_configs/zero2.json" and config["bf16"]
    config |= {"deepspeed": str(ROOT / config["deepspeed"]), "dataset_prepared_path": f"prepared/{phase}"}
    path = root / f"{phase}.yml"
    path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}), encoding="utf-8")
    env = os.environ | {
        "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(Path(__file__).parent), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    env.pop("ACCELERATE_USE_CPU", None)
    launcher = ["--launcher", "torchrun", "--", "--standalone", f"--nproc_per_node={RANKS}"]
    command = ["axolotl", "train", str(path), *launcher]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return root / config["output_dir"]


@pytest.mark.slow
def test_decoder_phases_chain_packed_on_zero2(tmp_path: Path) -> None:
    tiny_base(tmp_path / "base")
    write_rows(tmp_path)
    folders = [train(tmp_path, phase) for phase in load_task("bigfive:decoder").phases]
    facts = [json.loads((folder / "run_facts.json").read_text()) for folder in folders]
    assert facts[1]["start_digest"] == facts[0]["end_digest"] != facts[1]["end_digest"]
    for folder, fact in zip(folders, facts, strict=True):
        assert fact["reached_steps"] == STEPS and fact["evaluations"] and fact["finite"]
        checkpoint = folder / f"checkpoint-{STEPS}"
        zero = partition(checkpoint, 1)["optimizer_state_dict"]
        assert (zero["zero_stage"], zero["partition_count"]) == (2, [RANKS])
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        rows = STEPS * RANKS * 4  # packed ones of 512 tokens, 2 x 2 a step and rank: far more texts than rows
        assert state["epoch"] * 160 > 2 * rows
    tensors = load_file(folders[1] / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
