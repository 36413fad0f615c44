from types import SimpleNamespace

import pytest
import torch

from recipekit.run_plugin import RunPlugin


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
