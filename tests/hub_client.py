"""The tools as a person runs them, in a copy of the repository, against the Hub of hub_server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hub_server import LocalHub

ROOT = Path(__file__).parents[1]


def copy_repository(root: Path) -> Path:
    """Copy what the tools need."""
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "recipes", root / "recipes")
    return root


def start(clone: Path, tool: str, hub: LocalHub | str, *arguments: str, **env: str) -> subprocess.Popen:
    """Start a tool with a clean environment, without Xet, whose servers the local Hub is not."""
    outside = ("HF_TOKEN", "HF_AUTH_TOKEN", "HF_REPO_ID", "HF_HUB_OFFLINE", "LOG_DIR", "PYTHONPATH")
    clean = {key: value for key, value in os.environ.items() if key not in outside}
    clean |= {"HF_ENDPOINT": hub if isinstance(hub, str) else hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
    clean |= {"HF_HOME": str(clone / ".hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, f"tools/{tool}.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=clone, env=clean | env, **pipes)


def run(
    clone: Path, tool: str, hub: LocalHub | str = "http://127.0.0.1:9", *arguments: str, **env: str
) -> subprocess.CompletedProcess:
    """Run a tool to its end; without arguments on hawks."""
    with start(clone, tool, hub, *(arguments or ["hawks"]), **env) as process:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def problem(done: subprocess.CompletedProcess) -> str:
    """The one error of a run."""
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr, done.stderr
    return errors[0]
