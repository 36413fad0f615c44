"""Trainings that meet faults of the machine: each ends with the bytes of the one that met none."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from disks import resize, small_disk
from recipekit import resuming, tracking
from recipekit.runs import read_record
from test_train import make_root, weights
from training import run, start, when_step

pytestmark = pytest.mark.slow
VALUES = {"max_steps": 20, "save_steps": 5, "eval_steps": 20, "logging_steps": 1}


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The adapter of a training that nothing disturbed."""
    root = make_root(tmp_path_factory.mktemp("calm"), **VALUES)
    run(root, "hawks", "phase1")
    return weights(root, "phase1")


def phase1(root: Path) -> Path:
    return root / "outputs" / "hawks" / "phase1"


def restart_machine(process: subprocess.Popen) -> None:
    """End a training as a power cut does: all its processes at once, and nobody tidies up."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=20)


@pytest.mark.fault(number=4)
@pytest.mark.fault(number=13)
@pytest.mark.fault(number=23)
@pytest.mark.fault(number=53)
def test_a_full_disk_a_power_cut_and_a_last_checkpoint_that_cannot_be_read(calm, tmp_path):
    root = make_root(tmp_path / "訓練 of a model", **VALUES)
    with small_disk(root / "outputs", "1700k"):
        shown = run(root, "hawks", "phase1", code=2)
        assert "free some disk space, then run the same command again" in shown and "Traceback" not in shown, shown
        whole = [path for path in resuming.checkpoints(phase1(root)).values() if resuming.is_whole(path)]
        assert [path.name for path in whole] == ["checkpoint-5"]
        resize(root / "outputs", "100m")

        process = start(root, "hawks", "phase1")
        when_step(root, "hawks", "phase1", 12)
        restart_machine(process)
        last = resuming.checkpoints(phase1(root))[10]
        assert not read_record(root / "outputs/hawks/state/phase1.json")
        content = (last / "optimizer.pt").read_bytes()
        (last / "optimizer.pt").write_bytes(os.urandom(len(content)))
        resuming.seal(last)  # it was written so: no digest tells

        shown = run(root, "hawks", "phase1")
        assert "going on from step 10" in shown
        assert "checkpoint-10: cannot be read, put aside as .checkpoint-10.unread; going on from checkpoint-5" in shown
        assert weights(root, "phase1") == calm
        assert not list(phase1(root).glob(".checkpoint*"))


@contextmanager
def mlflow_server(folder: Path, port: int):
    """A real server, which is away at the end."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--artifacts-destination", str(folder / "art")]
    with (folder / "server.log").open("a") as log:
        server = subprocess.Popen([*command, *store], cwd=folder, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 120
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            break
        assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
        time.sleep(0.3)
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def metrics_there(port: int) -> dict[str, list[tuple[int, float]]]:
    """Read the losses that a server has, by run."""
    code = (
        "import json, mlflow; c = mlflow.MlflowClient(); "
        "e = c.get_experiment_by_name('hawks'); runs = c.search_runs([e.experiment_id]) if e else []; "
        "print(json.dumps({r.info.run_id: [r.info.status, sorted((m.step, m.value) for m in "
        "c.get_metric_history(r.info.run_id, 'loss'))] for r in runs}))"
    )
    env = os.environ | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.fault(number=32)
@pytest.mark.fault(number=40)
@pytest.mark.fault(number=44)
def test_a_hang_a_lost_mlflow_server_and_edited_data(calm, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
    away = {"mlflow_tracking_uri": f"http://127.0.0.1:{port}", "plugins": ["fault_plugin.Hang"]}
    root = make_root(tmp_path, **VALUES, **away)
    with monkeypatch.context() as patch:  # it hangs, and MLflow is away from the start
        patch.setenv("FAULT_HANG", "7")
        patch.setenv("TRAIN_STALL_SECONDS", "90")
        shown = run(root, "hawks", "phase1", code=2)
        assert "training hangs: no step and no line in" in shown and "for 90 s; it was stopped" in shown, shown
        assert "Run the same command again to go on from its last checkpoint" in shown
    kept = (phase1(root) / tracking.FILE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in kept[1:]][-1] in (6, 7) and "run_id" in kept[0]

    (root / "server").mkdir()
    with mlflow_server(root / "server", port):
        process = start(root, "hawks", "phase1")
        when_step(root, "hawks", "phase1", 12)
    shown = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "going on from step 5" in shown, shown
    assert "MLflow was away while it trained, and still is" in shown and "the same command sends them" in shown
    assert weights(root, "phase1") == calm

    with mlflow_server(root / "server", port):
        [(run_id, (status, before))] = metrics_there(port).items()
        assert status == "RUNNING" and before[-1][0] < 20
        shown = run(root, "hawks", "phase1")
        assert "up to date" in shown and "metrics that were kept" in shown, shown
        there = metrics_there(port)
    status, after = there.pop(run_id)
    assert status == "FINISHED" and {step for step, _ in after} == set(range(6, 21))
    [(status, first)] = there.values()  # of the training that hung
    assert status == "FINISHED" and {step for step, _ in first} >= set(range(1, 7))
    assert not (phase1(root) / tracking.FILE).exists()

    data = root / "data" / "train" / "person_dummy_segments.jsonl"
    data.write_text("".join(data.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    process = start(root, "hawks", "phase1")
    line = process.stdout.readline()
    restart_machine(process)
    assert "made from other settings, data or versions; removing it and starting afresh" in line
    assert not resuming.checkpoints(phase1(root)) and not list(phase1(root).glob("*.safetensors"))
