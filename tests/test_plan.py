import json
import os
import subprocess

import pytest

import plan
from recipekit import ROOT
from recipekit.errors import UserError
from recipekit.task import load_task


@pytest.fixture
def nvidia(tmp_path, monkeypatch):
    def put(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return put


def test_profile_follows_what_nvidia_smi_lists(nvidia, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert plan.choose_profile("auto")[0] == "cpu"
    nvidia("echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1)'")
    assert plan.choose_profile("auto") == ("gpu", "nvidia-smi lists 1 GPU(s): GPU 0: NVIDIA H100 80GB HBM3")
    assert plan.choose_profile("cpu")[0] == "cpu"
    nvidia("echo 'NVIDIA-SMI has failed' >&2; exit 9")
    assert plan.choose_profile("auto") == ("cpu", "nvidia-smi is there but lists no GPU")


def test_unknown_profile():
    with pytest.raises(UserError, match="found 'tpu', expected auto, cpu or gpu"):
        plan.choose_profile("tpu")


def test_a_step_shows_its_last_time_on_this_profile_else_the_expected_one(mini):
    task = load_task("mini", mini)
    assert plan.times(task, "cpu", "merge") == "not known yet"
    task.spec["expected_seconds"] = {"cpu": {"merge": 150}}
    assert plan.times(task, "cpu", "merge") == "about 2 min"
    record = task.outputs / "state" / "merge.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"seconds": 12.3, "profile": "cpu"}))
    assert plan.times(task, "cpu", "merge") == "12 s (last time)"
    record.write_text(json.dumps({"seconds": 12.3, "profile": "gpu"}))
    assert plan.times(task, "cpu", "merge") == "about 2 min"


def test_data_are_the_sample_the_hub_or_a_persons_own(mini):
    task = load_task("mini", mini)
    assert plan.choose_data(task, "cpu", "auto") == "sample" and plan.choose_data(task, "gpu", "auto") == "sample"
    task.spec["data"]["sources"] = {}
    assert plan.choose_data(task, "gpu", "auto") == "hub" and plan.choose_data(task, "cpu", "auto") == "sample"
    with pytest.raises(UserError, match="data/raw/mini: no such folder"):
        plan.choose_data(task, "cpu", "raw")
    (mini / "data/raw").mkdir()
    (mini / "data/samples/mini").rename(mini / "data/raw/mini")
    assert plan.choose_data(task, "cpu", "auto") == "raw" and plan.choose_data(task, "gpu", "raw") == "raw"
    with pytest.raises(UserError, match="'net': expected DATA=auto, hub, raw or sample, or SOURCE=FOLDER"):
        plan.choose_data(task, "cpu", "net")
    assert plan.choose_data(task, "gpu", "data/raw") == "data/raw"


STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
test "$AXOLOTL_DO_NOT_TRACK" = 1 || exit 9
case "$*" in *plan.py*) echo "cpu regression no $DATA_PLAN" ;; *phases*) echo one two ;; esac
"""


@pytest.mark.trap(number=17)
@pytest.mark.parametrize(
    ("data", "source"), [("sample", "data/samples/bigfive"), ("raw", "data/raw/bigfive"), ("my data", "my data")]
)
def test_train_all_runs_a_variant_on_its_tasks_data(tmp_path, data, source):
    stub = tmp_path / "python"
    stub.write_text(STUB)
    stub.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "DATA_PLAN": data}
    env["LOG_DIR"] = str(tmp_path / "logs")
    subprocess.run(["bash", "train_all.sh", "bigfive:alone"], cwd=ROOT, env=env, check=True)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert f"tools/regenerate_segments.py bigfive:alone --source {source}" in calls
    assert [call.split()[0].removeprefix("tools/").removesuffix(".py") for call in calls if "tools/" in call] == [
        *("plan", "regenerate_segments", "leaks", "check", "train", "train", "merge", "baselines", "predict"),
        *("evaluate", "model_card", "upload", "summary"),
    ]
    assert "tools/train.py bigfive:alone two --profile cpu" in calls
