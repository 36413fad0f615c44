"""Take download addresses out of uv.lock, so that it works behind any mirror and names none.

    uv run tools/strip_lock.py

Versions stay pinned; `uv sync` fills addresses and hashes in again from the index that the machine is set up for.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from recipekit import ROOT
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.runs import write_text


def strip(text: str) -> str:
    """Return the text of a uv.lock without sdist, wheels and metadata entries, every registry named "."."""
    for pattern in (
        r"^sdist = .*\n",
        r"^wheels = \[(?:\n    .*)*\n?\]\n",
        r"^\[package\.metadata(?s:.*?)(?=^\[\[package|\Z)",
    ):
        text = re.sub(pattern, "", text, flags=re.MULTILINE)
    return re.sub(r'registry = "[^"]*"', 'registry = "."', text).rstrip("\n") + "\n"


def strip_lock(path: Annotated[Path, typer.Argument(help="the lock file")] = ROOT / "uv.lock") -> None:
    """Strip a uv.lock in place."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with uv lock") from None
    stripped = strip(text)
    write_text(path, stripped)
    show(f"{path.name}: {len(text) // 1024} -> {len(stripped) // 1024} KiB, no addresses")


if __name__ == "__main__":
    main(strip_lock)
