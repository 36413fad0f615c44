import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import merge
from recipekit import merging
from recipekit.errors import UserError
from recipekit.resolve import base_model_key, resolve
from recipekit.runs import Step, read_record, relative
from recipekit.task import Task, load_task
from tiny import tiny_adapter, tiny_base

WEIGHTS = "adapter_model.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def task(mini):
    """The mini task, of two phases that are both trained."""
    recipes = mini / "recipes"
    (recipes / "cpu.yml").write_text("base_model: data/samples/base\n", encoding="utf-8")
    base = tiny_base(mini / "data" / "samples" / "base")
    rows = [{"path": "data/train/rows.jsonl", "type": "input_output"}]
    for seed, phase in enumerate(("phase1", "phase2")):
        output = f"outputs/mini/{phase}"
        config = {
            "base_model": "some/base",
            "adapter": "lora",
            "output_dir": output,
            "datasets": rows,
            "test_datasets": rows,
        }
        if seed:
            config["lora_model_dir"] = "outputs/mini/phase1"
        (recipes / "mini" / f"{phase}.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        tiny_adapter(mini / output, base, seed)
        set_base(mini / output, "data/samples/base")
    data = mini / "data" / "train" / "rows.jsonl"
    data.parent.mkdir()
    data.write_text('{"segments": [{"label": false, "text": "<s>山田太郎"}, {"label": true, "text": "逮捕</s>"}]}\n')
    task = load_task("mini", mini)
    record(task)
    return task


def set_base(adapter, name):
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
    path.write_text(json.dumps(config), encoding="utf-8")


def record(task: Task, phase="phase2"):
    inputs = {"base_model": base_model_key(task, resolve(task, phase, "cpu"))}
    Step(task.outputs, phase, inputs, [task.outputs / phase / WEIGHTS]).record(prompt=task.prompt_digest())


def refused(task, *expected):
    with pytest.raises(UserError) as error:
        merge.merge_task(task, "cpu")
    for part in expected:
        assert part in error.value.problems[0]
    assert not (task.outputs / "merged").exists() and not list(task.outputs.glob(".merged*"))
    assert not (task.outputs / "state" / "merge.json").exists()


@pytest.mark.trap(number=1)
def test_merged_model_is_base_plus_the_last_adapter(task):
    merge.merge_task(task, "cpu")
    base, merged = load_file(task.root / "data/samples/base/model.safetensors"), task.outputs / "merged"
    weights = load_file(merged / "model.safetensors")
    adapter = load_file(task.outputs / "phase2" / WEIGHTS)
    name = "model.layers.1.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
    expected = base[f"{name}.weight"] + 2 * b @ a  # alpha 8, rank 4
    torch.testing.assert_close(weights[f"{name}.weight"], expected)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert not torch.equal(weights[f"{name}.weight"], base[f"{name}.weight"])
    facts = read_record(task.outputs / "state" / "merge.json")
    assert facts["merge_error"] < 1e-3 and facts["adapter_effect"] > 0.01
    assert read_record(merged / "recipe.json")["prompt"] == task.prompt_digest()


def test_profile_gpu_stores_the_dtype_of_the_base(task):
    base = task.root / "data/samples/base"
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    for phase in task.phases:
        path = task.dir / f"{phase}.yml"
        path.write_text(path.read_text().replace("some/base", "data/samples/base"))
    record(task)
    merge.merge_task(task, "gpu")
    weights = load_file(task.outputs / "merged" / "model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in weights.values())


@pytest.mark.trap(number=11)
@pytest.mark.trap(number=14)
def test_merged_model_has_the_trained_tokenizer_and_decodes_greedily(task):
    GenerationConfig(do_sample=True).save_pretrained(task.root / "data/samples/base")  # so do models of the Hub
    record(task)
    adapter, merged = task.outputs / "phase2", task.outputs / "merged"
    config = adapter / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"note": "trained",', 1))
    merge.merge_task(task, "cpu")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (merged / name).read_bytes() == (adapter / name).read_bytes()
    assert AutoTokenizer.from_pretrained(merged).eos_token_id == 2
    assert GenerationConfig.from_pretrained(merged).do_sample is False


def test_second_run_does_nothing_and_a_new_adapter_is_merged(task, monkeypatch):
    merge.merge_task(task, "cpu")
    before = load_file(task.outputs / "merged" / "model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(merge, "write_merged", lambda *_: pytest.fail("merged again"))
        merge.merge_task(task, "cpu")
    tiny_adapter(task.outputs / "phase2", task.root / "data/samples/base", 7)
    set_base(task.outputs / "phase2", "data/samples/base")
    record(task)
    merge.merge_task(task, "cpu")
    after = load_file(task.outputs / "merged" / "model.safetensors")
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_phase_without_a_record_is_refused(task):
    (task.outputs / "state" / "phase2.json").unlink()
    refused(task, "state/phase2.json", "phase2 is not finished", "tools/train.py mini phase2")


def test_a_base_that_was_changed_after_training_is_refused(task):
    config = task.root / "data/samples/base" / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    refused(
        task, "data/samples/base: not the base that phase2 was trained on", "restore it", "tools/train.py mini phase2"
    )
    assert not (task.outputs / "merged").exists()


@pytest.mark.trap(number=1)
def test_adapter_of_another_phase_is_refused(task):
    shutil.copy(task.outputs / "phase1" / WEIGHTS, task.outputs / "phase2" / WEIGHTS)
    refused(task, relative(task.outputs / "phase2" / WEIGHTS), "not the weights that phase2 finished with")


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS])
def test_missing_files_are_refused(task, name):
    (task.outputs / "phase2" / name).unlink()
    refused(task, name, "no such file", "tools/train.py mini phase2")


@pytest.mark.fault(number=24)
@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS])
def test_torn_files_are_refused(task, name):
    path = task.outputs / "phase2" / name
    path.write_bytes(path.read_bytes()[:-20])
    record(task)
    refused(task, name, "torn")


def test_untrained_adapter_is_refused(task):
    tiny_adapter(task.outputs / "phase2", task.root / "data/samples/base", trained=False)
    set_base(task.outputs / "phase2", "data/samples/base")
    record(task)
    refused(task, "every lora_B is zero")


def test_adapter_with_nan_is_refused(task):
    path = task.outputs / "phase2" / WEIGHTS
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, path)
    record(task)
    refused(task, "not finite")


def test_adapter_of_another_base_is_refused(task):
    set_base(task.outputs / "phase2", "other/base")
    refused(task, "base_model_name_or_path is other/base", "data/samples/base")


@pytest.mark.trap(number=11)
def test_changed_tokenizer_is_refused(task):
    config = task.outputs / "phase2" / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"</s>"', '"<unk>"'))
    refused(task, "eos_token is '<unk>', in the base '</s>'")


def test_proof_fires_when_something_else_is_merged(task, monkeypatch):
    honest, other = merging.merge, merging.updates(task.root / "data/samples/base", task.outputs / "phase1")
    monkeypatch.setattr(merging, "merge", lambda source, _, *rest: honest(source, other, *rest))
    refused(task, "off from base + adapter's")
    monkeypatch.setattr(merging, "merge", lambda source, _, *rest: honest(source, {}, *rest))
    refused(task, "off from base + adapter's")


def test_what_is_more_than_lora_is_merged_by_peft(task, monkeypatch):
    merge.merge_task(task, "cpu")
    by_files = load_file(task.outputs / "merged" / "model.safetensors")
    (task.outputs / "state" / "merge.json").unlink()
    monkeypatch.setattr(merging, "updates", lambda *_: None)
    merge.merge_task(task, "cpu")
    in_memory = load_file(task.outputs / "merged" / "model.safetensors")
    assert by_files.keys() == in_memory.keys()
    assert all(torch.allclose(by_files[name], in_memory[name], atol=1e-6) for name in by_files)


@pytest.mark.parametrize(("dtype", "share", "fires"), [("float32", 1e-4, False), ("float32", 2e-3, True),
                                                      ("bfloat16", 0.1, False), ("bfloat16", 0.6, True)])  # fmt: skip
def test_proof_measures_the_error_against_the_effect(dtype, share, fires):
    torch.manual_seed(0)
    base, effect = torch.randn(4, 9), torch.randn(4, 9)
    merged = base + effect * (1 + share)
    if fires:
        with pytest.raises(UserError, match="off from base"):
            merge.prove(base, base + effect, merged, dtype)
    else:
        assert merge.prove(base, base + effect, merged, dtype)["merge_error"] == pytest.approx(share, rel=0.1)
    with pytest.raises(UserError, match="changes no logit"):
        merge.prove(base, base, base, dtype)


@pytest.mark.fault(number=8)
def test_stopped_merge_leaves_the_old_model_whole(task, monkeypatch):
    merge.merge_task(task, "cpu")
    old = {path.name: path.read_bytes() for path in (task.outputs / "merged").iterdir()}
    tiny_adapter(task.outputs / "phase2", task.root / "data/samples/base", 7)
    set_base(task.outputs / "phase2", "data/samples/base")
    record(task)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(merge, "prove", stop)
        with pytest.raises(KeyboardInterrupt):
            merge.merge_task(task, "cpu")
    assert {path.name: path.read_bytes() for path in (task.outputs / "merged").iterdir()} == old
    (task.outputs / ".merged.new").mkdir()  # as a kill -9 leaves it
    (task.outputs / ".merged.new" / "stale.bin").touch()
    merge.merge_task(task, "cpu")
    assert not (task.outputs / "merged" / "stale.bin").exists() and not list(task.outputs.glob(".merged*"))
    assert (task.outputs / "merged" / "model.safetensors").read_bytes() != old["model.safetensors"]
