"""tools/train.py in a process of its own, in a root of a test's own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

DRIVER = """
import sys
from pathlib import Path
from recipekit.console import main
from recipekit.task import load_task
from train import train_phase
root, task, phase = sys.argv[1:]
sys.argv[1:] = []
main(lambda: train_phase(load_task(task, Path(root)), phase, "cpu"))
"""


def start(root: Path, task: str, phase: str) -> subprocess.Popen:
    """Start a phase."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "LOG_DIR": str(root / "logs")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(root), task, phase], env=env, text=True, **pipes)


def run(root: Path, task: str, phase: str, code: int = 0) -> str:
    """Train a phase; returns what it shows."""
    process = start(root, task, phase)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == code, output + (root / "logs" / f"{phase}.log").read_text()[-4000:]
    return output


def when_step(root: Path, task: str, phase: str, step: int) -> None:
    """Wait until training has come to a step."""
    report = root / "outputs" / task / phase / "progress.jsonl"
    deadline = time.time() + 600
    while not (
        report.exists() and any(json.loads(line)["step"] >= step for line in report.read_text().splitlines()[:-1])
    ):
        assert time.time() < deadline, "training did not get that far"
        time.sleep(0.02)
