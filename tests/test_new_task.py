"""docs/new_task.md, followed to the letter: from its CSV to a score, without a line of Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from canaries import CANARIES, ENVIRONMENT, holding, write_env
from hub_server import LocalHub
from recipekit import ROOT

PAGE = ROOT / "docs" / "new_task.md"
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What a clone holds, and nothing else."""
    root = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if not name.startswith("tests/"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    return root


def run(clone, block, **settings):
    """Run a block; the installed environment stands in for `uv run`, which would install another."""
    script = re.sub(r"\buv run (?=tools/)", "python ", block).replace("uv run bash", "bash")
    env = {key: value for key, value in os.environ.items() if key not in ("LOG_DIR", "DATA", "PROFILE")}
    env |= {"PYTHONPATH": str(clone / "tools"), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"} | settings
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_page_has_the_blocks_that_make_a_task():
    text = "".join(BLOCKS)
    for made in ("found.csv", "instruction.txt", "mail.txt", "task.yml", "phase1.yml", "cpu.yml", "train_all.sh found"):
        assert made in text
    assert ".py" not in re.sub(r"uv run tools/\w+\.py", "", text), "no Python is written"


@pytest.mark.slow
def test_from_the_csv_to_a_score_on_the_hub_and_no_secret_gets_out(clone, monkeypatch):
    """With a token in every setting; the one that writes to the Hub is among them."""
    monkeypatch.setattr("hub_server.WRITER", ENVIRONMENT["HF_TOKEN"])
    write_env(clone)
    with LocalHub() as hub:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_REPO_ID": "someone/found"}
        done = [run(clone, block, **settings, **ENVIRONMENT) for block in BLOCKS]
        sent = hub.files("model", "someone/found")
    names = {path.relative_to(clone).as_posix() for path in clone.rglob("*") if path.is_file()}
    report, card = "outputs/found/evaluation/report.html", "outputs/found/README.md"
    assert {"mlflow.db", report, card, "outputs/found/state/upload.json"} <= names
    assert {"phase1.yml", "phase1.log", "upload.log"} <= {Path(name).name for name in names if name.startswith("logs/")}
    assert holding(clone, *(run.stdout + run.stderr for run in done), *hub.requests) == set()
    assert {"model.safetensors", "README.md", "metrics.json"} <= sent.keys()
    assert not [name for name, data in sent.items() for canary in CANARIES if canary.encode() in data]
    out = clone / "outputs" / "found"
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["articles"] > 60 and metrics["micro"]["f1"] > 0.9
    assert (out / "evaluation" / "report.html").is_file() and (out / "merged" / "model.safetensors").is_file()
