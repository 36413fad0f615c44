"""Training is believed only where every check holds."""

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from datasets import Dataset, load_from_disk
from safetensors.numpy import save_file

from recipekit import ROOT, segments
from recipekit.adapters import adapter_digest, tensors_digest
from recipekit.errors import UserError
from recipekit.process import hold, last_error, written_since
from recipekit.resuming import is_whole, prepare_output, seal
from recipekit.runs import read_record
from recipekit.task import Task, load_task
from tiny import TEXT, tiny_base
from train import check_result, environment, step_inputs
from training import run, start, when_step

STEPS, SAVED_EVERY = 40, 10
CONFIG = {
    "adapter": "lora",
    "output_dir": "outputs/mini/phase2",
    "lora_model_dir": "outputs/mini/phase1",
    "max_steps": 4,
    "datasets": [],
}
FACTS = {"planned_steps": 4, "reached_steps": 4, "evaluations": 2, "finite": True, "loss": 1.0, "eval_loss": 1.0}


def adapter(root: Path, phase: str, value: float, **facts) -> str:
    """Save a one-tensor adapter; returns its digest."""
    folder = root / "outputs" / "mini" / phase
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"layer.lora_B.weight": np.full((2, 3), value, np.float32)}, folder / "adapter_model.safetensors")
    return adapter_digest(folder / "adapter_model.safetensors")


def finished(root: Path, **changed) -> Task:
    """Leave what a good run of phase 2 leaves, with some facts changed."""
    facts = FACTS | {"start_digest": adapter(root, "phase1", 1), "end_digest": adapter(root, "phase2", 2)} | changed
    (root / "outputs" / "mini" / "phase2" / "run_facts.json").write_text(json.dumps(facts))
    return load_task("mini", root)


def test_a_good_run_is_believed(mini: Path) -> None:
    assert check_result(finished(mini), "phase2", CONFIG, mini / "log")["reached_steps"] == 4


@pytest.mark.fault(number=43)
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"reached_steps": 3}, "reached step 3, expected 4"),
        ({"reached_steps": 3, "planned_steps": 3}, "reached step 3, expected 4"),
        pytest.param({"finite": False}, "a loss was NaN", marks=pytest.mark.trap(number=7)),
        pytest.param({"evaluations": 0}, "no evaluation took place", marks=pytest.mark.trap(number=8)),
        ({"start_digest": "0"}, "did not start from .*outputs/mini/phase1/adapter_model.safetensors"),
        ({"end_digest": "0"}, "the saved adapter is not what training ended with"),
    ],
)
def test_a_run_that_fell_short_is_not_believed(mini: Path, changed: dict, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        check_result(finished(mini, **changed), "phase2", CONFIG, mini / "log")


def test_an_adapter_that_did_not_change_is_not_believed(mini: Path) -> None:
    task = finished(mini, start_digest=adapter(mini, "phase2", 2))
    with pytest.raises(UserError, match="the adapter did not change"):
        check_result(task, "phase2", CONFIG, mini / "log")


@pytest.mark.trap(number=2)
def test_an_exit_code_of_0_without_an_end_is_not_believed(mini: Path) -> None:
    task = finished(mini)
    (mini / "outputs" / "mini" / "phase2" / "run_facts.json").unlink()
    with pytest.raises(UserError, match="stopped before its end, though its exit code is 0"):
        check_result(task, "phase2", CONFIG, mini / "log")


def test_a_phase_waits_for_the_one_before(mini: Path) -> None:
    adapter(mini, "phase1", 1)  # an adapter lies there, but no record says that it is finished
    with pytest.raises(UserError, match="phase1 is not finished"):
        step_inputs(load_task("mini", mini), CONFIG | {"base_model": "owner/model"}, 1)


@pytest.mark.trap(number=17)
def test_training_starts_without_telemetry(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AXOLOTL_DO_NOT_TRACK", raising=False)
    env = environment(load_task("mini", mini), {"base_model": "owner/model"})
    assert env["AXOLOTL_DO_NOT_TRACK"] == "1"


def test_missing_data_and_a_missing_base_are_named_together(mini: Path) -> None:
    config = {"base_model": "data/samples/base", "datasets": [{"path": "data/train/no.jsonl"}]}
    with pytest.raises(UserError) as caught:
        step_inputs(load_task("mini", mini), config, 1)
    assert "data/train/no.jsonl: no such file; make it with" in caught.value.problems[0]
    assert "base_model data/samples/base: no config.json in that folder" in caught.value.problems[1]


def test_data_made_with_another_prompt_is_refused(mini: Path) -> None:
    task = load_task("mini", mini)
    path = task.segments_path("pos")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(segments.build(task, "本文。", {"persons": []})) + "\n")
    config = {"base_model": "owner/model", "datasets": [{"path": "data/train/pos_segments.jsonl"}]}
    step_inputs(task, config, 1)
    (task.dir / "system.txt").write_text("別の指示。\n", encoding="utf-8")
    with pytest.raises(UserError, match="pos_segments.jsonl:1: made with another prompt"):
        step_inputs(load_task("mini", mini), config, 1)


def test_digests_do_not_depend_on_precision(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    weights = {"b": torch.randn(3, 2, dtype=torch.bfloat16), "a": torch.randn(4, dtype=torch.float16)}
    save_torch(weights, tmp_path / "low.safetensors")
    save_torch({name: weight.float() for name, weight in weights.items()}, tmp_path / "high.safetensors")
    expected = tensors_digest({name: weight.float().numpy() for name, weight in weights.items()})
    assert {adapter_digest(tmp_path / f"{name}.safetensors") for name in ("low", "high")} == {expected}


def test_leftovers_of_other_inputs_are_removed_and_of_the_same_kept(mini: Path) -> None:
    task, config = load_task("mini", mini), CONFIG | {"dataset_prepared_path": "outputs/mini/prepared/phase2-new"}
    output = mini / "outputs" / "mini" / "phase2"
    for name in ("phase2-old", "phase2-new", "phase1-old"):
        (mini / "outputs" / "mini" / "prepared" / name).mkdir(parents=True)
    prepare_output(task, "phase2", config, "one")
    (output / "kept").touch()
    prepare_output(task, "phase2", config, "one")
    assert (output / "kept").exists()
    prepare_output(task, "phase2", config, "two")
    assert not (output / "kept").exists()
    assert sorted(path.name for path in (mini / "outputs" / "mini" / "prepared").iterdir()) == [
        "phase1-old",
        "phase2-new",
    ]


@pytest.mark.fault(number=57)
def test_rows_that_a_killed_run_has_half_written_are_removed(mini: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, config = load_task("mini", mini), CONFIG | {"dataset_prepared_path": "outputs/mini/prepared/phase2-new"}
    folder = mini / "outputs" / "mini" / "prepared" / "phase2-new"
    whole, torn = folder / "whole", folder / "torn"
    Dataset.from_list([{"input_ids": [1, 2]}]).save_to_disk(whole)
    shutil.copytree(whole, torn)
    (torn / "dataset_info.json").write_text('{"builder')
    shutil.copytree(whole, folder / "early", ignore=shutil.ignore_patterns("*.json"))
    (folder / "datasets_prep.lock").touch()
    prepare_output(task, "phase2", config, "one")
    assert sorted(path.name for path in folder.iterdir()) == ["datasets_prep.lock", "whole"]
    assert capsys.readouterr().err.count("not written to their end") == 2
    assert load_from_disk(whole)[0] == {"input_ids": [1, 2]}


@pytest.mark.fault(number=21)
def test_a_checkpoint_that_is_torn_or_at_the_very_end_is_removed(mini: Path) -> None:
    task, config = load_task("mini", mini), CONFIG | {"dataset_prepared_path": "p", "max_steps": 40}
    output = mini / "outputs" / "mini" / "phase2"
    prepare_output(task, "phase2", config, "one")
    for step, size in ((10, 4), (20, 3), (30, None), (40, 4)):  # from the last step the trainer would take one more
        checkpoint = output / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_bytes(b"1234")
        if size:
            seal(checkpoint)
        (checkpoint / "optimizer.pt").write_bytes(b"1234"[:size])
    assert is_whole(output / "checkpoint-10")
    prepare_output(task, "phase2", config, "one")
    assert [path.name for path in output.glob("checkpoint-*")] == ["checkpoint-10"]


def test_the_telling_line_of_a_log_comes_with_a_remedy(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("OSError: of an earlier run\n", encoding="utf-8")
    start = log.stat().st_size
    trace = "Traceback (most recent call last):\n  File\n[rank0]: OSError: [Errno 28] No space left on device\n"
    log.write_text(log.read_text() + trace + "\r 10%|#   | 1/10\n", encoding="utf-8")
    assert last_error(written_since(log, start)).startswith(
        "OSError: [Errno 28] No space left on device; free some disk space"
    )


def test_an_error_of_an_earlier_run_is_not_told_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("OSError: of an earlier run\n", encoding="utf-8")
    start = log.stat().st_size
    log.write_text(log.read_text() + "Killed\n", encoding="utf-8")
    assert last_error(written_since(log, start)) == "Killed"


@pytest.mark.fault(number=37)
def test_a_second_training_of_a_phase_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipekit.process.PATIENCE", 0)
    refused = pytest.raises(UserError, match="phase1 is running in another process")
    with hold(tmp_path / "lock", "phase1"), refused, hold(tmp_path / "lock", "phase1"):
        pass
    with hold(tmp_path / "lock", "phase1"):
        pass


def make_root(root: Path, **phase: object) -> Path:
    """The shipped recipe and overlay on a random base, few steps and small rows."""
    shutil.copytree(ROOT / "recipes", root / "recipes")
    values = {
        "max_steps": STEPS,
        "save_steps": SAVED_EVERY,
        "eval_steps": STEPS,
        "micro_batch_size": 2,
        "warmup_steps": 2,
    }
    overlay = {name: values | {"learning_rate": 1e-2} | phase for name in ("phase1", "phase2")}
    (root / "recipes" / "hawks" / "cpu.yml").write_text(yaml.safe_dump(overlay))
    tiny_base(root / "data" / "samples" / "base")
    (root / "data" / "train").mkdir(parents=True)
    rng = random.Random(0)
    for prompt in ("system", "instruction"):
        (root / "recipes" / "hawks" / "prompts" / f"{prompt}.txt").write_text("抽出。", encoding="utf-8")
    task = load_task("hawks", root)
    for name in ("person_dummy", "hawks_phase2", "hawks_val"):
        texts = ["".join(rng.choices(TEXT[:60], k=rng.randint(10, 30))) for _ in range(24)]
        rows = [segments.build(task, text, {"persons": [text[:5]]}) for text in texts]
        task.segments_path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def weights(root: Path, phase: str) -> bytes:
    return (root / "outputs" / "hawks" / phase / "adapter_model.safetensors").read_bytes()


@pytest.mark.fault(number=5)
@pytest.mark.trap(number=2)
@pytest.mark.trap(number=4)
@pytest.mark.slow
def test_two_phases_chain_and_a_disturbed_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    calm = make_root(tmp_path / "calm")
    run(calm, "hawks", "phase1")
    run(calm, "hawks", "phase2")
    facts = {
        phase: read_record(calm / "outputs" / "hawks" / "state" / f"{phase}.json") for phase in ("phase1", "phase2")
    }
    assert facts["phase2"]["start_digest"] == facts["phase1"]["end_digest"] != facts["phase1"]["start_digest"]
    assert all(fact["reached_steps"] == STEPS and fact["evaluations"] == 2 for fact in facts.values())
    assert "up to date" in run(calm, "hawks", "phase2")

    stormy = make_root(tmp_path / "stormy")
    killed = start(stormy, "hawks", "phase1")
    when_step(stormy, "hawks", "phase1", SAVED_EVERY + 1)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait()
    assert not psutil.wait_procs(children, timeout=15)[1], "a killed train.py left its training running"

    saved = (stormy / "outputs" / "hawks" / "phase1").glob("checkpoint-*/optimizer.pt")  # one may be half written
    last = max((path.parent for path in saved), key=lambda path: int(path.name[11:]))
    (last / "optimizer.pt").write_bytes((last / "optimizer.pt").read_bytes()[:100])
    (last.parent / "progress.jsonl").unlink()
    interrupted = start(stormy, "hawks", "phase1")
    when_step(stormy, "hawks", "phase1", SAVED_EVERY + 5)
    for child in psutil.Process(interrupted.pid).children():
        child.send_signal(signal.SIGINT)  # as Ctrl-C: Axolotl saves what it has and exits with 0
    output = interrupted.communicate(timeout=600)[0]
    assert interrupted.returncode == 2, output
    assert "not whole, or changed since it was saved; removing it" in output
    assert "stopped before its end, though its exit code is 0" in output

    assert "phase1: 40 steps" in run(stormy, "hawks", "phase1")
    resumed = read_record(stormy / "outputs" / "hawks" / "state" / "phase1.json")
    assert resumed["start_digest"] == facts["phase1"]["start_digest"], (
        "an adapter's first values depend on the seed alone"
    )
    assert weights(stormy, "phase1") == weights(calm, "phase1")


@pytest.mark.slow
def test_a_learning_rate_of_0_is_not_believed(tmp_path: Path) -> None:
    root = make_root(tmp_path, learning_rate=0.0, max_steps=4, save_steps=4, eval_steps=4)
    assert "the adapter did not change" in run(root, "hawks", "phase1", code=2)
    assert not (root / "outputs" / "hawks" / "state" / "phase1.json").exists()
