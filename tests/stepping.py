"""A small step of a pipeline, run as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from recipekit import ROOT

PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tools")!r})
from pathlib import Path
import typer
from recipekit import journal
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.runs import Step, write_text

root = Path(__file__).parent
out = root / "outputs" / "mini"

def command(words: list[str] = typer.Argument(None), name: str = "a", then: str = "pass", first: str = "pass",
            server: str = "") -> None:
    log_to(name, out)
    exec(first)
    step = Step(out, name, {{"in": root / "in"}}, [root / "product"])
    if step.done():
        show(f"{{name}}: up to date")
        return
    write_text(root / "product", "made")
    try:
        exec(then)
    finally:
        write_text(root / "tidied", "yes")
    step.record()

main(command)
"""


def make(root: Path) -> Path:
    """Put the step where its outputs will be."""
    (root / "step.py").write_text(PROGRAM, encoding="utf-8")
    (root / "in").write_text("x", encoding="utf-8")
    return root


def environment(**more: str) -> dict[str, str]:
    unwanted = ("LOG_DIR", "HF_TOKEN", "HF_AUTH_TOKEN", "RECIPEKIT_RUN", "RECIPEKIT_DRY_RUN")
    return {key: value for key, value in os.environ.items() if key not in unwanted} | more


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(root / "step.py"), *arguments]


def run(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *arguments), env=environment(**more), cwd=root, capture_output=True, text=True, timeout=60
    )


def start(root: Path, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(root, *arguments), env=environment(**more), cwd=root, stderr=subprocess.DEVNULL, start_new_session=True
    )
