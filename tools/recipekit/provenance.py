"""What a step ran with: versions of what a result depends on most, and the commit."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recipekit import ROOT

PACKAGES = ("axolotl", "torch", "transformers", "peft", "deepspeed")


def versions() -> dict[str, str | None]:
    """Return the versions that a result depends on most."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Return the commit, and whether the work tree differs from it; None where there is no git or repository."""
    git = shutil.which("git")
    if not git:
        return None
    found = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            run = subprocess.run([git, "--no-optional-locks", *arguments], cwd=ROOT, capture_output=True, text=True,
                                 timeout=20, check=True)  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        found.append(run.stdout.strip())
    return {"commit": found[0], "differs": bool(found[1])}
