"""What a stopped training goes on from: a checkpoint that is whole, and that can be read."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recipekit.console import show
from recipekit.runs import LARGE, digest, read_record, relative, write_text
from recipekit.task import Task

MARK = "complete.json"
ASIDE = ".unread"  # end of a checkpoint's name, which begins with a dot then
# Calls in a traceback that tell that it was a checkpoint that could not be read.
READING = re.compile(
    r"\bin (?:_load_from_checkpoint|_load_optimizer_and_scheduler|_load_rng_state|_load_scaler|_load_callback_state"
    r"|load_from_json|deepspeed_load_checkpoint)\b"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """How a training failed.

    Attributes:
        code: Its exit code.
        text: What it wrote.
    """

    code: int
    text: str

    @property
    def met_in_reading(self) -> bool:
        """Whether it was a checkpoint that could not be read."""
        return bool(READING.search(self.text))


def seal(checkpoint: Path) -> None:
    """Note a checkpoint's files, their sizes and digests; of files over 256 MiB the sizes alone, digests take time."""
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path != checkpoint / MARK]
    write_text(checkpoint / MARK, json.dumps({str(path.relative_to(checkpoint)): _noted(path) for path in files}))


def is_whole(checkpoint: Path) -> bool:
    """Tell whether a checkpoint holds every file as it was saved; after a power cut, a file may hold zeros."""
    noted = read_record(checkpoint / MARK)
    files = {checkpoint / name: facts for name, facts in noted.items()}
    return bool(files) and all(path.is_file() and _noted(path) == facts for path, facts in files.items())


def _noted(path: Path) -> list[Any]:
    size = path.stat().st_size
    return [size, digest(path) if size <= LARGE else None]


def checkpoints(output: Path) -> dict[int, Path]:
    """Return a phase's checkpoints by their steps, the earliest first."""
    found = [path for path in output.glob("checkpoint-*") if path.name[11:].isdigit()]
    return {int(path.name[11:]): path for path in sorted(found, key=lambda path: int(path.name[11:]))}


def prepare_output(task: Task, phase: str, config: dict[str, Any], inputs: str) -> None:
    """Make the output folder fit to go on from: nothing made from other inputs, and only whole checkpoints."""
    output = task.root / config["output_dir"]
    started = output / "started.json"
    if output.exists() and read_record(started).get("inputs") != inputs:
        show(f"{relative(output)}: made from other settings, data or versions; removing it and starting afresh")
        _empty(output)
    write_text(started, json.dumps({"inputs": inputs}) + "\n")
    for name in ("run_facts.json", "progress.jsonl"):
        (output / name).unlink(missing_ok=True)
    for checkpoint in output.glob("checkpoint-*"):
        if not is_whole(checkpoint):
            show(f"{relative(checkpoint)}: not whole, or changed since it was saved; removing it")
            shutil.rmtree(checkpoint)
    for reached, checkpoint in checkpoints(output).items():
        if reached >= config.get("max_steps", math.inf):  # a trainer that goes on from its last step takes one more
            show(f"{relative(checkpoint)}: the last step of a run that did not end; going back to the one before")
            shutil.rmtree(checkpoint)
    if steps := list(checkpoints(output)):
        show(f"{phase}: going on from step {steps[-1]}")
    for prepared in (task.outputs / "prepared").glob(f"{phase}-*"):
        if prepared != task.root / config["dataset_prepared_path"]:
            shutil.rmtree(prepared)
    for rows in (task.root / config["dataset_prepared_path"]).glob("*/"):
        if not read_record(rows / "dataset_info.json"):  # what datasets writes last
            show(f"{relative(rows)}: rows that were not written to their end; removing them")
            shutil.rmtree(rows)


def _empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a link to another disk."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def go_on(start: Callable[[], T], output: Path, unread: Callable[[T], bool]) -> T:
    """Train; where the last checkpoint cannot be read, go on from the one before, or begin anew.

    Args:
        start: Trains from the last checkpoint there is, and returns how that ended.
        output: The phase's folder. A checkpoint that cannot be read keeps lying there under another name.
        unread: Tells whether an end was that of a training whose checkpoint could not be read.
    """
    while True:
        ended = start()
        left = list(checkpoints(output).values())
        if not left or not unread(ended):
            return ended
        aside = left[-1].with_name(f".{left[-1].name}{ASIDE}")
        shutil.rmtree(aside, ignore_errors=True)
        left[-1].rename(aside)
        where = f"going on from {left[-2].name}" if len(left) > 1 else "no other is left; beginning anew"
        show(f"{relative(left[-1])}: cannot be read, put aside as {aside.name}; {where}", style="yellow")


def forget_unread(output: Path) -> None:
    """Remove checkpoints that could not be read, once the phase has ended well without them."""
    for aside in output.glob(f".checkpoint-*{ASIDE}"):
        shutil.rmtree(aside, ignore_errors=True)
