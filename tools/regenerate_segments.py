"""Raw articles and labels -> segments that Axolotl trains on, the phase mixes, and the test set.

    uv run tools/regenerate_segments.py hawks
    uv run tools/regenerate_segments.py bigfive     # a regression: rows of texts and numbers, data/train/<set>.jsonl
    uv run tools/regenerate_segments.py companion   # a chat: conversations, data/train/<set>_chat.jsonl

Reads data/raw/<task>/ (filled by tools/download.py, or by you) or, where that is missing, data/samples/<task>/. A raw
row is {"id", "body", "label"}, or what data.rows of task.yml says: CSV columns, Alpaca, messages (docs/data.md). A row
that has "segments" already is taken apart and rebuilt with the prompt of today.
"""

import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import chat_rows, inputs, raw, rawfiles, regression_rows
from recipekit.console import console, log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.joining import count_lines
from recipekit.mixing import mix
from recipekit.preparing import prepare
from recipekit.process import hold
from recipekit.runs import Step, code_digest, relative
from recipekit.task import Task, load_task


def count_articles(path: Path, texts: list[str]) -> int:
    """Count the rows of a test set, each of which has a unique id and texts under these keys."""
    keys = array("Q")
    problems = []
    for place, found in inputs.scan(path, texts):
        if isinstance(found, inputs.Problem):
            problems.append(f"{place}: {found.text}")
        else:
            keys.append(raw.key(found["id"]))
    if raw.repeated(keys):
        problems = inputs.read_articles(path, texts)[1]
    if problems:
        raise UserError(problems)
    return len(keys)


def generate(task: Task, source: Path, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Write every file of the task below folder; all files' problems come at once.

    Returns:
        The rows of each file, and what people should know of them.
    """
    counts: dict[str, int] = {}
    lengths: dict[str, array] = {}
    notes: list[str] = []
    groups: dict[str, str] = {}
    found, problems = rawfiles.files(task, source)
    lines = sum(count_lines(file.path) or 0 for file in found) if console.is_terminal else None
    with progress("regenerate", lines) as advance:
        for file in found:
            try:
                prepared = prepare(task, file, folder, advance)
                counts |= prepared.rows
                lengths |= prepared.lengths
                notes += [f"{relative(file.path)}: {note}" for note in prepared.notes]
                if task.estimates:
                    notes += regression_rows.write_manifests(task, file, prepared, folder)
                    groups |= prepared.groups
            except UserError as error:
                problems += error.problems
    test = task.spec["data"]["test"]
    if rawfiles.has_test(task.spec["data"]):
        counts[test["input"]] = counts.pop(rawfiles.TEST, 0)
    else:
        try:
            for which in ("input", "gold"):
                shutil.copyfile(rawfiles.find(task, source, test[which]), folder / test[which])
            counts[test["input"]] = count_articles(rawfiles.find(task, source, test["input"]), task.text_keys)
            if task.estimates and Path(test["input"]).suffix == ".jsonl":
                regression_rows.clean_articles(task, folder / test["input"])
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    if task.estimates:
        notes += regression_rows.write_split(task, groups, folder)
    for name, spec in task.spec["data"]["train"].items():
        if "base" in spec:
            counts[name] = mix(folder, name, spec, lengths)
    return counts, notes


def generate_chat(task: Task, source: Path, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Write every file of a chat below folder; returns as `generate` does."""
    with progress("regenerate", None) as advance:
        written = chat_rows.write(task, source, folder, advance)
    for name, spec in task.spec["data"]["train"].items():
        if "base" in spec:
            written.rows[name] = mix(folder, name, spec, written.lengths, "chat")
    return written.rows, []


def products(task: Task) -> list[Path]:
    """Every file the step makes."""
    if task.is_chat:
        names = [*task.groups, *task.spec["data"]["train"]]
        mixes = [task.segments_path(n).with_suffix(".manifest.json") for n in names if n not in task.raw_sets]
        return [*map(task.segments_path, names), *mixes, task.test_path("input")]
    test = [task.test_path("input"), task.test_path("gold")]
    if task.estimates:
        return [*regression_rows.products(task), *test]
    names = task.spec["data"]["train"]
    manifests = [task.segments_path(n).with_suffix(".manifest.json") for n in names if n not in task.raw_sets]
    return [task.segments_path(n) for n in names] + manifests + test


def step_inputs(task: Task, source: Path) -> dict[str, Any]:
    """Name what the step's result depends on."""
    own: dict[str, Any] = {
        "data": task.spec["data"],
        "schema": task.output_schema,
        **task.prompt_sources(),
        "code": code_digest(),
    }
    if task.is_chat:
        test = task.spec["data"]["test"]
        files = [*chat_rows.sources(task, source)[0], *source.rglob(test.get("file", test["input"]))]
        files += [drafts for path in files if (drafts := chat_rows.drafts_for(task, path))]
        return own | {"raw": str(source), "chat": task.spec["chat"], **{relative(path): path for path in files}}
    if task.estimates:
        # Its folders may be links, which the digest of the one around them does not follow.
        paths = [file.path for file in rawfiles.files(task, source)[0]] + regression_rows.occupations(task)
        if not rawfiles.has_test(task.spec["data"]):
            paths += [path for name in task.spec["data"]["test"].values() for path in source.rglob(name)]
        return own | {"raw": str(source), "group": task.group} | {relative(path): path for path in paths}
    return own | {"raw": source, "gold": task.spec["gold"]}


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
        Path | None, typer.Option(help="default data/raw/TASK, else data/samples/TASK; of images data/captioned/TASK")
    ] = None,
) -> None:
    """Write data/train/* and data/test/* of a task from its raw data."""
    recipe = load_task(task)
    folder = source.resolve() if source else recipe.source_dir
    if "captions" in recipe.spec["data"] and folder in (recipe.raw_dir.resolve(), recipe.sample_dir.resolve()):
        caption = f"run uv run tools/caption.py {recipe.name} --source {relative(folder)}, and leave --source out here"
        raise UserError(f"--source {relative(folder)}: its pictures are not told in words; {caption}")
    log_to("regenerate", recipe.outputs)
    if not folder.is_dir():
        raise UserError(f"{relative(folder)}: no such folder; {rawfiles.remedy(recipe, folder)}")
    step = Step(recipe.outputs, "regenerate", step_inputs(recipe, folder), products(recipe))
    if step.done():
        show("regenerate: up to date")
        return
    train, test = recipe.root / "data" / "train", recipe.root / "data" / "test"
    with workplace(recipe, train) as own:
        counts, notes = (generate_chat if recipe.is_chat else generate)(recipe, folder, own)
        test.mkdir(parents=True, exist_ok=True)
        for file in sorted(own.iterdir()):
            file.replace((test if file.name in recipe.spec["data"]["test"].values() else train) / file.name)
    own_prompt = {"prompt": recipe.prompt_digest()} if recipe.is_chat else {}  # segments hold theirs
    step.record(rows=counts, source=relative(folder), **own_prompt)
    rows = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    for note in notes:
        show(f"regenerate: {note}")
    show(f"regenerate: {relative(folder)} -> data/train, data/test; rows: {rows}")


if __name__ == "__main__":
    main(regenerate)
