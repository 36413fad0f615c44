"""A sound task to check, and its checks without the schema's worker: for the tests of tools/check.py."""

import shutil

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

import check as tool
from recipekit import axolotl_schema, rowcheck
from recipekit.preflight import Verdicts
from recipekit.task import load_task
from rows import Characters, row, write

PHASE = """\
base_model: data/samples/base
attn_implementation: sdpa
bf16: true
adapter: lora
LORA_MODEL_DIR
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
datasets:
  - path: data/train/mix_segments.jsonl
    ds_type: json
    type: input_output
test_datasets:
  - path: data/train/neg_segments.jsonl
    ds_type: json
    type: input_output
sequence_len: 512
excess_length_strategy: raise
seed: 42
output_dir: outputs/mini/PHASE
max_steps: 100
eval_steps: 50
save_steps: 50
optimizer: adamw_torch_fused
deepspeed: zero2.json
mlflow_tracking_uri: sqlite:///mlflow.db
"""
OVERLAY = """\
bf16: false
optimizer: adamw_torch
deepspeed: null
lora_mlp_kernel: false
lora_qkv_kernel: false
lora_o_kernel: false
lora_embedding_kernel: false
"""


@pytest.fixture
def sound_task(mini):
    recipe = mini / "recipes" / "mini"
    (recipe / "phase1.yml").write_text(PHASE.replace("PHASE", "phase1").replace("LORA_MODEL_DIR\n", ""))
    chained = PHASE.replace("PHASE", "phase2").replace("LORA_MODEL_DIR", "lora_model_dir: outputs/mini/phase1")
    (recipe / "phase2.yml").write_text(chained)
    (mini / "recipes" / "cpu.yml").write_text(OVERLAY)
    (mini / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    base = mini / "data" / "samples" / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text("{}")
    save_file({"weight": np.zeros(1, np.float32)}, base / "model.safetensors")
    task = load_task("mini", mini)
    people = ("山田一", "海野太郎", "川上次郎", "森三郎", "谷四郎", "原五郎", "林六郎", "沢七郎", "岸八郎")
    write(task, "mix", [row(task, f"{name}容疑者を逮捕。", name) for name in people])
    write(task, "neg", [row(task, f"花火大会{i}。") for i in range(3)])
    (mini / "data" / "test").mkdir()
    for name in ("eval.jsonl", "gold.csv"):
        shutil.copy(mini / "data" / "samples" / "mini" / name, mini / "data" / "test")
    return task


@pytest.fixture
def run_checks(sound_task, monkeypatch):
    """Run every check with the schema's worker and the tokenizer replaced; returns (status of each check, problems)."""
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [[] for _ in jobs])
    monkeypatch.setattr(rowcheck, "load_tokenizer", lambda *_: Characters())

    def go(profile="cpu"):
        verdicts = Verdicts(sound_task.outputs / "state" / "check.json")
        checks, _ = tool.run(load_task("mini", sound_task.root), profile, verdicts)
        verdicts.write()
        return {c.name: c.status for c in checks}, tool.distinct(p for c in checks for p in c.problems)

    return go


def edit(task, phase, **changes):
    """Replace, add or (None) remove keys of a phase's YAML."""
    path = task.dir / f"{phase}.yml"
    values = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False))


def line_of(path, text):
    return next(i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line)
