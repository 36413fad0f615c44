"""Small disks and disks that may not be written, for tests of what a step does on them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*words: object) -> None:
    if os.geteuid() or subprocess.run(["mount", *map(str, words)], capture_output=True).returncode:
        pytest.skip("only root may mount a disk here")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Put a new disk of a size ("64k") in a folder's place."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: str) -> None:
    """Give a small disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the room of a small disk; returns the file that holds it."""
    path = folder / "filling"
    with path.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"x" * 65536):
                pass
        except OSError:
            return path


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write into a folder, root neither."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("--bind", folder, folder)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
