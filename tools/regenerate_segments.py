"""Raw articles and labels -> segments that Axolotl trains on, the phase mixes, and the test set.

    uv run tools/regenerate_segments.py hawks

Reads data/raw/<task>/ (filled by tools/download.py, or by you) or, where that is missing, data/samples/<task>/. A raw
row is {"id", "body", "label"}, or what data.rows of task.yml says: CSV columns, Alpaca, messages (docs/data.md). A row
that has "segments" already is taken apart and rebuilt with the prompt of today.
"""

import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from recipekit import inputs, raw
from recipekit.console import console, log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.joining import count_lines
from recipekit.mixing import mix
from recipekit.preparing import prepare
from recipekit.process import hold
from recipekit.runs import Step, code_digest, relative
from recipekit.task import Task, load_task


def count_articles(path: Path) -> int:
    """Count the rows of a test set, each of which has a unique id and a body."""
    keys = array("Q")
    problems = []
    for place, found in inputs.scan(path):
        if isinstance(found, inputs.Problem):
            problems.append(f"{place}: {found.text}")
        else:
            keys.append(raw.key(found["id"]))
    if raw.repeated(keys):
        problems = inputs.read_articles(path)[1]
    if problems:
        raise UserError(problems)
    return len(keys)


def generate(task: Task, source: Path, folder: Path) -> dict[str, int]:
    """Write every file of the task below folder; returns the rows of each. All files' problems come at once."""
    counts: dict[str, int] = {}
    lengths: dict[str, array] = {}
    found, problems = raw.files(task, source)
    lines = sum(count_lines(file.path) or 0 for file in found) if console.is_terminal else None
    with progress("regenerate", lines) as advance:
        for file in found:
            try:
                prepared = prepare(task, file, folder, advance)
                counts |= prepared.rows
                lengths |= prepared.lengths
            except UserError as error:
                problems += error.problems
    test = task.spec["data"]["test"]
    if raw.TEST in task.spec["data"].get("split", {}).get("shares", ()):
        counts[test["input"]] = counts.pop(raw.TEST, 0)
    else:
        try:
            for which in ("input", "gold"):
                shutil.copyfile(raw.find(task, source, test[which]), folder / test[which])
            counts[test["input"]] = count_articles(raw.find(task, source, test["input"]))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    for name, spec in task.spec["data"]["train"].items():
        if "base" in spec:
            counts[name] = mix(folder, name, spec, lengths)
    return counts


def products(task: Task) -> list[Path]:
    """Every file the step makes."""
    names = task.spec["data"]["train"]
    manifests = [task.segments_path(n).with_suffix(".manifest.json") for n in names if n not in task.raw_sets]
    return [task.segments_path(n) for n in names] + manifests + [task.test_path("input"), task.test_path("gold")]


@contextmanager
def workplace(task: Task, folder: Path) -> Iterator[Path]:
    """Open a folder for files that are not whole yet; it goes at the end, and what a killed run left goes before.

    Raises:
        UserError: Nothing can be written there, or another process is at the same task.
    """
    own = folder / f".regenerate.{task.slug}"
    try:
        with hold(task.outputs / "regenerate.lock", f"regenerate of {task.name}"):
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir(parents=True)
            try:
                yield own
            finally:
                shutil.rmtree(own, ignore_errors=True)
    except OSError as error:
        what = f"cannot be written, {error.strerror or error}"
        raise UserError(f"{relative(folder)}: {what}; make room there and run the same command again") from None


def regenerate(
    task: str,
    source: Annotated[
        Path | None, typer.Option(help="raw folder; default data/raw/TASK, else data/samples/TASK")
    ] = None,
) -> None:
    """Write data/train/*_segments.jsonl and data/test/* of a task from its raw data."""
    recipe = load_task(task)
    folder = source.resolve() if source else recipe.raw_dir
    log_to("regenerate")
    step_inputs = {
        "raw": folder,
        "data": recipe.spec["data"],
        "schema": recipe.output_schema,
        "gold": recipe.spec["gold"],
        **recipe.prompt_sources(),
        "code": code_digest(),
    }
    step = Step(recipe.outputs, "regenerate", step_inputs, products(recipe))
    if step.done():
        show("regenerate: up to date")
        return
    train, test = recipe.root / "data" / "train", recipe.root / "data" / "test"
    with workplace(recipe, train) as own:
        counts = generate(recipe, folder, own)
        test.mkdir(parents=True, exist_ok=True)
        for file in sorted(own.iterdir()):
            file.replace((test if file.name in recipe.spec["data"]["test"].values() else train) / file.name)
    step.record(rows=counts, source=relative(folder))
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    show(f"regenerate: {relative(folder)} -> data/train, data/test; rows: {rows}")


if __name__ == "__main__":
    main(regenerate)
