"""Regression under Axolotl: phases with heads of their own chain, merge and resume."""

import json
import shutil

import numpy as np
import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import merge
from labelled import EVERY, HEADS, SPEC, STEPS, write_rows, write_task
from recipekit import segments
from recipekit.adapters import adapter_digest
from recipekit.errors import UserError
from recipekit.regression_plugin import with_new_head
from recipekit.regressor import Regressor, half_width
from recipekit.runs import Step, read_record
from recipekit.task import load_task
from train import check_result
from training import run, start, when_step

WEIGHTS = "adapter_model.safetensors"
TARGETS = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"


def root_of(folder):
    write_task(folder)
    write_rows(folder)
    return folder


def classifier(base, outputs, seed=0):
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=outputs)


def save_adapter(folder, base, outputs, seed):
    """Save an adapter with a head, as training leaves it."""
    model = get_peft_model(
        classifier(base, outputs, seed), LoraConfig(r=4, task_type="SEQ_CLS", target_modules=TARGETS)
    )
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": "enc"}
    path.write_text(json.dumps(config), encoding="utf-8")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return model


@pytest.fixture
def task(tmp_path, one_thread):
    """The small regression task, with an adapter of either phase."""
    root = root_of(tmp_path)
    save_adapter(root / "outputs/mini/phase1", root / "enc", 3, 1)
    save_adapter(root / "outputs/mini/phase2", root / "enc", 2, 2)
    task = load_task("mini", root)
    Step(task.outputs, "phase2", {"base_model": root / "enc"}, [task.outputs / "phase2" / WEIGHTS]).record(prompt=None)
    return task


def test_a_new_head_takes_the_old_ones_place_and_the_rest_stays(task, tmp_path):
    model = classifier(task.root / "enc", 2, seed=5)
    start = with_new_head(task.outputs / "phase1", model, tmp_path / "start")
    old, new = load_file(task.outputs / "phase1" / WEIGHTS), load_file(start / WEIGHTS)
    assert old.keys() == new.keys() and old["base_model.model.classifier.out_proj.weight"].shape[0] == 3
    for name in old:
        if "lora_" in name:
            assert torch.equal(old[name], new[name])
        else:
            assert torch.equal(new[name], model.get_parameter(name.removeprefix("base_model.model.")))
    loaded = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    assert loaded.base_model.model.classifier.modules_to_save["default"].out_proj.weight.shape[0] == 2
    assert adapter_digest(start / WEIGHTS, whole=False) == adapter_digest(
        task.outputs / "phase1" / WEIGHTS, whole=False
    )
    assert adapter_digest(start / WEIGHTS) != adapter_digest(task.outputs / "phase1" / WEIGHTS)


@pytest.mark.trap(number=13)
def test_a_merged_regressor_gives_what_base_and_adapter_give(task):
    merge.merge_task(task, "cpu")
    folder = task.outputs / "merged"
    rows = [row for _, row in segments.read_jsonl(task.root / "data/train/two_val.jsonl")]
    bodies = [row["body"] for row in rows]
    regressor = Regressor.load(folder)
    values = regressor.predict(bodies, batch_size=7)
    model = PeftModel.from_pretrained(classifier(task.root / "enc", 2), str(task.outputs / "phase2")).eval()
    tokenizer = AutoTokenizer.from_pretrained(task.root / "enc")
    with torch.no_grad():
        outputs = [
            model(**tokenizer(body, truncation=True, max_length=64, return_tensors="pt")).logits for body in bodies
        ]
    scaled = torch.cat(outputs).sigmoid().numpy()
    assert values == pytest.approx(np.stack([1 + 6 * scaled[:, 0], 10 * scaled[:, 1]], 1), abs=1e-4)
    labels = np.array([[row["labels"]["a"], row["labels"]["b"]] for row in rows])
    widths = [half_width(errors) for errors in np.abs(values - labels).T]
    assert list(regressor.interval.values()) == pytest.approx(widths, abs=1e-4)
    assert json.loads((folder / "config.json").read_text())["id2label"] == {"0": "a", "1": "b"}
    assert read_record(task.outputs / "state" / "merge.json")["merge_error"] < 1e-3


def test_another_head_than_the_trained_one_is_not_merged(task, monkeypatch):
    from peft.tuners.tuners_utils import BaseTuner

    original = BaseTuner.merge_and_unload

    def other(self, **kwargs):
        model = original(self, **kwargs)
        torch.nn.init.normal_(model.classifier.out_proj.weight)
        return model

    monkeypatch.setattr(BaseTuner, "merge_and_unload", other)
    with pytest.raises(UserError, match="its logits are off"):
        merge.merge_task(task, "cpu")
    assert not (task.outputs / "merged").exists()


def test_a_phase_with_a_new_head_must_start_from_the_lora_of_the_one_before(task):
    config = {
        "adapter": "lora",
        "output_dir": "outputs/mini/phase2",
        "lora_model_dir": "outputs/mini/phase1",
        "max_steps": 4,
    }
    config["regression"] = {"new_head": True}
    end = adapter_digest(task.outputs / "phase2" / WEIGHTS)
    facts = {"planned_steps": 4, "reached_steps": 4, "evaluations": 1, "finite": True, "eval_loss": 1.0}
    facts |= {"start_digest": "head", "end_digest": end}
    path = task.outputs / "phase2" / "run_facts.json"
    right = adapter_digest(task.outputs / "phase1" / WEIGHTS, whole=False)
    path.write_text(json.dumps(facts | {"start_lora_digest": right}))
    assert check_result(task, "phase2", config, path)["reached_steps"] == 4
    path.write_text(json.dumps(facts | {"start_lora_digest": "other"}))
    with pytest.raises(UserError, match="did not start from .*phase1"):
        check_result(task, "phase2", config, path)


def test_a_model_of_other_targets_does_not_estimate_for_the_task(task):
    from recipekit.estimator import HeadEstimator

    merge.merge_task(task, "cpu")
    path = task.root / "recipes" / "mini" / "task.yml"
    path.write_text(SPEC.replace("b: {scale", "c: {scale"), encoding="utf-8")
    with pytest.raises(UserError, match=r"regression.json: estimates a, b, expected the targets of .*: a, c; train"):
        HeadEstimator(load_task("mini", task.root), task.outputs / "merged", 8)


@pytest.mark.slow
def test_phases_with_their_own_heads_chain_and_a_killed_run_ends_with_the_same_bytes(tmp_path):
    calm = root_of(tmp_path / "calm")
    for phase in HEADS:
        run(calm, "mini", phase)
    facts = {phase: read_record(calm / "outputs/mini/state" / f"{phase}.json") for phase in HEADS}
    before = calm / "outputs/mini/phase1" / WEIGHTS
    assert facts["phase2"]["start_lora_digest"] == adapter_digest(before, whole=False)
    assert facts["phase2"]["start_digest"] != facts["phase1"]["end_digest"] == adapter_digest(before)

    folder = calm / "outputs/mini/phase2"
    state = json.loads((folder / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
    scores = {entry["step"]: entry["eval_mae"] for entry in state["log_history"] if "eval_mae" in entry}
    assert set(range(EVERY, STEPS + 1, EVERY)) <= scores.keys()
    assert state["best_metric"] == min(scores.values()) and state["best_global_step"] == facts["phase2"]["best_step"]
    assert min(scores.values()) < 0.95 * scores[min(scores)], "nothing was learned"

    stormy = tmp_path / "stormy"
    shutil.copytree(calm, stormy)
    shutil.rmtree(stormy / "outputs/mini/phase2")
    (stormy / "outputs/mini/state/phase2.json").unlink()
    record = stormy / "outputs/mini/state/phase1.json"
    record.write_text(record.read_text().replace(str(calm), str(stormy)))
    killed = start(stormy, "mini", "phase2")
    when_step(stormy, "mini", "phase2", EVERY + 1)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    assert not psutil.wait_procs(children, timeout=15)[1]
    assert "going on from step" in run(stormy, "mini", "phase2")
    assert (stormy / "outputs/mini/phase2" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
