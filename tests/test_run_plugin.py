import os
import subprocess
from types import SimpleNamespace

import psutil
import pytest
import torch

from canaries import CANARIES
from recipekit import run_plugin
from recipekit.run_plugin import RunPlugin


@pytest.mark.fault(number=54)
@pytest.mark.fault(number=57)
def test_a_training_whose_train_py_was_killed_frees_its_log_of_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", secret := CANARIES[0])
    gone = subprocess.Popen(["true"])
    gone.wait()
    log = tmp_path / "phase1.log"
    if (child := os.fork()) == 0:
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        os.write(1, f"token {secret}\n".encode())
        helper = subprocess.Popen(["sleep", "60"])
        (tmp_path / "helper").write_text(str(helper.pid))
        run_plugin._end_with(gone.pid)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert log.read_text() == f"token {'*' * len(secret)}\n"
    helper = int((tmp_path / "helper").read_text())
    assert not psutil.pid_exists(helper) or psutil.Process(helper).status() == psutil.STATUS_ZOMBIE


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
