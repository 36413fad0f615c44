import json
import os
import shutil
import subprocess
import sys

import pytest
import typer
import yaml

import check as tool
from recipekit import ROOT, axolotl_schema, preflight, rowcheck, traps
from recipekit.axolotl_schema import Finding
from recipekit.preflight import Verdicts
from recipekit.task import load_task
from rows import Characters, invert, row, write

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
def task(mini):
    recipe = mini / "recipes" / "mini"
    (recipe / "phase1.yml").write_text(PHASE.replace("PHASE", "phase1").replace("LORA_MODEL_DIR\n", ""))
    chained = PHASE.replace("PHASE", "phase2").replace("LORA_MODEL_DIR", "lora_model_dir: outputs/mini/phase1")
    (recipe / "phase2.yml").write_text(chained)
    (mini / "recipes" / "cpu.yml").write_text(OVERLAY)
    (mini / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    base = mini / "data" / "samples" / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (base / name).write_text("{}")
    task = load_task("mini", mini)
    people = ("山田一", "海野太郎", "川上次郎", "森三郎", "谷四郎", "原五郎", "林六郎", "沢七郎", "岸八郎")
    write(task, "mix", [row(task, f"{name}容疑者を逮捕。", name) for name in people])
    write(task, "neg", [row(task, f"花火大会{i}。") for i in range(3)])
    (mini / "data" / "test").mkdir()
    for name in ("eval.jsonl", "gold.csv"):
        shutil.copy(mini / "data" / "samples" / "mini" / name, mini / "data" / "test")
    return task


@pytest.fixture
def run(task, monkeypatch):
    """Run every check with the schema's worker and the tokenizer replaced; returns (status of each check, problems)."""
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [[] for _ in jobs])
    monkeypatch.setattr(rowcheck, "load_tokenizer", lambda *_: Characters())

    def go(profile="cpu"):
        verdicts = Verdicts(task.outputs / "state" / "check.json")
        checks, _ = tool.run(load_task("mini", task.root), profile, verdicts)
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


def test_a_sound_recipe_passes_every_check(run):
    statuses, problems = run()
    assert problems == []
    assert set(statuses.values()) <= {"ok", "warn"}
    assert {"Python", "disk", "base data/samples/base", "phase1.yml", "phase2 on cpu", "chain"} <= statuses.keys()
    assert statuses["mix_segments.jsonl"] == statuses["neg_segments.jsonl"] == "ok"


# --- YAML


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"seed": None}, "seed", "write seed: 42"),
        ({"attn_implementation": None}, "attn_implementation", "write sdpa"),
        ({"sequence_len": None}, "sequence_len", "512"),
        ({"save_steps": None}, "save_steps", "resume"),
        ({"excess_length_strategy": "truncate"}, "excess_length_strategy", "loses answers"),
        ({"excess_length_strategy": None}, "excess_length_strategy", "found nothing"),
        ({"train_on_inputs": True}, "train_on_inputs", "prompt too"),
        ({"test_datasets": None}, "test_datasets", "nothing is evaluated"),
        ({"eval_steps": None}, "eval_steps", "turns itself off"),
        ({"eval_steps": 101}, "eval_steps", "max_steps 100"),
        ({"eval_strategy": "no"}, "eval_strategy", "nothing is evaluated"),
        ({"save_steps": 70}, "save_steps", "multiple of eval_steps 50"),
        ({"save_steps": 25, "load_best_model_at_end": True}, "save_steps", "multiple of eval_steps 50"),
        ({"mlflow_tracking_uri": "./mlruns"}, "mlflow_tracking_uri", "sqlite:///mlflow.db"),
        ({"mlflow_tracking_uri": "file:///tmp/mlruns"}, "mlflow_tracking_uri", "sqlite:///mlflow.db"),
        ({"mlflow_tracking_uri": None, "use_mlflow": True}, "mlflow_tracking_uri", "./mlruns"),
        ({"deepspeed": "nowhere.json"}, "deepspeed", "does not exist"),
    ],
)
def test_a_trap_in_one_phase_is_named_with_file_line_key_and_remedy(task, run, change, key, words):
    edit(task, "phase1", **change)
    found = [p for p in run()[1] if f": {key}: " in p and words in p]
    path = task.dir / "phase1.yml"
    line = line_of(path, f"{key}:") if change.get(key) is not None else 1
    assert len(found) == 1, run()[1]
    assert found[0].startswith(f"{path}:{line}: {key}: ")


def test_a_zero_config_that_offloads_the_optimizer_is_refused(task, run):
    text = '{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}'
    (task.root / "zero2.json").write_text(text)
    assert "offloads the optimizer to cpu" in run()[1][0]
    (task.root / "zero2.json").write_text("{")
    assert "not valid JSON" in run()[1][0]


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("lora_o_kernel: false", "", "lora_o_kernel"),
        ("bf16: false", "bf16: auto", "bf16"),
        ("bf16: false", "bf16: false\nfp16: true", "fp16"),
        ("deepspeed: null", "", "deepspeed"),
        ("optimizer: adamw_torch", "optimizer: adamw_bnb_8bit", "optimizer"),
        ("bf16: false", "bf16: false\nattn_implementation: flash_attention_2", "attn_implementation"),
        ("bf16: false", "bf16: false\nplugins: [axolotl.integrations.liger.LigerPlugin]", "plugins.0"),
    ],
)
def test_what_needs_a_gpu_is_refused_on_the_cpu_profile_and_only_there(task, run, monkeypatch, old, new, key):
    (task.root / "recipes" / "cpu.yml").write_text(OVERLAY.replace(old, new))
    monkeypatch.setattr(preflight, "FLASH", {})
    assert any(f": {key}: " in problem for problem in run()[1])
    gpu = [p for p in run("gpu")[1] if not p.startswith(("GPU", "torch", "disk"))]
    assert gpu == []


def test_an_overlaid_key_is_named_where_the_overlay_has_it(task, run):
    (task.root / "recipes" / "cpu.yml").write_text(OVERLAY + "eval_steps: 101\n")
    assert run()[1][0].startswith(f"{task.root / 'recipes' / 'cpu.yml'}:8: eval_steps: found 101")
    (task.dir / "cpu.yml").write_text("phase2:\n  eval_steps: 102\n")
    assert any(p.startswith(f"{task.dir / 'cpu.yml'}:2: eval_steps: found 102") for p in run()[1])


@pytest.mark.parametrize(
    ("phase", "change", "key", "words"),
    [
        ("phase2", {"lora_model_dir": None}, "lora_model_dir", "outputs/mini/phase1"),
        ("phase2", {"lora_model_dir": "outputs/mini/phase2"}, "lora_model_dir", "outputs/mini/phase1"),
        ("phase1", {"lora_model_dir": "outputs/mini/phase2"}, "lora_model_dir", "remove it"),
        ("phase2", {"output_dir": "outputs/mini/phase1"}, "output_dir", "outputs/mini/phase"),
        ("phase2", {"lora_r": 32}, "lora_r", "found 32, but phase1 has 16"),
        ("phase2", {"lora_alpha": 64}, "lora_alpha", "found 64, but phase1 has 32"),
        ("phase2", {"lora_dropout": 0.1}, "lora_dropout", "found 0.1, but phase1 has 0.05"),
        ("phase2", {"lora_target_modules": ["q_proj"]}, "lora_target_modules", "['q_proj']"),
        ("phase2", {"base_model": "other/model"}, "base_model", "found other/model"),
        ("phase2", {"tokenizer_config": "other"}, "tokenizer_config", "found other"),
        ("phase2", {"rl": "dpo"}, "lora_model_dir", "starts from zero"),
        ("phase2", {"rl": "dpo", "lora_model_dir": None}, "base_model", "phase1 is lost"),
    ],
)
def test_a_broken_chain_is_named(task, phase, change, key, words):
    edit(task, phase, **change)
    written, _, _ = traps.load_configs(task, "cpu")
    problems = traps.chain_problems(written, task.root)
    assert any(f"{phase}.yml:" in p and f": {key}: " in p and words in p for p in problems), problems


def test_targets_in_another_order_are_the_same_targets(task):
    edit(task, "phase2", lora_target_modules=["v_proj", "q_proj"])
    assert traps.chain_problems(traps.load_configs(task, "cpu")[0], task.root) == []


def test_a_broken_chain_stops_the_check_and_is_said_once(task, run):
    edit(task, "phase2", lora_model_dir=None)
    problems = run()[1]
    assert [p for p in problems if "lora_model_dir" in p] == problems[:1]


def test_a_chain_with_an_unreadable_phase_is_not_judged(task, run):
    (task.dir / "phase1.yml").write_text("")
    assert [p for p in run()[1] if "lora_model_dir" in p] == []


def test_findings_of_the_schema_stand_at_their_line(task, run, monkeypatch):
    edit(task, "phase1", lora_rank=8)
    finding = Finding(("lora_rank",), "unknown key, which Axolotl drops in silence; did you mean 'lora_r'?")
    whole = Finding((), "`lora_dropout` and something else do not go together")
    verdict = [finding, whole]
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [verdict if "lora_rank" in c else [] for c, _ in jobs])
    problems = run()[1]
    path = task.dir / "phase1.yml"
    assert f"{path}:{line_of(path, 'lora_rank')}: lora_rank: {finding.message}" in problems
    assert any(
        p.startswith(f"{path}:{line_of(path, 'lora_dropout')}: lora_dropout: `lora_dropout` and") for p in problems
    )


def test_a_data_sets_key_stands_at_its_own_line(task):
    config = traps.load_configs(task, "cpu")[1][0]
    path = task.dir / "phase1.yml"
    assert config.at(("datasets", 0, "type")) == f"{path}:{line_of(path, 'input_output')}: datasets.0.type"
    assert config.at(("datasets", 0, "weight")) == f"{path}:{line_of(path, 'mix_segments')}: datasets.0.weight"


@pytest.mark.parametrize("text", ["base_model: [\n", "", "lora_r: 1\nlora_r: 2\n", "lora_r: 1\n", "datasets: 3\n"])
def test_an_unreadable_yaml_is_a_line_and_no_traceback(task, run, text):
    (task.dir / "phase1.yml").write_text(text)
    assert any("phase1.yml:" in problem for problem in run()[1])


# --- data


def test_a_missing_data_file_is_named_where_the_yaml_names_it_with_the_command_that_makes_it(task, run):
    task.segments_path("mix").unlink()
    problem = next(p for p in run()[1] if "mix_segments" in p)
    path = task.dir / "phase1.yml"
    assert problem.startswith(f"{path}:{line_of(path, 'mix_segments')}: datasets.0.path: ")
    assert "uv run tools/regenerate_segments.py mini" in problem


def test_a_prompt_changed_since_regenerate_stops_the_check(task, run):
    assert run()[1] == []
    (task.dir / "system.txt").write_text("注意して抽出する。\n", encoding="utf-8")
    problems = run()[1]
    assert "segment 1 is not what the prompt of today renders" in problems[0]
    assert all("regenerate_segments.py mini" in p for p in problems)


def test_an_output_schema_changed_since_regenerate_stops_the_check(task, run):
    assert run()[1] == []
    path = task.dir / "task.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("required: [persons]", "required: [persons, places]"))
    assert "'places' is a required property" in run()[1][0]


@pytest.mark.parametrize(
    ("name", "content", "problems"),
    [
        ("gold.csv", "id,person_name\nE1,海野\nE1,山田\n", ["gold.csv:3: id 'E1' stands on line 2 already"]),
        ("gold.csv", "id,name\nE1,海野\n", ["gold.csv:1: column 'person_name' is missing"]),
        (
            "gold.csv",
            "id,person_name\nE2,\n",
            ["gold.csv:2: id 'E2' has no row in", "eval.jsonl:1: id 'E1' has no row in"],
        ),
        ("eval.jsonl", '{"id": "E1"}\n', ["eval.jsonl:1: 'body': expected text, found 'None'"]),
        ("gold.csv", None, ["gold.csv: No such file or directory; make it with regenerate_segments.py"]),
    ],
)
def test_a_wrong_test_set_stops_the_check(task, run, name, content, problems):
    path = task.root / "data" / "test" / name
    path.write_text(content, encoding="utf-8") if content else path.unlink()
    statuses, found = run()
    assert statuses["test set"] == "fail" and len(found) == len(problems)
    assert all(part in problem for part, problem in zip(problems, found, strict=True))


def test_values_without_a_person_of_their_own_are_a_warning(task, run):
    path = task.dir / "task.yml"
    text = path.read_text(encoding="utf-8")
    columns = text.index("  columns:")
    path.write_text(
        text[:columns]
        + '  entities: {person: {path: "persons[]", key: person_name}}\n  columns:\n'
        + "    person_name: {entity: person, path: name, compare: person_name}\n"
        + "    age: {entity: person, path: age, compare: age}\n",
        encoding="utf-8",
    )
    gold = task.root / "data" / "test" / "gold.csv"
    gold.write_text("id,person_name,age\nE1,海野|山田,32\n", encoding="utf-8")
    statuses, found = run()
    assert statuses["test set"] == "warn" and found == []


def test_without_a_base_rows_are_still_checked_but_not_their_tokens(task, run):
    (task.root / "data" / "samples" / "base" / "config.json").unlink()
    rows = [row(task, "逮捕。", "山田")]
    invert(rows[0])
    write(task, "mix", rows)
    problems = run()[1]
    assert any("config.json" in p for p in problems) and any("the mask is wrong" in p for p in problems)


def test_tokens_left_unchecked_for_want_of_a_base_are_checked_once_it_is_there(task, run):
    weights = task.root / "data" / "samples" / "base" / "model.safetensors"
    write(task, "mix", [row(task, "逮捕。" * 600, "山田")])
    weights.rename(weights.with_suffix(".aside"))
    assert not any("over sequence_len" in p for p in run()[1])
    weights.with_suffix(".aside").rename(weights)
    assert any("over sequence_len" in p for p in run()[1])


def test_a_file_that_two_phases_share_has_to_fit_the_shorter_one(task, run):
    write(task, "mix", [row(task, "逮捕。" * 50, "山田")])
    assert run()[1] == []
    edit(task, "phase2", sequence_len=150)
    assert any("over sequence_len 150" in p for p in run()[1])


# --- what has not changed is not looked at again


def test_a_second_run_looks_at_nothing_again_and_a_third_at_what_changed(task, run, monkeypatch):
    assert run()[1] == []
    looked = []
    real = rowcheck.check_file
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: looked.extend(jobs) or [[] for _ in jobs])
    monkeypatch.setattr(rowcheck, "check_file", lambda *args: looked.append(args[1].name) or real(*args))
    assert run()[1] == [] and looked == []
    write(task, "neg", [row(task, "祭り。")])
    assert run()[1] == [] and looked == ["neg_segments.jsonl"]
    looked.clear()
    edit(task, "phase2", learning_rate=0.001)
    assert run()[1] == [] and [job[0].get("learning_rate") for job in looked] == [0.001, 0.001]


def test_what_failed_is_looked_at_again(task, run, monkeypatch):
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [[Finding(("seed",), "wrong")] for _ in jobs])
    write(task, "neg", [])
    first = run()[1]
    assert first == run()[1]
    assert any("seed: wrong" in p for p in first) and any("empty" in p for p in first)


# --- the command


@pytest.fixture
def command(task, run, monkeypatch):
    shown = []
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, task.root))
    monkeypatch.setattr(tool, "show", lambda what, **_: shown.append(getattr(what, "plain", what)))
    return lambda: (tool.check("mini", "cpu"), shown)[1]


def test_the_command_shows_a_table_and_a_sample_and_records_the_time(task, command):
    shown = command()
    assert "⏎</s>" in shown[1] and "山田一" in shown[1] and len(shown) == 2
    record = json.loads((task.outputs / "state" / "check.json").read_text())
    assert record["profile"] == "cpu" and record["seconds"] >= 0


def test_the_command_lists_all_failures_and_exits_1(task, command, monkeypatch):
    edit(task, "phase1", seed=None)
    edit(task, "phase2", lora_r=8)
    write(task, "neg", [])
    shown = []
    monkeypatch.setattr(tool, "show", lambda what, **_: shown.append(what))
    with pytest.raises(typer.Exit) as end:
        command()
    errors = [line for line in shown if isinstance(line, str) and line.startswith("error: ")]
    assert end.value.exit_code == 1
    assert all(any(word in line for line in errors) for word in (": seed: ", ": lora_r: ", "neg_segments.jsonl"))
    assert len(errors) == len(set(errors)) == 3


def test_a_worker_that_dies_is_a_failure(run, monkeypatch):
    def die(jobs):
        raise RuntimeError("no module named axolotl")

    monkeypatch.setattr(axolotl_schema, "validate", die)
    assert run()[1] == ["no module named axolotl; run: uv sync"]


@pytest.mark.parametrize("arguments", [["nosuch", "--profile", "cpu"], ["hawks", "--profile", "tpu"], ["hawks"]])
def test_wrong_arguments_exit_2(arguments):
    command = [sys.executable, str(ROOT / "tools" / "check.py"), *arguments]
    end = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LOG_DIR": ""}, check=False)
    assert end.returncode == 2 and "Traceback" not in end.stderr
