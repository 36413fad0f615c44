"""What tests of scores, reports and cards of tasks of all kinds share."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

import model_card

SVG = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses to fetch


def run_tool(clone: Path, tool: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Run a tool of a copy of the repository, as a user does."""
    clean = {key: value for key, value in os.environ.items() if key not in ("LOG_DIR", "MLFLOW_TRACKING_URI")}
    return subprocess.run(
        [sys.executable, f"tools/{tool}.py", *arguments],
        cwd=clone, env=clean | {"OMP_NUM_THREADS": "1"} | env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def read_lines(path: Path) -> list:
    """Read JSONL."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def card_of(task, metrics, adapter) -> tuple[dict, str]:
    """Return a model card's front matter and text."""
    card = model_card.write_card(task, metrics, adapter, "owner/name")
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def assert_stands_alone(html: str) -> None:
    """A page fetches nothing and runs nothing, and its links lead to places in it."""
    assert set(re.findall(r"https?://[^\"'\s<]+", html)) <= SVG
    assert not re.search(r"<script|<iframe|@import|\ssrc=|url\((?!#)", html)
    identifiers = re.findall(r'\sid="([^"]+)"', html)
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(identifiers)
