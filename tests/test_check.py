import json
import os
import subprocess
import sys

import pytest
import typer

import check as tool
from checking import OVERLAY, edit, line_of
from recipekit import ROOT, axolotl_schema, preflight, rowcheck, traps
from recipekit.axolotl_schema import Finding
from recipekit.errors import UserError
from recipekit.task import load_task
from rows import row, write


def test_a_sound_recipe_passes_every_check(run_checks):
    statuses, problems = run_checks()
    assert problems == []
    assert set(statuses.values()) <= {"ok", "warn"}
    assert {"Python", "disk", "base data/samples/base", "phase1.yml", "phase2 on cpu", "chain"} <= statuses.keys()
    assert statuses["mix_segments.jsonl"] == statuses["neg_segments.jsonl"] == "ok"


# --- YAML


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        pytest.param({"seed": None}, "seed", "write seed: 42", marks=pytest.mark.trap(number=4)),
        pytest.param(
            {"attn_implementation": None}, "attn_implementation", "write sdpa", marks=pytest.mark.trap(number=9)
        ),
        pytest.param(
            {"attn_implementation": "fp8", "sample_packing": True},
            "attn_implementation",
            "see each other",
            marks=pytest.mark.trap(number=9),
        ),
        ({"attn_implementation": "some/kernel"}, "attn_implementation", "code from the Hub"),
        pytest.param(
            {"load_best_model_at_end": True, "metric_for_best_model": "mae"},
            "greater_is_better",
            "write false for errors",
            marks=pytest.mark.trap(number=19),
        ),
        pytest.param({"sequence_len": None}, "sequence_len", "512", marks=pytest.mark.trap(number=6)),
        ({"save_steps": None}, "save_steps", "resume"),
        pytest.param(
            {"excess_length_strategy": "truncate"},
            "excess_length_strategy",
            "loses answers",
            marks=pytest.mark.trap(number=6),
        ),
        pytest.param(
            {"excess_length_strategy": None},
            "excess_length_strategy",
            "found nothing",
            marks=pytest.mark.trap(number=6),
        ),
        ({"train_on_inputs": True}, "train_on_inputs", "prompt too"),
        pytest.param(
            {"test_datasets": None}, "test_datasets", "nothing is evaluated", marks=pytest.mark.trap(number=8)
        ),
        pytest.param({"eval_steps": None}, "eval_steps", "turns itself off", marks=pytest.mark.trap(number=8)),
        pytest.param({"eval_steps": 101}, "eval_steps", "max_steps 100", marks=pytest.mark.trap(number=8)),
        pytest.param(
            {"eval_strategy": "no"}, "eval_strategy", "nothing is evaluated", marks=pytest.mark.trap(number=8)
        ),
        ({"save_steps": 70}, "save_steps", "multiple of eval_steps 50"),
        pytest.param(
            {"save_steps": 25, "load_best_model_at_end": True},
            "save_steps",
            "multiple of eval_steps 50",
            marks=pytest.mark.trap(number=8),
        ),
        pytest.param(
            {"mlflow_tracking_uri": "./mlruns"},
            "mlflow_tracking_uri",
            "sqlite:///mlflow.db",
            marks=pytest.mark.trap(number=18),
        ),
        pytest.param(
            {"mlflow_tracking_uri": "file:///tmp/mlruns"},
            "mlflow_tracking_uri",
            "sqlite:///mlflow.db",
            marks=pytest.mark.trap(number=18),
        ),
        pytest.param(
            {"mlflow_tracking_uri": None, "use_mlflow": True},
            "mlflow_tracking_uri",
            "./mlruns",
            marks=pytest.mark.trap(number=18),
        ),
        ({"deepspeed": "nowhere.json"}, "deepspeed", "does not exist"),
    ],
)
def test_a_trap_in_one_phase_is_named_with_file_line_key_and_remedy(sound_task, run_checks, change, key, words):
    edit(sound_task, "phase1", **change)
    found = [p for p in run_checks()[1] if f": {key}: " in p and words in p]
    path = sound_task.dir / "phase1.yml"
    line = line_of(path, f"{key}:") if change.get(key) is not None else 1
    assert len(found) == 1, run_checks()[1]
    assert found[0].startswith(f"{path}:{line}: {key}: ")


@pytest.mark.trap(number=16)
def test_a_zero_config_that_offloads_the_optimizer_is_refused(sound_task, run_checks):
    text = '{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}'
    (sound_task.root / "zero2.json").write_text(text)
    assert "offloads the optimizer to cpu" in run_checks()[1][0]
    (sound_task.root / "zero2.json").write_text("{")
    assert "not valid JSON" in run_checks()[1][0]


@pytest.mark.trap(number=15)
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
def test_what_needs_a_gpu_is_refused_on_the_cpu_profile_and_only_there(
    sound_task, run_checks, monkeypatch, old, new, key
):
    (sound_task.root / "recipes" / "cpu.yml").write_text(OVERLAY.replace(old, new))
    monkeypatch.setattr(preflight, "FLASH", {})
    assert any(f": {key}: " in problem for problem in run_checks()[1])
    gpu = [p for p in run_checks("gpu")[1] if not p.startswith(("GPU", "torch", "disk"))]
    assert gpu == []


def test_an_overlaid_key_is_named_where_the_overlay_has_it(sound_task, run_checks):
    (sound_task.root / "recipes" / "cpu.yml").write_text(OVERLAY + "eval_steps: 101\n")
    assert run_checks()[1][0].startswith(f"{sound_task.root / 'recipes' / 'cpu.yml'}:8: eval_steps: found 101")
    (sound_task.dir / "cpu.yml").write_text("phase2:\n  eval_steps: 102\n")
    assert any(p.startswith(f"{sound_task.dir / 'cpu.yml'}:2: eval_steps: found 102") for p in run_checks()[1])


@pytest.mark.parametrize(
    ("phase", "change", "key", "words"),
    [
        ("phase2", {"lora_model_dir": None}, "lora_model_dir", "outputs/mini/phase1"),
        ("phase2", {"lora_model_dir": "outputs/mini/phase2"}, "lora_model_dir", "outputs/mini/phase1"),
        ("phase1", {"lora_model_dir": "outputs/mini/phase2"}, "lora_model_dir", "remove it"),
        ("phase2", {"output_dir": "outputs/mini/phase1"}, "output_dir", "outputs/mini/phase"),
        pytest.param(
            "phase2", {"lora_r": 32}, "lora_r", "found 32, but phase1 has 16", marks=pytest.mark.trap(number=10)
        ),
        pytest.param(
            "phase2", {"lora_alpha": 64}, "lora_alpha", "found 64, but phase1 has 32", marks=pytest.mark.trap(number=10)
        ),
        pytest.param(
            "phase2",
            {"lora_dropout": 0.1},
            "lora_dropout",
            "found 0.1, but phase1 has 0.05",
            marks=pytest.mark.trap(number=10),
        ),
        pytest.param(
            "phase2",
            {"lora_target_modules": ["q_proj"]},
            "lora_target_modules",
            "['q_proj']",
            marks=pytest.mark.trap(number=10),
        ),
        ("phase2", {"base_model": "other/model"}, "base_model", "found other/model"),
        ("phase2", {"tokenizer_config": "other"}, "tokenizer_config", "found other"),
        pytest.param("phase2", {"rl": "dpo"}, "lora_model_dir", "starts from zero", marks=pytest.mark.trap(number=12)),
        pytest.param("phase2", {"rl": "ipo"}, "lora_model_dir", "starts from zero", marks=pytest.mark.trap(number=12)),
        pytest.param("phase2", {"rl": "kto"}, "lora_model_dir", "starts from zero", marks=pytest.mark.trap(number=12)),
        pytest.param(
            "phase2",
            {"rl": "dpo", "lora_model_dir": None},
            "base_model",
            "phase1 is lost",
            marks=pytest.mark.trap(number=12),
        ),
    ],
)
def test_a_broken_chain_is_named(sound_task, phase, change, key, words):
    edit(sound_task, phase, **change)
    written, _, _ = traps.load_configs(sound_task, "cpu")
    problems = traps.chain_problems(written, sound_task.root)
    assert any(f"{phase}.yml:" in p and f": {key}: " in p and words in p for p in problems), problems


def test_targets_in_another_order_are_the_same_targets(sound_task):
    edit(sound_task, "phase2", lora_target_modules=["v_proj", "q_proj"])
    assert traps.chain_problems(traps.load_configs(sound_task, "cpu")[0], sound_task.root) == []


def test_a_broken_chain_stops_the_check_and_is_said_once(sound_task, run_checks):
    edit(sound_task, "phase2", lora_model_dir=None)
    problems = run_checks()[1]
    assert [p for p in problems if "lora_model_dir" in p] == problems[:1]


def test_a_chain_with_an_unreadable_phase_is_not_judged(sound_task, run_checks):
    (sound_task.dir / "phase1.yml").write_text("")
    assert [p for p in run_checks()[1] if "lora_model_dir" in p] == []


@pytest.mark.trap(number=5)
def test_findings_of_the_schema_stand_at_their_line(sound_task, run_checks, monkeypatch):
    edit(sound_task, "phase1", lora_rank=8)
    finding = Finding(("lora_rank",), "unknown key, which Axolotl drops in silence; did you mean 'lora_r'?")
    whole = Finding((), "`lora_dropout` and something else do not go together")
    verdict = [finding, whole]
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [verdict if "lora_rank" in c else [] for c, _ in jobs])
    problems = run_checks()[1]
    path = sound_task.dir / "phase1.yml"
    assert f"{path}:{line_of(path, 'lora_rank')}: lora_rank: {finding.message}" in problems
    assert any(
        p.startswith(f"{path}:{line_of(path, 'lora_dropout')}: lora_dropout: `lora_dropout` and") for p in problems
    )


def test_a_data_sets_key_stands_at_its_own_line(sound_task):
    config = traps.load_configs(sound_task, "cpu")[1][0]
    path = sound_task.dir / "phase1.yml"
    assert config.at(("datasets", 0, "type")) == f"{path}:{line_of(path, 'input_output')}: datasets.0.type"
    assert config.at(("datasets", 0, "weight")) == f"{path}:{line_of(path, 'mix_segments')}: datasets.0.weight"


@pytest.mark.parametrize("text", ["base_model: [\n", "", "lora_r: 1\nlora_r: 2\n", "lora_r: 1\n", "datasets: 3\n"])
def test_an_unreadable_yaml_is_a_line_and_no_traceback(sound_task, run_checks, text):
    (sound_task.dir / "phase1.yml").write_text(text)
    assert any("phase1.yml:" in problem for problem in run_checks()[1])


# --- what has not changed is not looked at again


def test_a_second_run_looks_at_nothing_again_and_a_third_at_what_changed(sound_task, run_checks, monkeypatch):
    assert run_checks()[1] == []
    looked = []
    real = rowcheck.check_file
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: looked.extend(jobs) or [[] for _ in jobs])
    monkeypatch.setattr(rowcheck, "check_file", lambda *args: looked.append(args[1].name) or real(*args))
    assert run_checks()[1] == [] and looked == []
    write(sound_task, "neg", [row(sound_task, "祭り。")])
    assert run_checks()[1] == [] and looked == ["neg_segments.jsonl"]
    looked.clear()
    edit(sound_task, "phase2", learning_rate=0.001)
    assert run_checks()[1] == [] and [job[0].get("learning_rate") for job in looked] == [0.001, 0.001]


def test_what_failed_is_looked_at_again(sound_task, run_checks, monkeypatch):
    monkeypatch.setattr(axolotl_schema, "validate", lambda jobs: [[Finding(("seed",), "wrong")] for _ in jobs])
    write(sound_task, "neg", [])
    first = run_checks()[1]
    assert first == run_checks()[1]
    assert any("seed: wrong" in p for p in first) and any("empty" in p for p in first)


# --- the command


@pytest.fixture
def command(sound_task, run_checks, monkeypatch):
    shown = []
    monkeypatch.setattr(tool, "load_task", lambda name: load_task(name, sound_task.root))
    monkeypatch.setattr(tool, "show", lambda what, **_: shown.append(getattr(what, "plain", what)))
    return lambda: (tool.check("mini", "cpu"), shown)[1]


def test_the_command_shows_a_table_and_a_sample_and_records_the_time(sound_task, command):
    shown = command()
    assert "⏎</s>" in shown[1] and "山田一" in shown[1] and len(shown) == 2
    record = json.loads((sound_task.outputs / "state" / "check.json").read_text())
    assert record["profile"] == "cpu" and record["seconds"] >= 0


def test_the_command_lists_all_failures_and_exits_1(sound_task, command, monkeypatch):
    edit(sound_task, "phase1", seed=None)
    edit(sound_task, "phase2", lora_r=8)
    write(sound_task, "neg", [])
    shown = []
    monkeypatch.setattr(tool, "show", lambda what, **_: shown.append(what))
    with pytest.raises(typer.Exit) as end:
        command()
    errors = [line for line in shown if isinstance(line, str) and line.startswith("error: ")]
    assert end.value.exit_code == 1
    assert all(any(word in line for line in errors) for word in (": seed: ", ": lora_r: ", "neg_segments.jsonl"))
    assert len(errors) == len(set(errors)) == 3


@pytest.mark.fault(number=55)
def test_a_worker_that_takes_too_long_is_a_failure_among_others(run_checks, monkeypatch):
    def late(jobs):
        raise UserError("not loaded within 600 s; raise the limit")

    monkeypatch.setattr(axolotl_schema, "validate", late)
    status, problems = run_checks()
    assert status["schema"] == "fail" and status["test set"] == "ok"
    assert problems == ["not loaded within 600 s; raise the limit"]


def test_a_worker_that_dies_is_a_failure(run_checks, monkeypatch):
    def die(jobs):
        raise RuntimeError("no module named axolotl")

    monkeypatch.setattr(axolotl_schema, "validate", die)
    assert run_checks()[1] == ["no module named axolotl; run: uv sync"]


@pytest.mark.parametrize("arguments", [["nosuch", "--profile", "cpu"], ["hawks", "--profile", "tpu"], ["hawks"]])
def test_wrong_arguments_exit_2(arguments):
    command = [sys.executable, str(ROOT / "tools" / "check.py"), *arguments]
    end = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LOG_DIR": ""}, check=False)
    assert end.returncode == 2 and "Traceback" not in end.stderr
