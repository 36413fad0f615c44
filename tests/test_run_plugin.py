import os
import subprocess
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MistralConfig, MistralForCausalLM

from canaries import CANARIES
from recipekit import run_plugin
from recipekit.run_plugin import RunPlugin, only_what_is_trained

LABELS = torch.tensor([[-100, -100, 7, 8, 2, -100], [-100, -100, -100, -100, 6, 2], [-100, -100, -100, 9, 2, -100]])
LENGTHS = [5, 6, 5]


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return MistralForCausalLM(MistralConfig(vocab_size=20, num_key_value_heads=2, **sizes)).train()


def batch(left=False):
    ids = torch.arange(18).reshape(3, 6) % 13 + 3
    mask = torch.tensor([[1] * length + [0] * (6 - length) for length in LENGTHS])
    return {"input_ids": ids, "attention_mask": mask.flip(1) if left else mask, "labels": LABELS}


def loss_and_gradients(model, **more):
    model.zero_grad()
    loss = model(**batch(), **more).loss
    loss.backward()
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("more", [{}, {"num_items_in_batch": torch.tensor(7)}])
def test_with_logits_of_what_is_trained_alone_loss_and_gradients_are_the_same(model, more):
    loss, gradients = loss_and_gradients(model, **more)
    seen = []
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    model.register_forward_pre_hook(only_what_is_trained, with_kwargs=True)
    leaner, leaner_gradients = loss_and_gradients(model, **more)
    assert seen == [4]  # places 1 to 4 of six are followed by a token that some row trains
    assert leaner == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(leaner_gradients, gradients, atol=1e-6)


def test_evaluation_and_masks_that_are_not_right_padding_stay_as_they_are(model):
    assert only_what_is_trained(model.eval(), (), batch())[1].keys() == batch().keys()
    kept = only_what_is_trained(model.train(), (), batch(left=True))[1]["attention_mask"]
    assert torch.equal(kept, batch(left=True)["attention_mask"])
    assert only_what_is_trained(model, (), batch())[1]["attention_mask"] is None


def test_the_plugin_puts_the_hook_where_a_peft_model_calls_it(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).train()
    seen = []
    model.get_base_model().lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    RunPlugin().post_model_load(SimpleNamespace(sample_packing=True), model)
    model(**batch())
    RunPlugin().post_model_load(SimpleNamespace(sample_packing=None), model)
    model(**batch())
    assert seen == [6, 4]


@pytest.mark.fault(number=54)
def test_a_training_whose_train_py_was_killed_frees_its_log_of_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", secret := CANARIES[0])
    gone = subprocess.Popen(["true"])
    gone.wait()
    log = tmp_path / "phase1.log"
    if (child := os.fork()) == 0:
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        os.write(1, f"token {secret}\n".encode())
        run_plugin._end_with(gone.pid)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert log.read_text() == f"token {'*' * len(secret)}\n"


@pytest.mark.trap(number=4)
def test_the_adapters_first_values_follow_from_the_seed():
    drawn = []
    for seed in (1, 1, 2):
        torch.rand(3)  # whatever loading has drawn before
        RunPlugin().pre_model_load(SimpleNamespace(seed=seed))
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("capabilities", "deepspeed", "bf16"),
    [
        ({"avx512_bf16": True}, None, True),
        ({"amx_bf16": True}, None, True),
        ({"avx512_bf16": False, "avx2": True}, None, False),
        ({"avx512_bf16": True}, "zero2.json", False),
    ],
)
def test_bfloat16_is_on_where_the_cpu_has_it(monkeypatch, capabilities, deepspeed, bf16):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert RunPlugin().get_training_args(SimpleNamespace(deepspeed=deepspeed)).get("bf16", False) is bf16
