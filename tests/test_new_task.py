"""docs/new_task.md, followed to the letter: from its CSV to a score, without a line of Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def run(clone, block):
    """Run a block; the installed environment stands in for `uv run`, which would install another."""
    script = re.sub(r"\buv run (?=tools/)", "python ", block).replace("uv run bash", "bash")
    env = {key: value for key, value in os.environ.items() if key not in ("LOG_DIR", "DATA", "PROFILE")}
    env |= {"PYTHONPATH": str(clone / "tools"), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
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
def test_from_the_csv_to_a_score(clone):
    for block in BLOCKS:
        run(clone, block)
    out = clone / "outputs" / "found"
    metrics = json.loads((out / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["articles"] > 60 and metrics["micro"]["f1"] > 0.9
    assert (out / "evaluation" / "report.html").is_file() and (out / "merged" / "model.safetensors").is_file()
