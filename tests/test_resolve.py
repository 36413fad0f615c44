"""Production YAML + overlay = what Axolotl gets."""

import shutil
from pathlib import Path

import pytest
import yaml

from recipekit import ROOT
from recipekit.errors import UserError
from recipekit.resolve import RUN_PLUGIN, resolve, write_resolved
from recipekit.task import load_task

DATA = {"path": "data/train/neg_segments.jsonl", "type": "input_output", "ds_type": "json"}


def write(root: Path, name: str, **values) -> None:
    (root / "recipes" / name).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


@pytest.fixture
def root(mini: Path) -> Path:
    base = {"base_model": "big", "datasets": [DATA], "bf16": True, "plugins": ["liger"], "deepspeed": "zero2.json"}
    write(mini, "mini/phase1.yml", **base, output_dir="outputs/mini/phase1")
    write(mini, "mini/phase2.yml", **base, output_dir="./outputs/mini/phase2", lora_model_dir="outputs/mini/phase1/")
    write(mini, "cpu.yml", base_model="data/samples/base", bf16=False, deepspeed=None, plugins=None, unseen=None)
    write(mini, "mini/cpu.yml", phase1={"max_steps": 5}, phase2={"max_steps": 7, "bf16": "auto"})
    (mini / "data" / "train").mkdir(parents=True)
    (mini / "data" / "train" / "neg_segments.jsonl").write_text("one\n")
    return mini


def problems(root: Path, phase: str = "phase2", profile: str = "cpu") -> list[str]:
    with pytest.raises(UserError) as caught:
        resolve(load_task("mini", root), phase, profile)
    return caught.value.problems


def test_the_task_overlay_beats_the_cpu_overlay_beats_the_phase(root: Path) -> None:
    config = resolve(load_task("mini", root), "phase2", "cpu")
    assert (config["base_model"], config["max_steps"], config["bf16"]) == ("data/samples/base", 7, "auto")
    assert config["lora_model_dir"] == "outputs/mini/phase1/"
    assert resolve(load_task("mini", root), "phase1", "cpu")["bf16"] is False


def test_null_removes_a_key(root: Path) -> None:
    config = resolve(load_task("mini", root), "phase1", "cpu")
    assert "deepspeed" not in config
    assert "unseen" not in config
    assert config["plugins"] == [RUN_PLUGIN]


def test_the_gpu_profile_takes_no_overlay(root: Path) -> None:
    config = resolve(load_task("mini", root), "phase1", "gpu")
    assert (config["base_model"], config["deepspeed"]) == ("big", "zero2.json")
    assert config["plugins"] == ["liger", RUN_PLUGIN]


@pytest.mark.fault(number=32)
@pytest.mark.trap(number=3)
def test_rows_are_prepared_anew_when_a_data_file_changes(root: Path) -> None:
    task = load_task("mini", root)
    before = resolve(task, "phase1", "cpu")["dataset_prepared_path"]
    assert resolve(task, "phase1", "cpu")["dataset_prepared_path"] == before
    (root / "data" / "train" / "neg_segments.jsonl").write_text("two\n")
    assert resolve(task, "phase1", "cpu")["dataset_prepared_path"] != before


@pytest.mark.trap(number=3)
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 43},
        {"excess_length_strategy": "raise"},
        {"shuffle_merged_datasets": False},
        {"datasets": [DATA, DATA | {"shards": 2}]},
    ],
    ids=str,
)
def test_rows_are_prepared_anew_when_a_setting_changes(root: Path, change: dict) -> None:
    task = load_task("mini", root)
    phase = root / "recipes" / "mini" / "phase1.yml"
    paths = {resolve(task, "phase1", "cpu")["dataset_prepared_path"]}
    before = yaml.safe_load(phase.read_text(encoding="utf-8"))
    swapped = [{"datasets": change["datasets"][::-1]}] if "datasets" in change else []
    for values in (change, *swapped):
        write(root, "mini/phase1.yml", **before | values)
        paths.add(resolve(task, "phase1", "cpu")["dataset_prepared_path"])
    assert len(paths) == 2 + len(swapped)


def test_rows_are_prepared_anew_when_the_tokenizer_changes(root: Path) -> None:
    task, base = load_task("mini", root), root / "data" / "samples" / "base"
    base.mkdir()
    paths = set()
    for text in ("{}", "{ }"):
        (base / "tokenizer.json").write_text(text)
        paths.add(resolve(task, "phase1", "cpu")["dataset_prepared_path"])
    assert len(paths) == 2


def test_an_overlay_for_an_unknown_phase_is_refused(root: Path) -> None:
    write(root, "mini/cpu.yml", phase1={}, phase3={"max_steps": 1}, phase2=5)
    found = problems(root)
    assert "cpu.yml:2: phase3: no such phase; the phases of mini are phase1, phase2" in found[0]
    assert "cpu.yml:4: phase2: expected keys and values" in found[1]


def test_an_unchained_phase_is_refused(root: Path) -> None:
    write(root, "mini/phase2.yml", base_model="big", output_dir="outputs/mini/phase2")
    assert "lora_model_dir: missing, so phase2 would start afresh and lose phase1" in problems(root)[0]


def test_a_phase_on_a_merged_model_is_chained(root: Path) -> None:
    write(root, "mini/phase2.yml", base_model="outputs/mini/phase1/merged", output_dir="outputs/mini/phase2")
    assert resolve(load_task("mini", root), "phase2", "gpu")["base_model"] == "outputs/mini/phase1/merged"


def test_a_phase_chained_to_itself_or_writing_elsewhere_is_refused(root: Path) -> None:
    write(root, "mini/phase2.yml", base_model="big", output_dir="out", lora_model_dir="outputs/mini/phase2")
    found = problems(root)
    assert "phase2.yml:2: output_dir: found 'out', expected 'outputs/mini/phase2'" in found[0]
    assert "phase2.yml:3: lora_model_dir: found 'outputs/mini/phase2', expected an earlier phase's" in found[1]


COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRUSTED = {"base_model": "some/model", "revision_of_model": COMMIT}


def trust(root: Path, **changed: object) -> None:
    """Have phase 1 run its base's own code, and task.yml allow it."""
    base = {"datasets": [DATA], "output_dir": "outputs/mini/phase1", "trust_remote_code": True}
    write(root, "mini/phase1.yml", **base | TRUSTED | changed)
    spec = root / "recipes" / "mini" / "task.yml"
    allowed = yaml.safe_dump({"trust_remote_code": {"model": "some/model", "revision": COMMIT}})
    spec.write_text(spec.read_text(encoding="utf-8") + allowed, encoding="utf-8")


def test_code_of_a_model_runs_where_the_task_names_model_and_commit(root: Path) -> None:
    trust(root)
    assert resolve(load_task("mini", root), "phase1", "gpu")["trust_remote_code"] is True


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"base_model": "other/model"}, "other/model at 0123"),
        ({"revision_of_model": "main"}, "some/model at main"),
        ({"revision_of_model": None}, "some/model at no revision_of_model"),
    ],
)
def test_code_of_another_model_or_commit_does_not_run(root: Path, changed: dict, found: str) -> None:
    trust(root, **changed)
    (problem,) = problems(root, "phase1", "gpu")
    assert f"phase1.yml:6: trust_remote_code: {found}" in problem and "trust_remote_code: {model: " in problem


def test_code_of_a_model_that_no_task_names_does_not_run(root: Path) -> None:
    write(root, "mini/phase1.yml", output_dir="outputs/mini/phase1", datasets=[DATA], trust_remote_code=True, **TRUSTED)
    assert "phase1.yml:6: trust_remote_code: some/model at 0123" in problems(root, "phase1", "gpu")[0]


def test_a_commit_is_40_hex_digits(root: Path) -> None:
    trust(root)
    spec = root / "recipes" / "mini" / "task.yml"
    spec.write_text(spec.read_text(encoding="utf-8").replace(COMMIT, "main"), encoding="utf-8")
    with pytest.raises(UserError, match=r"trust_remote_code.revision: 'main' does not match"):
        load_task("mini", root)


def test_code_of_a_data_set_never_runs(root: Path) -> None:
    trust(root, datasets=[DATA | {"trust_remote_code": True}])
    assert "phase1.yml:1: datasets: trust_remote_code runs a data set's own code" in problems(root, "phase1", "gpu")[0]


@pytest.mark.parametrize(
    "values",
    [
        {"hub_token": "hf_" + "aB3" * 12},
        {"mlflow_tracking_uri": "https://someone:canary@mlflow.example/"},
        {"env": {"AWS_ACCESS_KEY_ID": "AKIA" + "Q7XW" * 4}},
        {"note": "whatever-form-it-has"},
    ],
)
def test_a_secret_never_gets_into_the_resolved_file(root: Path, monkeypatch: pytest.MonkeyPatch, values: dict) -> None:
    monkeypatch.setenv("LOG_DIR", "logs/now")
    monkeypatch.setenv("HF_AUTH_TOKEN", "whatever-form-it-has")
    with pytest.raises(UserError, match="a secret in its YAML would be written into logs") as caught:
        write_resolved(values, "phase1", root)
    assert "canary" not in str(caught.value) and not (root / "logs").exists()


def test_the_first_phase_starts_from_no_adapter(root: Path) -> None:
    write(root, "mini/phase1.yml", base_model="b", output_dir="outputs/mini/phase1", lora_model_dir="outputs/mini/x")
    assert "expected none: no phase comes before" in problems(root, "phase1")[0]


def test_unknown_phases_and_profiles_are_refused(root: Path) -> None:
    assert "no phase 'phase9' in task mini; the phases are phase1, phase2" in problems(root, "phase9")[0]
    assert "--profile tpu: expected one of cpu, gpu" in problems(root, profile="tpu")[0]


def test_the_resolved_file_lies_in_the_log_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_DIR", "logs/now")
    config = resolve(load_task("mini", root), "phase1", "cpu")
    path = write_resolved(config, "phase1", root)
    assert path == root / "logs" / "now" / "phase1.yml"
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == config


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_shipped_phases_resolve_alike(tmp_path: Path, profile: str) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    task = load_task("hawks", tmp_path)
    first, second = (resolve(task, phase, profile) for phase in task.phases)
    same = (
        "base_model",
        "adapter",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
        "sequence_len",
        "seed",
    )
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    for config in (first, second):
        assert config["save_steps"] % config["eval_steps"] == 0 or config["eval_steps"] % config["save_steps"] == 0
        assert config["max_steps"] % config["save_steps"] == config["max_steps"] % config["eval_steps"] == 0
        assert ("deepspeed" in config) == (profile == "gpu")
