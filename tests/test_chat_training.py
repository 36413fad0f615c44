"""A chat, trained for real: phases in a chain, DPO on the merged model, and the tokens that are served."""

import json
import shutil

import pytest

import merge
from chatting import write_task
from recipekit import held_out as scoring
from recipekit import models
from recipekit.adapters import adapter_digest
from recipekit.errors import UserError
from recipekit.pipeline import steps, training
from recipekit.runs import read_record
from recipekit.task import load_task
from regenerate_segments import generate_chat
from test_chat_tokens import CHATML
from tiny import tiny_model, tiny_tokenizer
from train import step_inputs
from training import run

TEXT = (
    "あなたはアク。関係：（知らない人友達パートナー）りんごみかん電車映画散歩音楽料理花火が好きだよ？"
    "苦手だったよね買おうか0123456789- systemuerian\n"
)


def prepare(root):
    task = write_task(root)
    tokenizer = tiny_tokenizer(root / "base", TEXT)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(root / "base")
    tiny_model(root / "base")
    folder = root / "data" / "train"
    folder.mkdir(parents=True)
    generate_chat(task, task.raw_dir, folder)
    (root / "data" / "test").mkdir()
    (folder / "talk_scenes.jsonl").rename(task.test_path("input"))
    (task.outputs / "state").mkdir(parents=True)
    (task.outputs / "state" / "regenerate.json").write_text(json.dumps({"prompt": task.prompt_digest()}))
    return task


def test_the_phase_that_dpo_starts_from_is_merged_before_it(tmp_path):
    task = prepare(tmp_path)
    assert training(task) == ["phase1", "phase2", "merge_phase2", "dpo"]
    assert [*steps(task)][3:9] == ["phase1", "phase2", "merge_phase2", "dpo", "merge", "held_out"]


@pytest.mark.trap(number=12)
def test_dpo_without_that_merged_model_is_refused(tmp_path):
    task = prepare(tmp_path)
    config = {"base_model": "outputs/talk/phase2/merged", "datasets": [], "test_datasets": []}
    with pytest.raises(UserError, match=r"phase2 is not merged yet; run: uv run tools/merge.py talk --phase phase2"):
        step_inputs(task, config, 1)


def trained_again(root, task, phase):
    """Train a phase from nothing once more; returns the adapter of before and the new one, as bytes."""
    adapter = task.outputs / phase / "adapter_model.safetensors"
    before = adapter.read_bytes()
    for folder in (adapter.parent, task.outputs / "prepared"):
        shutil.rmtree(folder)
    (task.outputs / "state" / f"{phase}.json").unlink()
    assert "steps, eval loss" in run(root, task.name, phase)
    return before, adapter.read_bytes()


@pytest.mark.slow
def test_phases_and_preferences_go_on_from_each_other(tmp_path):
    task = prepare(tmp_path)
    run(tmp_path, "talk", "phase1")
    run(tmp_path, "talk", "phase2")
    facts = read_record(task.outputs / "phase2" / "run_facts.json")
    assert facts["start_digest"] == adapter_digest(task.outputs / "phase1" / "adapter_model.safetensors")
    merge.merge_task(task, "cpu", "phase2")
    merged = task.outputs / "phase2" / "merged"
    assert read_record(task.outputs / "state" / "merge_phase2.json")["adapter"].endswith("outputs/talk/phase2")
    run(tmp_path, "talk", "dpo")
    config = json.loads((task.outputs / "dpo" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"].endswith("outputs/talk/phase2/merged")
    merge.merge_task(task, "cpu")
    model = models.load_model(task.outputs / "merged", None)
    before = models.load_model(merged, None)
    tokenizer = models.load_tokenizer(task.outputs / "merged")
    assert tokenizer.chat_template == CHATML
    rows = [json.loads(line) for line in task.segments_path("pairs").read_text().splitlines()]
    likings = [scoring.preferences(one, tokenizer, rows, lambda *_: None) for one in (before, model)]
    assert (likings[1] - likings[0]).mean() > 0.1, "the chosen replies became likelier than the rejected ones"
    for phase in ("phase1", "dpo"):
        before, after = trained_again(tmp_path, task, phase)
        assert before == after, f"{phase}: same seed, machine and data, other adapter"


@pytest.mark.slow
def test_a_phase_may_train_every_weight(tmp_path):
    prepare(tmp_path)
    task = load_task("talk:full", tmp_path)
    (task.outputs / "state").mkdir(parents=True)
    (task.outputs / "state" / "regenerate.json").write_text(json.dumps({"prompt": task.prompt_digest()}))
    assert "full: 4 steps" in run(tmp_path, "talk:full", "full")
    output = task.outputs / "full"
    assert not (output / "adapter_config.json").exists() and models.differs(tmp_path / "base", output)
    assert not models.differs(output, output)
    merge.merge_task(task, "cpu")
    assert not models.differs(output, task.outputs / "merged")
    record = read_record(task.outputs / "state" / "merge.json")
    assert record["adapter_effect"] > 1e-3 and record["merge_error"] < 1e-3
    assert "up to date" in run(tmp_path, "talk:full", "full")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "given", "said"),
    [
        ("chat_template: tokenizer_default", "chat_template: llama3", "does not end a reply with </s>"),
        ("train_on_eos: turn", "train_on_eos: none", "not tokenised and masked for training as it"),
    ],
)
def test_what_axolotl_trains_otherwise_than_it_is_served_stops_training(tmp_path, found, given, said):
    task = prepare(tmp_path)
    path = task.dir / "phase1.yml"
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, given))
    assert said in run(tmp_path, "talk", "phase1", code=2)
