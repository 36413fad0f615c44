"""The machine: what is installed, how much room there is, and whether the base model can be had."""

from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from recipekit import hub, preflight
from recipekit.task import load_task


@pytest.fixture
def task(mini):
    base = mini / "data" / "samples" / "base"
    base.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (base / name).write_text("{}")
    save_file({"weight": np.zeros(1, np.float32)}, base / "model.safetensors")
    return load_task("mini", mini)


def environment(task, profile="cpu", **config):
    return {c.name: c for c in preflight.environment(task, profile, [config])}


def test_too_little_disk_is_a_failure_and_the_need_depends_on_the_profile(task, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(0, 0, 10e9))
    assert environment(task)["disk"].status == "ok"
    assert "10.0 GB free, expected " in environment(task, "gpu")["disk"].problems[0]


def test_flash_attention_is_asked_for_only_where_a_yaml_wants_it(task, monkeypatch):
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert "flash-attn" not in environment(task, attn_implementation="sdpa")
    assert (
        "uv sync --extra flash" in environment(task, attn_implementation="flash_attention_2")["flash-attn"].problems[0]
    )


def test_tmux_only_warns(task, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    assert environment(task)["tmux"].status == "warn"
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("TMUX", raising=False)
    assert [environment(task, p)["tmux"].status for p in ("cpu", "gpu")] == ["ok", "warn"]
    monkeypatch.setenv("TMUX", "x")
    assert environment(task, "gpu")["tmux"].status == "ok"


def test_the_token_is_looked_for_and_never_shown(task, monkeypatch):
    monkeypatch.setattr(hub, "find_token", lambda root: None)
    assert environment(task)["HF token"].status == "warn"
    monkeypatch.setattr(hub, "find_token", lambda root: "hf_secret")
    checks = environment(task)
    assert checks["HF token"].status == "ok" and "hf_secret" not in str(checks)


@pytest.mark.parametrize(("mode", "status"), [(0o600, "ok"), (0o640, "warn"), (0o604, "warn"), (0o644, "warn")])
def test_an_env_file_that_others_may_read_is_warned_of(task, mode, status):
    assert environment(task)[".env"].status == "ok"
    (task.root / ".env").touch()
    (task.root / ".env").chmod(mode)
    check = environment(task)[".env"]
    assert check.status == status and ("chmod 600 .env" in check.detail) == (status == "warn")


@pytest.mark.parametrize("name", ["mini/task.yml", "mini/phase1.yml", "mini/prompts/system.txt", "cpu.yml"])
@pytest.mark.parametrize("secret", ["hf_" + "aB3" * 12, "canary-of-any-form", "http://someone:canary@host/"])
def test_a_secret_in_a_recipe_is_refused_by_name_and_not_shown(task, monkeypatch, name, secret):
    monkeypatch.setenv("HF_AUTH_TOKEN", "canary-of-any-form")
    assert environment(task)["secrets"].problems == []
    path = task.root / "recipes" / name
    path.parent.mkdir(exist_ok=True)
    lines = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{lines}# {secret}\n", encoding="utf-8")
    (problem,) = environment(task)["secrets"].problems
    assert f"{name}:{lines.count(chr(10)) + 1}: holds a secret (" in problem and "into .env" in problem
    assert "canary" not in problem and "aB3" not in problem


def test_a_base_without_safetensors_is_refused_by_name(task, monkeypatch):
    base = task.root / "data/samples/base"
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    (problem,) = preflight.base_model(task, "data/samples/base").problems
    assert "no *.safetensors in it, only pytorch_model.bin, which can run code when read" in problem

    def model_on_hub(*names):
        files = [SimpleNamespace(rfilename=name) for name in names]
        info = SimpleNamespace(sha="0123456789", siblings=files)
        monkeypatch.setattr(hub, "connect", lambda _: SimpleNamespace(model_info=lambda *_, **__: info))
        return preflight.base_model(task, "some/model")

    assert "no *.safetensors on the Hub" in model_on_hub("config.json", "pytorch_model.bin").problems[0]
    assert model_on_hub("config.json", "pytorch_model.bin", "model.safetensors").status == "ok"


def test_other_versions_of_python_and_axolotl_are_failures(task, monkeypatch):
    monkeypatch.setattr(preflight, "version", lambda name: "0.20.1")
    monkeypatch.setattr(preflight.sys, "version_info", (3, 13, 0, "final", 0))
    checks = environment(task)
    assert "expected 0.19" in checks["packages"].problems[0]
    assert "expected 3.11 or 3.12" in checks["Python"].problems[0]


def refuse(token):
    import httpx

    raise httpx.ConnectError("no route")


def test_a_base_on_the_hub_that_cannot_be_had_is_a_failure_and_a_cached_one_a_warning(task, monkeypatch):
    monkeypatch.setattr(hub, "connect", refuse)
    monkeypatch.setattr(preflight, "_cached", lambda *_: False)
    check = preflight.base_model(task, "some/model")
    assert "no connection to the Hub" in check.problems[0] and "hf download some/model" in check.problems[0]
    monkeypatch.setattr(preflight, "_cached", lambda *_: True)
    assert preflight.base_model(task, "some/model").status == "warn"


def test_a_local_base_is_there_whole_or_made_by_an_earlier_step(task):
    assert preflight.base_model(task, "data/samples/base").status == "ok"
    assert preflight.base_model(task, "outputs/mini/merged").status == "ok"
    assert "no such folder" in preflight.base_model(task, "data/samples/nobase").problems[0]
    (task.root / "data/samples/base/model.safetensors").unlink()
    assert "*.safetensors" in preflight.base_model(task, "data/samples/base").problems[0]
