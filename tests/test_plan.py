import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import plan
import stepping
from processes import wait_for
from recipekit import ROOT, runs
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
    (mini / "data/raw/mini").mkdir(parents=True)
    assert plan.choose_data(task, "gpu", "auto") == "hub" and plan.choose_data(task, "cpu", "auto") == "sample"
    del task.spec["data"]["sources"]
    assert plan.choose_data(task, "gpu", "auto") == "raw" and plan.choose_data(task, "cpu", "auto") == "sample"
    (mini / "data/raw/mini").rmdir()
    (mini / "data/samples/mini").rename(mini / "data/raw/mini")
    assert plan.choose_data(task, "cpu", "auto") == "raw" and plan.choose_data(task, "gpu", "raw") == "raw"
    with pytest.raises(UserError, match="'net': expected DATA=auto, hub, raw or sample, or SOURCE=FOLDER"):
        plan.choose_data(task, "cpu", "net")
    assert plan.choose_data(task, "gpu", "data/raw") == "data/raw"


STUB = f"""#!/bin/sh
case "$*" in
  *plan.py* | -c*) exec {sys.executable} "$@" ;;
  *"$REAL"*) [ -z "$REAL" ] || exec {sys.executable} "$@" ;;
esac
[ "$AXOLOTL_DO_NOT_TRACK" = 1 ] || exit 9
echo "$@" >> "$CALLS"
case "$*" in *"$BLOCK"*) [ -z "$BLOCK" ] || exec {sys.executable} step.py --then "$BUSY" ;; esac
"""
BUSY = "write_text(root / 'busy', 'yes'); time.sleep(60)"
STEPS = ["regenerate", "leaks", "check", "phase1", "phase2", "merge", "predict", "evaluate", "card", "upload"]


class Clone:
    """A checkout whose steps are run by a stand-in for Python, which notes them; the plan is the real one."""

    def __init__(self, root):
        self.root, self.calls = root, root / "calls"
        for name in ("tools", "recipes"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "train_all.sh", root)
        for name in ("bin", "my 記事", *(f"data/{kind}/{task}" for kind in ("samples", "raw") for task in TASKS)):
            (root / name).mkdir(parents=True)
        (root / "bin" / "python").write_text(STUB, encoding="utf-8")
        (root / "bin" / "python").chmod(0o755)
        stepping.make(root)

    def start(self, *arguments, **env):
        env = {"CALLS": str(self.calls), "PROFILE": "cpu", "REAL": "", "BLOCK": "", "BUSY": BUSY} | env
        env["PATH"] = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", "train_all.sh", *arguments], cwd=self.root, env=stepping.environment(**env),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments, **env):
        self.calls.unlink(missing_ok=True)
        run = self.start(*arguments, **env)
        run.stdout_text, run.stderr_text = run.communicate(timeout=90)
        return run

    def steps(self):
        """Name the steps that were run."""
        words = [call.split() for call in self.calls.read_text(encoding="utf-8").splitlines()]
        names = {"regenerate_segments": "regenerate", "model_card": "card"}
        called = [words[2] if words[0] == "tools/train.py" else Path(words[0]).stem for words in words]
        return [names.get(name, name) for name in called]


TASKS = ("hawks", "bigfive", "ogiri")


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


@pytest.mark.trap(number=17)
@pytest.mark.parametrize(
    ("env", "source"),
    [
        ({}, "data/samples/bigfive"),
        ({"DATA": "raw"}, "data/raw/bigfive"),
        ({"SOURCE": "my 記事", "DATA": "raw"}, "my 記事"),
    ],
)
def test_train_all_runs_a_variant_on_its_tasks_data(clone, env, source):
    run = clone.run("bigfive:alone", **env)
    assert run.returncode == 0, run.stderr_text
    calls = clone.calls.read_text(encoding="utf-8").splitlines()
    assert f"tools/regenerate_segments.py bigfive:alone --source {source}" in calls
    assert f"tools/leaks.py bigfive:alone --source {source}" in calls
    phases = load_task("bigfive:alone").phases
    assert clone.steps() == [
        *("regenerate", "leaks", "check", *phases, "merge", "baselines", "predict", "evaluate", "card", "upload"),
        "summary",
    ]
    assert f"tools/train.py bigfive:alone {phases[-1]} --profile cpu" in calls


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ([], [*STEPS, "summary"]),
        (["--from", "predict"], ["predict", "evaluate", "card", "upload", "summary"]),
        (["hawks", "--from", "upload"], ["upload"]),
        (["--only", "phase2", "hawks"], ["phase2"]),
        (["--only", "merge", "--only", "leaks"], ["leaks", "merge"]),
    ],
)
def test_only_the_steps_asked_for_are_run(clone, arguments, steps):
    run = clone.run(*arguments)
    assert run.returncode == 0, run.stderr_text
    assert clone.steps() == steps
    shown = [line.split()[0] for line in run.stderr_text.splitlines()[2:] if not line.startswith(" ")]
    assert shown == [name for name in steps if name != "summary"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "train"], "no step 'train'; the steps are regenerate, leaks, check, phase1, phase2, merge"),
        (["bigfive", "--only", "phase3"], "no step 'phase3'; the steps are regenerate, leaks, check"),
        (["--fro", "merge"], "--fro: expected [TASK] [--from STEP] [--only STEP] [--force] [--dry-run]; the steps of"),
        (["hawks", "bigfive"], "bigfive: expected [TASK] [--from STEP]"),
        (["--from", "merge", "--only", "merge"], "--from and --only do not go together"),
        (["--from"], "requires an argument"),
        (["nix"], "no task 'nix'"),
        (["../hawks"], "no task '../hawks'"),
    ],
)
def test_a_wrong_option_or_step_is_named_and_nothing_runs(clone, arguments, problem):
    run = clone.run(*arguments)
    assert run.returncode == 2 and problem in run.stderr_text and "Traceback" not in run.stderr_text
    assert not clone.calls.exists() and not (clone.root / "outputs").exists() and not (clone.root / "logs").exists()


def test_the_first_step_that_fails_ends_the_run(clone):
    (clone.root / "step.py").write_text("raise SystemExit(7)", encoding="utf-8")
    assert clone.run(BLOCK="merge").returncode == 7
    assert clone.steps() == STEPS[: STEPS.index("merge") + 1]


def test_force_makes_the_chosen_steps_forget_that_they_are_done(clone):
    out = clone.root / "outputs" / "hawks"
    for name in STEPS:
        runs.write_text(out / "state" / f"{name}.json", "{}")
        runs.write_text(out / name / "started.json", "{}")
    assert clone.run("--from", "evaluate").returncode == 0
    assert len(list((out / "state").glob("*.json"))) == len(STEPS)
    assert clone.run("--force", "--dry-run", "--only", "phase2").returncode == 0
    assert len(list((out / "state").glob("*.json"))) == len(STEPS) and not clone.calls.exists()
    assert clone.run("--force", "--only", "phase2", "--only", "merge").returncode == 0
    left = [name for name in STEPS if name not in ("phase2", "merge")]
    assert sorted(path.stem for path in (out / "state").glob("*.json")) == sorted(left)
    assert (out / "phase1" / "started.json").exists() and not (out / "phase2" / "started.json").exists()


def test_a_dry_run_says_what_would_run_and_why_and_writes_nothing(clone):
    def tree():
        paths = (path for path in clone.root.rglob("*") if "__pycache__" not in path.parts)
        return {path: path.is_file() and path.stat().st_mtime_ns for path in paths}

    shutil.copytree(ROOT / "data" / "samples" / "hawks", clone.root / "data" / "samples" / "hawks", dirs_exist_ok=True)
    arguments, real = ["--only", "regenerate", "--only", "leaks"], {"REAL": "tools/"}
    before = tree()
    run = clone.run(*arguments, "--dry-run", **real)
    assert run.returncode == 0 and "regenerate: would run: it has not ended well here yet\n" in run.stderr_text
    assert tree() == before
    assert clone.run(*arguments, **real).returncode == 0
    before = tree()
    lines = clone.run(*arguments, "--dry-run", **real).stderr_text.splitlines()
    assert (lines[1], lines[-1]) == ("regenerate: up to date", "leaks: up to date: outputs/hawks/leaks")
    assert tree() == before
    with (clone.root / "data" / "samples" / "hawks" / "hawks_train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    before = tree()
    lines = clone.run(*arguments, "--dry-run", **real).stderr_text.splitlines()
    assert lines[1] == "regenerate: would run: raw changed" and lines[2].startswith("leaks: would run: ")
    assert tree() == before


@pytest.mark.fault(number=36)
def test_a_second_run_is_refused_at_once_and_names_the_first(clone):
    first = clone.start(BLOCK="merge")
    assert wait_for((clone.root / "busy").exists)
    started = time.monotonic()
    second = clone.run("--only", "leaks")
    assert second.returncode == 2 and time.monotonic() - started < 20
    logs = json.loads((clone.root / "outputs/hawks/run.lock").read_text(encoding="utf-8"))["logs"]
    message = f"error: a run of hawks is running in another process, {first.pid}, since 20"
    assert message in second.stderr_text and logs in second.stderr_text
    assert f"stop it: kill {first.pid}" in second.stderr_text and "leaks" not in second.stderr_text
    assert not clone.calls.exists()
    assert clone.run("bigfive", "--only", "leaks").returncode == 0, "another task is no matter"
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert clone.run("--only", "leaks").returncode == 0


@pytest.mark.fault(number=6)
def test_a_run_whose_shell_was_killed_blocks_no_other(clone):
    first = clone.start(BLOCK="merge")
    assert wait_for((clone.root / "busy").exists)
    first.kill()
    started = time.monotonic()
    second = clone.run("--only", "leaks")
    assert second.returncode == 0 and time.monotonic() - started < 20, second.stderr_text
    first.communicate()
    assert clone.steps() == ["leaks"] and (clone.root / "tidied").exists()


@pytest.mark.fault(number=39)
def test_a_lock_file_left_by_a_dead_run_blocks_nothing(clone):
    runs.write_text(clone.root / "outputs/hawks/run.lock", json.dumps({"pid": os.getpid(), "command": ["pytest"]}))
    assert clone.run("--only", "leaks").returncode == 0
    runs.write_text(clone.root / "outputs/hawks/run.lock", "{torn")
    assert clone.run("--only", "leaks").returncode == 0


def test_old_logs_are_pruned_at_the_start(clone):
    for day in range(1, 27):
        (clone.root / "logs" / f"202601{day:02}_120000").mkdir(parents=True)
    assert clone.run("--only", "leaks", "--dry-run").returncode == 0
    assert len(list((clone.root / "logs").iterdir())) == 26
    assert clone.run("--only", "leaks").returncode == 0
    assert sorted(path.name for path in (clone.root / "logs").iterdir())[0] == "20260107_120000"


def test_train_all_tells_pictures_in_words_first(clone):
    run = clone.run("ogiri:listwise")
    assert run.returncode == 0, run.stderr_text
    calls = clone.calls.read_text(encoding="utf-8").splitlines()
    assert "tools/caption.py ogiri:listwise --source data/samples/ogiri" in calls
    for tool in ("regenerate_segments", "leaks"):
        assert f"tools/{tool}.py ogiri:listwise --source data/captioned/ogiri" in calls
    assert clone.steps()[:4] == ["caption", "regenerate", "leaks", "check"] and "baselines" in clone.steps()
    assert plan.steps(load_task("ogiri"), "sample")["regenerate"].startswith("data/captioned/ogiri -> ")


@pytest.mark.fault(number=53)
def test_train_all_runs_in_a_folder_of_any_name(tmp_path):
    clone = Clone(tmp_path / "日本語 と space")
    (clone.root / "元の $(touch harm) * データ").mkdir()
    run = clone.run("bigfive:alone", SOURCE="元の $(touch harm) * データ")
    assert run.returncode == 0, run.stderr_text
    calls = clone.calls.read_text(encoding="utf-8").splitlines()
    assert "tools/regenerate_segments.py bigfive:alone --source 元の $(touch harm) * データ" in calls
    assert not list(tmp_path.rglob("harm"))


@pytest.mark.parametrize("task", ["x'); open('harm', 'w'); ('", "$(touch harm)", "`touch harm`", "a; touch harm *"])
def test_a_tasks_name_is_never_code(clone, task):
    run = clone.run(task)
    assert run.returncode == 2 and "no task '" in run.stderr_text, run.stderr_text
    assert not clone.calls.exists() and not list(clone.root.rglob("harm"))
