"""Merging file by file: what PEFT merges in memory, in the memory of a file."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, MistralForCausalLM

from recipekit import merging
from recipekit.proving import Proof
from tiny import tiny_adapter, tiny_base, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(tmp_path):
    """A base in several files, stored in bfloat16."""
    folder = tiny_base(tmp_path / "whole")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base", max_shard_size="40KB")
    assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 2
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "base")
    return tmp_path / "base"


def adapted(base, folder, **config):
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | config
    model = get_peft_model(MistralForCausalLM.from_pretrained(base), LoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(str(folder))
    return folder


def weights(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_those_that_peft_adds_up(base, tmp_path, dtype, config):
    adapter = adapted(base, tmp_path / "adapter", **config)
    (tmp_path / "merged").mkdir()
    merging.merge(base, merging.updates(base, adapter), tmp_path / "merged", dtype)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().state_dict()
    found = weights(tmp_path / "merged")
    assert found.keys() == weights(base).keys()
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        assert torch.allclose(tensor.float(), expected[name].to(dtype).float(), rtol=1e-2 if dtype != torch.float32
                              else 1e-5, atol=1e-6), name  # fmt: skip
    assert any(not torch.equal(tensor.float(), weights(base)[name].float()) for name, tensor in found.items())


def test_what_was_written_loads_and_its_index_is_right(base, tmp_path):
    target = tmp_path / "merged"
    target.mkdir()
    merging.merge(base, merging.updates(base, adapted(base, tmp_path / "adapter")), target, torch.float32)
    assert {path.name for path in target.iterdir()} == {merging.INDEX, *(p.name for p in base.glob("*.safetensors"))}
    index = json.loads((target / merging.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in weights(target).values())
    shutil.copy(base / "config.json", target)
    AutoModelForCausalLM.from_pretrained(target)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {"q_proj": 2}},
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"lora_bias": True, "target_modules": ["q_proj"]},
        {"init_lora_weights": "pissa"},
    ],
)
def test_more_than_lora_is_left_to_peft(base, tmp_path, config):
    assert merging.updates(base, adapted(base, tmp_path / "adapter", **config)) is None


def test_a_weight_that_no_file_names_is_left_to_peft(tmp_path):
    """As lm_head's, where it is the input embedding."""
    base = tiny_base(tmp_path / "base")
    tiny_model(base, tie_word_embeddings=True)
    assert "lm_head.weight" not in merging.files(base)
    assert merging.updates(base, adapted(base, tmp_path / "one", target_modules=["q_proj"])) is not None
    assert merging.updates(base, adapted(base, tmp_path / "two", target_modules=["q_proj", "lm_head"])) is None
    adapter = tiny_adapter(tmp_path / "three", base)
    halves = load_file(adapter / "adapter_model.safetensors")
    halves.pop(next(name for name in halves if "lora_B" in name))
    save_file(halves, adapter / "adapter_model.safetensors")
    assert merging.updates(base, adapter) is None
    (base / merging.INDEX).write_text('{"weight_map": {"stale": "gone.safetensors"}}')
    assert "stale" not in merging.files(base), "transformers looks for one file first"
    (base / merging.INDEX).unlink()
    (base / "model.safetensors").unlink()
    assert merging.updates(base, tmp_path / "one") is None


def test_logits_are_float32s_with_weights_as_they_are_stored(base, tmp_path):
    proof = Proof([{"input_ids": [1, 270, 280, 290, 2]}], None)
    stored, whole = proof.load(base, float32=False), proof.load(base)
    assert stored.dtype == torch.bfloat16 and whole.dtype == torch.float32
    assert torch.equal(proof.logits(stored), proof.logits(whole))
    adapter = str(adapted(base, tmp_path / "adapter"))
    tuned = [proof.logits(PeftModel.from_pretrained(model, adapter)) for model in (stored, whole)]
    assert torch.equal(*tuned) and not torch.allclose(tuned[0], proof.logits(proof.load(base)))
