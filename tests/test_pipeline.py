"""train_all.sh, whole: what the README promises of it, and what a kill -9 in the middle of any step does."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from recipekit import ROOT
from recipekit.run_plugin import cpu_has_bfloat16

pytestmark = pytest.mark.slow
VARYING = ("seconds", "mean_logprob")
STEPS = ["regenerate", "leaks", "phase1", "phase2", "merge", "predict", "evaluate", "card", "upload"]


def checkout(folder: Path) -> Path:
    """Copy what git would clone, uncommitted changes included."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def environment() -> dict[str, str]:
    unwanted = ("HF_AUTH_TOKEN", "HF_TOKEN", "HF_REPO_ID", "LOG_DIR", "MLFLOW_TRACKING_URI")
    kept = {key: value for key, value in os.environ.items() if key not in unwanted}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PROFILE": "cpu",
        "HF_HUB_OFFLINE": "1",
    }


def train_all(folder: Path, task: str = "hawks", **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "train_all.sh", task],
        cwd=folder,
        env=environment() | extra,
        capture_output=True,
        text=True,
        timeout=1500,
    )


def tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    run = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run


def metrics(folder: Path, name: str = "evaluation") -> dict:
    return json.loads((folder / "outputs" / "hawks" / name / "metrics.json").read_text(encoding="utf-8"))


def predictions(folder: Path) -> list[dict]:
    """Read what a run predicted, but for what differs from run to run: the time, and how probabilities are rounded."""
    lines = (folder / "outputs" / "hawks" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in VARYING} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One undisturbed run of the whole hawks recipe on the bundled sample."""
    folder = checkout(tmp_path_factory.mktemp("whole"))
    started = time.time()
    run = train_all(folder)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, run, time.time() - started


def test_every_article_is_scored(whole):
    folder, _, seconds = whole
    found = metrics(folder)
    assert found["articles"] == 300 and found["negatives"] == 249
    assert found["valid_json_rate"] == 1.0 and found["micro"]["f1"] > 0.88
    assert seconds < 1500  # a loaded machine included; docs give the measured time
    facts = json.loads((folder / "outputs/hawks/phase2/run_facts.json").read_text())
    assert facts["bf16"] == cpu_has_bfloat16()


def test_the_recipe_learns(whole):
    found = metrics(whole[0])
    assert found["micro"]["f1"] >= 0.95
    assert found["false_positive_rate"] <= 0.02


def test_it_ends_with_scores_artifacts_and_next_commands(whole):
    folder, run, _ = whole
    screen = run.stderr
    assert "profile cpu (PROFILE=cpu was given)" in screen.splitlines()[0]
    assert re.search(r"micro +\d", screen) and "mlflow ui --backend-store-uri sqlite:///mlflow.db" in screen
    assert "Warning" not in screen and "Traceback" not in screen
    logs = next((folder / "logs").iterdir())
    assert re.fullmatch(r"\d{8}_\d{6}", logs.name)
    assert {f"{step}.log" for step in STEPS} <= {path.name for path in logs.iterdir()}
    assert yaml.safe_load((logs / "phase2.yml").read_text(encoding="utf-8"))["lora_model_dir"] == "outputs/hawks/phase1"


def test_a_second_run_does_nothing(whole):
    folder, _, _ = whole

    def written():  # the check looks at the machine again each time, and how that went is kept and in run.json
        files = [p for p in (folder / "outputs").rglob("*") if p.is_file() and p.stem not in ("check", "run")]
        return {path: path.stat().st_mtime_ns for path in files}

    before, started = written(), time.time()
    run = train_all(folder)
    assert run.returncode == 0, run.stderr[-2000:]
    assert time.time() - started < 30
    assert run.stderr.count("up to date") >= len(STEPS) - 1
    assert written() == before


def test_the_bare_base_knows_nothing_and_phase_1_calibrates_negatives(whole):
    folder, _, _ = whole
    out = "outputs/hawks"
    base = ["--model", "data/samples/base"]
    for name, adapter in {"base": [], "phase1": ["--adapter", f"{out}/phase1"]}.items():
        tool(folder, "tools/predict.py", "hawks", *base, *adapter, "--output", f"{out}/{name}.jsonl")
        tool(folder, "tools/evaluate.py", "hawks", "--predictions", f"{out}/{name}.jsonl", "--output", f"{out}/{name}")
    assert metrics(folder, "base")["micro"]["f1"] < 0.05
    phase1 = metrics(folder, "phase1")
    assert phase1["false_positive_rate"] <= 0.02 and phase1["micro"]["f1"] < 0.5
    files = [f"{out}/phase1.jsonl", f"{out}/predictions.jsonl"]
    tool(folder, "tools/evaluate.py", "hawks", "--compare", *files, "--output", f"{out}/compare")
    found = json.loads((folder / out / "compare" / "compare.json").read_text(encoding="utf-8"))["metrics"]
    assert found["micro.f1"]["real"] and found["micro.f1"]["low"] > 0.4 and found["micro.f1"]["p"] < 0.01
    assert not found["false_positive_rate"]["real"]


def test_the_report_and_the_bars_of_a_release(whole):
    folder, _, _ = whole
    out = folder / "outputs" / "hawks" / "evaluation"
    report = (out / "report.html").read_text(encoding="utf-8")
    assert f"{100 * metrics(folder)['micro']['f1']:.1f}" in report
    assert "://" not in report.replace("http://www.w3.org", "")  # nothing is fetched; SVG names its namespace
    files = ["--predictions", "outputs/hawks/predictions.jsonl", "--output", "outputs/hawks/gate"]
    tool(folder, "tools/evaluate.py", "hawks", *files, "--baseline", "recipes/hawks/baseline.yml")


def test_both_phases_and_the_scores_are_in_one_mlflow_experiment(whole):
    folder, _, _ = whole
    code = (
        "import mlflow; mlflow.set_tracking_uri('sqlite:///mlflow.db'); "
        "runs = mlflow.search_runs(experiment_names=['hawks'], output_format='list'); "
        "print(sorted((r.info.run_name, r.info.status, len(r.data.metrics) > 3) for r in runs))"
    )
    run = tool(folder, "-c", code)
    assert run.stdout.strip().splitlines()[-1] == str(
        [("evaluate", "FINISHED", True), ("phase1", "FINISHED", True), ("phase2", "FINISHED", True)]
    )


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A checkout with few steps and few test articles, and the predictions of an undisturbed run of it."""
    folder = checkout(tmp_path_factory.mktemp("short"))
    overlay = folder / "recipes" / "hawks" / "cpu.yml"
    spec = yaml.safe_load(overlay.read_text(encoding="utf-8"))
    for phase in ("phase1", "phase2"):
        spec[phase] |= {"max_steps": 8, "save_steps": 2, "eval_steps": 4, "micro_batch_size": 4}
    overlay.write_text(yaml.safe_dump(spec), encoding="utf-8")
    sample = folder / "data" / "samples" / "hawks"
    for name, rows in {"hawks_eval_input.jsonl": 24, "hawks_eval_gold.csv": 25, "hawks_val.jsonl": 8}.items():
        lines = (sample / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (sample / name).write_text("".join(lines[:rows]), encoding="utf-8")
    with (sample / "hawks_eval_gold.csv").open(encoding="utf-8") as stream:
        assert len(list(csv.reader(stream))) == 25
    undisturbed = Path(shutil.copytree(folder, tmp_path_factory.mktemp("undisturbed") / "clone"))
    run = train_all(undisturbed)
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, predictions(undisturbed)


def kill_in(folder: Path, step: str, seen: str) -> None:
    """Start the pipeline and kill -9 its whole process group once a glob of files under the folder has a match."""
    run = subprocess.Popen(["bash", "train_all.sh"], cwd=folder, env=environment(), stderr=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    deadline = time.time() + 600
    while not list(folder.glob(seen)):
        assert run.poll() is None, f"ended before {step} could be killed"
        assert time.time() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()


@pytest.mark.fault(number=3)
def test_killed_in_every_step_it_ends_the_same(short):
    folder, undisturbed = short
    out = folder / "outputs" / "hawks"
    kill_in(folder, "regenerate", "data/train/.regenerate*/person_dummy_segments.jsonl")
    assert not list((folder / "data" / "train").glob("*.jsonl"))
    kill_in(folder, "phase1", "outputs/hawks/phase1/checkpoint-4")
    kill_in(folder, "phase2", "outputs/hawks/phase2/checkpoint-2")
    assert (out / "state" / "phase1.json").exists() and not (out / "state" / "phase2.json").exists()
    kill_in(folder, "merge", "logs/*/merge.log")
    assert not (out / "state" / "merge.json").exists()
    kill_in(folder, "predict", "logs/*/predict.log")
    kill_in(folder, "evaluate", "logs/*/evaluate.log")
    run = train_all(folder)
    assert run.returncode == 0, run.stderr[-3000:]
    assert predictions(folder) == undisturbed


def test_bigfive_learns_from_its_sample_and_equal_seeds_give_equal_estimates(tmp_path):
    def estimates(folder):
        return (folder / "outputs/bigfive/predictions.jsonl").read_bytes()

    folder = checkout(tmp_path / "one")
    run = train_all(folder, "bigfive")
    assert run.returncode == 0, run.stderr[-3000:]
    assert "better than constant: MAE of constant - ours" in run.stderr and "Traceback" not in run.stderr
    found = json.loads((folder / "outputs/bigfive/evaluation/metrics.json").read_text(encoding="utf-8"))
    assert found["rows"] == 280 and found["groups"] == 40 and found["invalid"] == 0
    better = found["baselines"]["constant"]["difference"]["group"]["overall"]["mae"]
    assert better["low"] > 0 and better["p"] < 0.05
    tool(folder, "tools/evaluate.py", "bigfive", "--baseline", "recipes/bigfive/baseline.yml")
    assert train_all(folder, "bigfive").stderr.count("up to date") >= 8

    again = checkout(tmp_path / "two")
    assert train_all(again, "bigfive").returncode == 0
    assert estimates(again) == estimates(folder)
