import json
import os
import shutil
import subprocess
import sys

import pytest

import plan
from hub_client import copy_repository, run
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


ARGUMENTS = """#!/bin/sh
test "$1" = -c && exec "$REAL" "$@"
{ printf '<%s>' "$@"; echo; } >> "$CALLS"
case "$1" in *plan.py) echo "cpu extraction $CAPTIONS_PLAN $DATA_PLAN" ;; esac
"""


def run_in_folder(folder, task, **settings):
    """Run train_all.sh in a folder of its own, with a python that only notes its arguments, but for python -c."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "train_all.sh", folder)
    stub = folder / "bin" / "python"
    stub.write_text(ARGUMENTS, encoding="utf-8")
    stub.chmod(0o755)
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(folder / "calls"), "REAL": sys.executable}
    script = folder / "train_all.sh"
    done = subprocess.run(["bash", script, task], cwd="/", env=env | settings, capture_output=True, text=True)
    return done, (folder / "calls").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("captions", ["yes", "no"])
def test_train_all_runs_in_any_folder_on_any_folder(tmp_path, captions):
    folder, source = tmp_path / "日本語 と space", "元の データ/記事 $(touch harm) *"
    done, calls = run_in_folder(
        folder, "bigfive:alone", SOURCE=source, DATA_PLAN=source, CAPTIONS_PLAN=captions, LOG_DIR="ログ の/1"
    )
    assert done.returncode == 0, done.stderr
    assert f"<tools/plan.py><bigfive:alone><--profile><auto><--data><{source}>" in calls
    assert (f"<tools/caption.py><bigfive:alone><--source><{source}>" in calls) == (captions == "yes")
    raw = "data/captioned/bigfive" if captions == "yes" else source
    for tool in ("regenerate_segments", "leaks"):
        assert f"<tools/{tool}.py><bigfive:alone><--source><{raw}>" in calls
    assert [call.split("><")[2] for call in calls if "train.py" in call] == load_task("bigfive:alone").phases
    assert {path.name for path in folder.iterdir()} == {"bin", "train_all.sh", "calls", "ログ の"}


@pytest.mark.parametrize(
    "task", ["x'); open('harm', 'w'); ('", "$(touch harm)", "`touch harm`", "a; b *", 'x"); open("harm", "w"); ("']
)
def test_a_tasks_name_is_never_code(tmp_path, task):
    done, calls = run_in_folder(tmp_path / "place", task, DATA_PLAN="sample", CAPTIONS_PLAN="no")
    assert done.returncode != 0 and f"no task '{task.partition(':')[0]}'" in done.stderr
    assert len(calls) == 4 and all(call.split(".py>")[1].startswith(f"<{task}>") for call in calls)
    assert not list(tmp_path.rglob("harm"))


def test_the_tools_work_in_such_a_folder(tmp_path):
    root = copy_repository(tmp_path / "日本語 と space")
    shutil.copytree(ROOT / "data/samples/hawks", root / "元の データ")
    for tool, *more in (
        ["plan", "--profile", "cpu", "--data", "元の データ"],
        ["regenerate_segments", "--source", "元の データ"],
    ):
        done = run(root, tool, "http://127.0.0.1:9", "hawks", *more, LOG_DIR="ログ の/1")
        assert done.returncode == 0, done.stderr
    assert (root / "data/train/hawks_train_segments.jsonl").stat().st_size and (root / "ログ の/1").is_dir()
