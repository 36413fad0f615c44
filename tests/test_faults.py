"""Faults of the machine around a task's steps, each in a process of its own: what is said, left and done next."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

import predicting
import processes
import stepping
from disks import fill, read_only, small_disk
from hub_client import problem
from hub_server import Fault, LocalHub
from recipekit import ROOT, journal, process, runs
from recipekit.errors import UserError
from recipekit.process import Stall, hold
from recipekit.status import look
from test_hub import clone, upload  # noqa: F401
from test_merge import task as trained  # noqa: F401
from train import step_inputs

DRIVER = """
import sys
from pathlib import Path
root, tool, moment = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.argv[1:] = []
import evaluate, merge, model_card, predict, regenerate_segments
from disks import fill
from recipekit import extraction_evaluation
from recipekit.console import main
from recipekit.task import load_task
load = lambda name: load_task(name, root)
for module in (evaluate, model_card, predict, regenerate_segments):
    module.load_task = load

def before(module, name):
    whole = getattr(module, name)
    def filled(*arguments, **kwargs):
        fill(root / "outputs")
        return whole(*arguments, **kwargs)
    setattr(module, name, filled)

def after_rows(count):
    whole = predict.decode
    def some(*arguments):
        for number, row in enumerate(whole(*arguments)):
            if number == count:
                fill(root / "outputs")
            yield row
    predict.decode = some

exec(moment)
steps = {
    "regenerate": lambda: regenerate_segments.regenerate("mini"),
    "merge": lambda: merge.merge_task(load("mini"), "cpu"),
    "predict": lambda: predict.command("mini"),
    "evaluate": lambda: evaluate.evaluate("mini", resamples=100, mlflow=False),
    "card": lambda: model_card.card("mini"),
}
main(steps[tool])
"""


def step(root, tool, moment="pass", code=0, **env):
    """Run a step of the mini task; returns what it shows."""
    paths = f"{ROOT / 'tools'}:{ROOT / 'tests'}"
    env = stepping.environment(PYTHONPATH=paths, OMP_NUM_THREADS="1", COLUMNS="500", **env)
    command = [sys.executable, "-c", DRIVER, str(root), tool, moment]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=300)
    shown = "\n".join(line for line in done.stderr.splitlines() if "shards:" not in line and "weights:" not in line)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in shown
    return shown


@pytest.fixture
def chain(small_task, trained):  # noqa: F811
    """The mini task, trained, on a disk of its own; it answers with a small schema."""
    write = (trained.root / "data" / "test" / "gold.csv").write_text
    write("id,person_name\n" + "".join(f"E{i},山田太郎\n" for i in range(8)), encoding="utf-8")
    kept = trained.outputs.rename(trained.root / "kept")
    with small_disk(trained.root / "outputs", "8m"):
        shutil.copytree(kept, trained.outputs)
        yield trained


def full(shown):
    """The one error of a step that met a full disk."""
    [error] = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert "cannot be written, No space left on device" in error and "make room there" in error, error
    return error


def alike(row):
    """A prediction without what another batch changes: its time, and how probabilities are rounded."""
    return {key: value for key, value in row.items() if key not in ("seconds", "mean_logprob")}


def free(chain):
    (chain.root / "outputs" / "filling").unlink()


@pytest.mark.fault(number=14)
@pytest.mark.fault(number=15)
@pytest.mark.fault(number=16)
@pytest.mark.fault(number=17)
@pytest.mark.fault(number=29)
@pytest.mark.slow
def test_a_disk_that_fills_up_in_merge_predict_evaluate_and_card(chain):
    root, out = chain.root, chain.outputs
    full(step(root, "merge", "before(merge, 'keep_marks'); combine = merge.combine; before(merge, 'combine')", 2))
    assert not (out / "merged").exists() and not list(out.glob(".merged*")) and not (out / "state/merge.json").exists()
    free(chain)
    step(root, "merge")

    undisturbed = predicting.run(chain, predicting.options(chain, out / "merged"))
    full(step(root, "predict", "after_rows(3)", 2))
    assert not (out / "predictions.jsonl").exists()
    free(chain)
    assert re.search(r"[3-8] of 8 are done, going on", step(root, "predict"))  # a disk has room to a block's end
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [alike(row) for row in rows] == [alike(row) for row in undisturbed]

    full(step(root, "evaluate", "before(extraction_evaluation, 'score')", 2))
    assert not (out / "evaluation" / "metrics.json").exists() and not (out / "state/evaluate.json").exists()
    free(chain)
    step(root, "evaluate")

    full(step(root, "card", "before(model_card, 'write_card')", 2))
    assert not (out / "README.md").exists() and not list(out.glob("*.tmp")) + list(out.glob(".*.tmp"))
    free(chain)
    step(root, "card")

    (metrics := out / "evaluation" / "metrics.json").write_bytes(whole := metrics.read_bytes()[:100])
    assert "metrics.json: not valid JSON" in step(root, "card", code=2)
    assert "up to date" not in step(root, "evaluate") and metrics.read_bytes() != whole
    step(root, "card")


@pytest.mark.fault(number=25)
@pytest.mark.slow
def test_a_torn_merged_model_is_named_and_merged_again(small_task, trained):  # noqa: F811
    root, weights = trained.root, trained.outputs / "merged" / "model.safetensors"
    step(root, "merge")
    weights.write_bytes((whole := weights.read_bytes())[:-100])
    shown = step(root, "predict", code=2)
    assert "outputs/mini/merged/model.safetensors: torn, " in shown and "tools/merge.py mini" in shown
    assert "up to date" not in step(root, "merge") and weights.read_bytes() == whole


@pytest.mark.fault(number=26)
def test_a_torn_base_is_named_and_costs_no_checkpoint(trained):  # noqa: F811
    base = trained.root / "data/samples/base/model.safetensors"
    base.write_bytes(base.read_bytes()[:-100])
    shown = step(trained.root, "merge", code=2)
    assert "data/samples/base/model.safetensors: torn, " in shown and "restore it" in shown
    assert not (trained.outputs / "merged").exists()
    with pytest.raises(UserError, match="model.safetensors: torn, .*; restore it"):  # before anything is removed
        step_inputs(trained, {"base_model": "data/samples/base"}, 1)


@pytest.mark.fault(number=18)
def test_a_full_disk_under_the_log_stops_nothing(tmp_path):
    root = stepping.make(tmp_path)
    with small_disk(root / "logs", "64k"):
        (root / "logs" / "a.log").touch()
        fill(root / "logs")
        done = stepping.run(
            root, "--then", "print('x' * 9999, flush=False); show('a line')", LOG_DIR=str(root / "logs")
        )
    assert done.returncode == 0 and "a line" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert journal.read(root / "outputs/mini")["a"]["exit"] == 0


@pytest.mark.fault(number=19)
@pytest.mark.parametrize("kept", ["outputs", "logs"])
def test_folders_that_may_not_be_written_are_named_before_the_work(tmp_path, kept):
    root = stepping.make(tmp_path)
    with read_only(root / kept):
        done = stepping.run(root, LOG_DIR=str(root / "logs"))
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "cannot be written, Read-only file system" in done.stderr.splitlines()[0]
        assert str(root / kept) in done.stderr and not (root / "product").exists()
    assert stepping.run(root, LOG_DIR=str(root / "logs")).returncode == 0


@pytest.mark.fault(number=20)
def test_training_data_that_may_not_be_written_are_named(mini):
    with read_only(mini / "data" / "train"):
        shown = step(mini, "regenerate", code=2)
        assert "data/train: cannot be written, Read-only file system" in shown
    step(mini, "regenerate")


CLOCK = """
import os, time
real, place, form, moved = time.time, time.localtime, time.strftime, float(os.environ["CLOCK"])
time.time = lambda: real() + moved
time.localtime = lambda seconds=None: place(time.time() if seconds is None else seconds)
time.strftime = lambda text, when=None: form(text, time.localtime() if when is None else when)
"""


@pytest.mark.fault(number=50)
@pytest.mark.parametrize("years", [-20, 20])
def test_a_clock_that_jumps_undoes_no_step(tmp_path, years):
    root = stepping.make(tmp_path)
    (root / "clock").mkdir()
    (root / "clock" / "sitecustomize.py").write_text(CLOCK, encoding="utf-8")
    moved = {"PYTHONPATH": str(root / "clock"), "CLOCK": str(years * 366 * 86400)}
    assert stepping.run(root, LOG_DIR=str(root / "logs")).returncode == 0
    assert "up to date" in stepping.run(root, **moved).stderr
    assert stepping.run(root, "--name", "b", "--then", "time.sleep(1.2)", **moved).returncode == 0
    entry = journal.read(root / "outputs/mini")["b"]
    assert entry["start"][:4] != time.strftime("%Y") and 1 <= entry["seconds"] < 60 and entry["exit"] == 0
    record = runs.read_record(root / "outputs/mini/state/b.json")
    assert 1 <= record["seconds"] < 60 and record["finished"][:4] != time.strftime("%Y")
    assert "up to date" in stepping.run(root, "--name", "b").stderr
    running = stepping.start(root, "--name", "c", "--then", stepping_busy(root), **moved)
    assert processes.wait_for((root / "busy").exists)
    [seen] = [one for one in look(root / "outputs" / "mini", ["c"])["steps"] if one["step"] == "c"]
    assert seen["state"] == "running" and seen["seconds"] >= 0
    running.kill()
    running.wait()

    now, then = "20260601_120000", f"{2026 + years}0601_120000"  # the run's own logs, and those of a run by that clock
    for name in (now, then, *(f"202605{day:02}_120000" for day in range(1, 22))):
        (root / "logs" / name).mkdir()
    runs.write_text(root / "outputs/mini/run.lock", json.dumps({"logs": f"logs/{then}"}))
    journal.prune_logs(root)
    assert (root / "logs" / then).exists() and (root / "logs" / now).exists()


def stepping_busy(root):
    return "write_text(root / 'busy', 'yes'); time.sleep(60)"


@pytest.mark.fault(number=52)
def test_outputs_on_another_disk(mini, tmp_path):
    with small_disk(tmp_path / "large disk 大", "8m"):
        (mini / "outputs").symlink_to(tmp_path / "large disk 大")
        (mini / "outputs" / "mini").mkdir()
        step(mini, "regenerate")
        assert "up to date" in step(mini, "regenerate")
        assert (tmp_path / "large disk 大" / "mini" / "state" / "regenerate.json").exists()


@pytest.mark.fault(number=47)
def test_a_silent_hub_ends_the_upload_with_the_command_to_go_on(clone, monkeypatch):  # noqa: F811
    with LocalHub() as hub:
        hub.faults = [Fault("POST /api/models/someone/hawks-model/commit", wait=60, times=99)]
        quick = "from recipekit import hub; hub.READ_SECONDS = 1; hub.WAITS = ()"
        (clone / "quick").mkdir()
        (clone / "quick" / "sitecustomize.py").write_text(f"import sys; sys.path[:0] = ['tools']; {quick}")
        started = time.monotonic()
        error = problem(upload(clone, hub, PYTHONPATH=str(clone / "quick")))
        assert time.monotonic() - started < 50
        assert "no connection to the Hub" in error and "the model is safe at outputs/hawks/merged" in error
        assert "run uv run tools/upload.py hawks again" in error
        hub.faults = []
        assert upload(clone, hub).returncode == 0


STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
time.sleep(600)
"""


@pytest.mark.fault(number=41)
def test_a_child_that_hangs_and_heeds_no_signal_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 1)
    monkeypatch.setenv("TRAIN_STALL_SECONDS", "2")
    log = tmp_path / "phase1.log"
    command = ["bash", "-c", f'echo $$ > pid; exec "$0" -c "$1" > {log}', sys.executable, STUBBORN]
    started = time.monotonic()
    with (
        hold(tmp_path / "lock", "phase1") as lock,
        pytest.raises(UserError, match="training hangs: no step and no line"),
    ):
        process.run(command, tmp_path, dict(os.environ), lock, tmp_path / "progress.jsonl", log, "phase1", None)
    assert time.monotonic() - started < 20
    assert processes.wait_for(lambda: not processes.runs(int((tmp_path / "pid").read_text())))


def test_a_sign_of_life_is_a_step_or_a_line(tmp_path, monkeypatch):
    report, log = tmp_path / "progress.jsonl", tmp_path / "log"
    clock = iter(range(0, 1000, 60))
    monkeypatch.setattr(process.time, "monotonic", lambda: next(clock))
    stall = Stall((report, log), 100)
    for path in (report, log, report):
        with path.open("a") as stream:
            stream.write("x\n")
        stall.check()
    stall.check()
    with pytest.raises(UserError, match="set TRAIN_STALL_SECONDS"):
        stall.check()
    forever = Stall((report, log), 0)
    for _ in range(5):
        forever.check()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_wrong_time_limit_is_named(monkeypatch, text):
    monkeypatch.setenv("TRAIN_STALL_SECONDS", text)
    with pytest.raises(UserError, match=f"TRAIN_STALL_SECONDS: found '{text}', expected seconds"):
        process.stall_seconds()


@pytest.mark.fault(number=22)
def test_a_checkpoint_of_the_right_size_with_other_bytes_is_not_gone_on_from(tmp_path):
    from recipekit import resuming

    checkpoint = tmp_path / "checkpoint-5"
    runs.write_text(checkpoint / "optimizer.pt", "state")
    for _ in range(2):
        resuming.seal(checkpoint)
        assert resuming.is_whole(checkpoint)
    runs.write_text(checkpoint / "optimizer.pt", "\0" * 5)  # as a power cut leaves what was not on the disk yet
    assert not resuming.is_whole(checkpoint)


@pytest.mark.fault(number=23)
def test_a_checkpoint_that_cannot_be_read_is_put_aside_and_others_are_not(tmp_path, capsys):
    from recipekit import resuming

    def make():
        for number in (5, 10):
            runs.write_text(tmp_path / f"checkpoint-{number}" / "x", "x")

    make()
    ends = iter(["unread", "unread", "good"])
    assert resuming.go_on(lambda: next(ends), tmp_path, lambda end: end == "unread") == "good"
    assert "going on from checkpoint-5" in (said := capsys.readouterr().err) and "beginning anew" in said
    assert not resuming.checkpoints(tmp_path) and len(list(tmp_path.glob(".checkpoint*"))) == 2
    resuming.forget_unread(tmp_path)
    make()
    ends = iter(["out of memory"])
    assert resuming.go_on(lambda: next(ends), tmp_path, lambda end: end == "unread") == "out of memory"
    assert list(resuming.checkpoints(tmp_path)) == [5, 10]


@pytest.mark.fault(number=2)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_killed_on_the_way_leaves_no_half_file(tmp_path, number):
    root = stepping.make(tmp_path)
    running = stepping.start(
        root, "--then", "write_text(root / 'busy', 'yes')\nwhile True: write_text(root / 'large', 'x' * 3_000_000)"
    )
    assert processes.wait_for((root / "large").exists)
    running.send_signal(number)
    running.wait()
    assert (root / "large").stat().st_size == 3_000_000
    assert not (root / "outputs/mini/state/a.json").exists()


def test_kept_metrics_are_sent_in_sections_whatever_their_names(tmp_path, capsys):
    from mlflow import MlflowClient

    from recipekit import tracking

    config = {"mlflow_tracking_uri": "sqlite:///mlflow.db", "mlflow_experiment_name": "mini"}
    for section in range(2):
        head = json.dumps({"run_id": None, "reason": "away"})
        line = json.dumps({"step": 5 + section, "time": 1, "metrics": {"loss": 0.5, "memory/max_active (GiB)": 1.0}})
        with (tmp_path / tracking.FILE).open("a", encoding="utf-8") as stream:
            stream.write(f'{head}\n{line}\n{{"step": 7, "torn')
            stream.write("\n")
    tracking.send(tmp_path, config, "phase1", tmp_path)
    assert "sent 4 metrics that were kept" in capsys.readouterr().err and not (tmp_path / tracking.FILE).exists()
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs_there = client.search_runs([client.get_experiment_by_name("mini").experiment_id])
    assert len(runs_there) == 2 and {run.info.status for run in runs_there} == {"FINISHED"}
    assert set(runs_there[0].data.metrics) == {"loss", "memory/max_active _GiB_"}
