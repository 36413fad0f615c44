"""What runs inside a SageMaker job, against a folder that looks like /opt/ml."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from recipekit import ROOT
from recipekit.adapters import adapter_digest
from recipekit.cloud_files import code_archive
from recipekit.cloud_job import START
from recipekit.cloud_results import unpack
from recipekit.resolve import data_files, resolve
from recipekit.runs import read_record
from recipekit.task import load_task
from test_train import SAVED_EVERY, STEPS, make_root

TRAINER = """\
import os, pathlib, sys
script, task, phase, _, profile = sys.argv[4:]
outputs, home = pathlib.Path("outputs", task.replace(":", "_")), pathlib.Path
assert script == "tools/train.py" and profile == "cpu"
rows = home("data/train/pos.jsonl")
assert rows.read_text() == "{}\\n" and rows.stat().st_mtime == 0
print("epoch 1", file=home("logs", phase + ".log").open("w"), flush=True)
if phase == "phase2":
    assert (outputs / "phase1" / "adapter_model.safetensors").stat().st_mtime_ns % 10**9
    print("error: phase2: the adapter did not change", file=sys.stderr)
    sys.exit(2)
(outputs / phase / "checkpoint-5").mkdir(parents=True)
(outputs / phase / "checkpoint-5" / "optimizer.pt").touch()
(outputs / phase / "adapter_model.safetensors").touch()
if "AUTO_OOM" in os.environ:
    (outputs / (phase + ".cpu.oom.yml")).write_text("laid_over: {}")
(outputs / "state").mkdir()
(outputs / "state" / (phase + ".json")).write_text("{}")
"""


class Container:
    """A folder as SageMaker makes it at /opt/ml, with a `uv` that installs nothing."""

    def __init__(self, home: Path, uv: str) -> None:
        self.ml = home / "ml"
        self.bin = home / "bin"
        self.bin.mkdir(parents=True)
        (self.bin / "uv").write_text(f"#!/bin/bash\n[[ $1 == run ]] || exit 0\n{uv}\n")
        (self.bin / "uv").chmod(0o755)
        for folder in ("output", "input/data"):
            (self.ml / folder).mkdir(parents=True)

    def channel(self, name: str, file: str, content: bytes) -> None:
        path = self.ml / "input" / "data" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Start the container as the job definition does; SageMaker then packs /opt/ml/model."""
        env = os.environ | {"ML_ROOT": str(self.ml), "PATH": f"{self.bin}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        command = ["bash", "-c", START.replace("/opt/ml", str(self.ml)), "sagemaker_entry", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1500)
        if done.returncode == 0:
            subprocess.run(["tar", "czf", "../model.tar.gz", "."], cwd=self.ml / "model", check=True)
        return done


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def faked(home: Path) -> Container:
    """A container whose trainer is TRAINER."""
    (home / "trainer.py").parent.mkdir(parents=True, exist_ok=True)
    (home / "trainer.py").write_text(TRAINER)
    container = Container(home, f'exec {sys.executable} {home}/trainer.py "$@"')
    script = "tools/sagemaker_entry.sh"
    container.channel("code", "code.tar.gz", archive({script: (ROOT / script).read_bytes()}))
    container.channel("train", "0123abcd/pos.jsonl", b"{}\n")
    return container


def test_a_job_leaves_the_phase_and_its_record_and_no_checkpoint(tmp_path):
    job = faked(tmp_path)
    done = job.run("mini:other", "phase1", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(job.ml / "model" / "outputs.tar") as packed:
        names = {entry.name for entry in packed if entry.isfile()}
    folder = "outputs/mini_other"
    assert names == {f"{folder}/phase1/adapter_model.safetensors", f"{folder}/state/phase1.json"}
    assert (job.ml / "checkpoints" / "phase1" / "checkpoint-5" / "optimizer.pt").exists()
    assert (job.ml / "output" / "data" / "logs" / "phase1.log").exists()
    assert not (job.ml / "output" / "failure").exists()


@pytest.mark.fault(number=56)
def test_what_saved_memory_in_a_job_goes_home_with_its_result(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTO_OOM", "1")  # as a job has what stands in its definition
    job = faked(tmp_path)
    done = job.run("mini", "phase1", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(job.ml / "model" / "outputs.tar") as packed:
        assert "outputs/mini/phase1.cpu.oom.yml" in packed.getnames()
    assert (job.ml / "checkpoints" / "phase1.cpu.oom.yml").exists(), "the next try begins with it"


def test_the_next_job_begins_with_what_the_last_left_and_says_why_it_failed(tmp_path):
    first, second = faked(tmp_path / "1"), faked(tmp_path / "2")
    assert first.run("mini", "phase1", "cpu").returncode == 0
    second.channel("previous", "model.tar.gz", (first.ml / "model.tar.gz").read_bytes())
    done = second.run("mini", "phase2", "cpu")
    assert done.returncode == 2, done.stdout + done.stderr
    assert (second.ml / "output" / "failure").read_text() == "error: phase2: the adapter did not change\n"
    assert not (second.ml / "model" / "outputs.tar").exists()


def test_a_failure_of_anything_else_is_told_too(tmp_path):
    job = faked(tmp_path)
    shutil.rmtree(job.ml / "input" / "data" / "train")
    assert job.run("mini", "phase1", "cpu").returncode == 1
    assert "No such file or directory" in (job.ml / "output" / "failure").read_text()


def real(home: Path, root: Path, phase: str, previous: Path | None = None) -> Container:
    """A container that trains for real, with what tools/sagemaker.py sends."""
    task = load_task("hawks", root)
    config = resolve(task, phase, "cpu")
    job = Container(home, f'shift 3; exec {sys.executable} "$@"')
    job.channel("code", "code.tar.gz", code_archive(task, config))
    for path in data_files(task, config):
        job.channel("train", f"0123abcd/{path.name}", path.read_bytes())
    if previous:
        job.channel("previous", "model.tar.gz", previous.read_bytes())
    return job


@pytest.mark.slow
def test_two_jobs_train_two_phases_and_their_results_come_home(tmp_path):
    root = make_root(tmp_path / "root")
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    task = load_task("hawks", root)
    previous, facts = None, {}
    for phase in task.phases:
        job = real(tmp_path / phase, root, phase, previous)
        done = job.run("hawks", phase, "cpu")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{phase}: {STEPS} steps" in done.stdout
        previous = job.ml / "model.tar.gz"
        adapter = unpack(task, phase, "cpu", previous) / "adapter_model.safetensors"
        facts[phase] = read_record(task.outputs / "state" / f"{phase}.json")
        assert adapter_digest(adapter) == facts[phase]["end_digest"]
    assert facts["phase2"]["start_digest"] == facts["phase1"]["end_digest"]

    # Taken away before its end, started anew elsewhere with what S3 had of its checkpoints.
    again = real(tmp_path / "again", root, "phase1")
    kept = tmp_path / "phase1" / "ml" / "checkpoints" / "phase1"
    (again.ml / "checkpoints" / "phase1").mkdir(parents=True)
    shutil.copyfile(kept / "started.json", again.ml / "checkpoints" / "phase1" / "started.json")
    name = f"checkpoint-{STEPS - SAVED_EVERY}"
    shutil.copytree(kept / name, again.ml / "checkpoints" / "phase1" / name, copy_function=shutil.copyfile)
    done = again.run("hawks", "phase1", "cpu")
    assert done.returncode == 0 and f"going on from step {STEPS - SAVED_EVERY}" in done.stdout, (
        done.stdout + done.stderr
    )
    unpack(task, "phase1", "cpu", again.ml / "model.tar.gz")
    assert read_record(task.outputs / "state" / "phase1.json")["end_digest"] == facts["phase1"]["end_digest"]
