"""Duplicates within and across the splits of a task, persons or groups that they share, and test ids in training.

    uv run tools/leaks.py hawks
    uv run tools/leaks.py hawks --drop           # and raw files without what leaks
    uv run tools/leaks.py hawks --threshold 0.7  # near: 5-grams of characters that two texts share, at least 70%

Exit code 1 where rows of the training or validation data are in the test set. Writes outputs/<task>/leaks/report.json
and leaks.txt, the pairs; with --drop also dropped.jsonl, and the raw files in clean/. What counts: docs/leaks.md.

Of a regression the rows of data/train and data/test are compared, as regenerate_segments.py made them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from recipekit import rawfiles, runs
from recipekit.console import log_to, main, progress, show
from recipekit.corpus import Corpus
from recipekit.errors import UserError
from recipekit.joining import count_lines
from recipekit.leak_report import summary, write_copies, write_list
from recipekit.leaks import search
from recipekit.runs import Step, code_digest, read_record, relative
from recipekit.task import Task, load_task

THRESHOLD = 0.8
REMEDY = "give data.split in task.yml a `by` that keeps together what belongs together, or take the rows out by hand"
NOUNS = {
    "exact": "the text, word for word,",
    "normalised": "the text, but for spaces, punctuation and widths,",
    "near": "most of the text",
    "person": "a person",
    "group": "a value of '{}'",
    "id": "the id",
}


def made_paths(task: Task, source: Path) -> list[Path]:
    """Find the files that regenerate made of a regression's raw folder.

    Raises:
        UserError: Some are missing, or they were made of another folder.
    """
    path = task.segments_path if task.is_chat else task.rows_path
    paths = [*map(path, task.raw_sets), task.test_path("input")]
    redo = f"run uv run tools/regenerate_segments.py {task.name} --source {relative(source)}"
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError([f"{relative(path)}: no such file; {redo}" for path in missing])
    made_of = read_record(task.outputs / "state" / "regenerate.json").get("source")
    if made_of != relative(source):
        raise UserError(f"--source {relative(source)}: data/train was made from {made_of}; {redo}")
    return paths


def raw_paths(task: Task, source: Path) -> list[Path]:
    """Find every raw file of a task; of a regression, what was made of them.

    Raises:
        UserError: Some are missing.
    """
    if task.estimates or task.is_chat:
        return made_paths(task, source)
    found, problems = rawfiles.files(task, source)
    paths = [file.path for file in found]
    if not any(rawfiles.TEST in file.shares for file in found):
        for name in task.spec["data"]["test"].values():
            try:
                paths.append(rawfiles.find(task, source, name))
            except UserError as error:
                problems += error.problems
    if problems:
        raise UserError(problems)
    return paths


def make_step(task: Task, source: Path, threshold: float, drop: bool) -> Step:
    """Name what the findings depend on."""
    inputs: dict[str, Any] = {
        **{relative(path): path for path in [*raw_paths(task, source), Path(__file__)]},
        "code": code_digest(),
        "data": task.spec["data"],
        "gold": task.spec.get("gold"),
        "prompt": task.spec.get("prompt"),
        "options": [str(source), threshold, drop],
    }
    names = ["report.json", "leaks.txt", *(["dropped.jsonl", "clean"] if drop else [])]
    return Step(task.outputs, "leaks", inputs, [task.outputs / "leaks" / name for name in names])


def examine(task: Task, source: Path, threshold: float, drop: bool) -> dict[str, Any]:
    """Look for leaks and write what was found; returns what report.json says.

    Raises:
        UserError: Raw files are missing or broken, or something cannot be written.
    """
    folder = task.outputs / "leaks"
    if drop and task.kind != "extraction":
        raise UserError(f"--drop: rows of a {task.kind} are made anew from whole files; {REMEDY}")
    if drop and source.is_relative_to(folder.resolve()):
        raise UserError(f"--source {relative(source)}: what leaks is dropped from there already; name the raw folder")
    ignored = task.spec["data"].get("leaks", {}).get("ignore", [])
    try:
        corpus = Corpus(task, source)
        with progress("read", sum(count_lines(path) or 0 for path in raw_paths(task, source))) as advance:
            corpus.fill(advance)
    except OSError as error:
        what = f"cannot be written, {error.strerror}; the texts are kept there meanwhile, so make room"
        raise UserError(f"{relative(task.outputs)}: {what}") from None
    with progress("compare", 6) as advance:
        found = search(corpus, threshold, advance)
    report = summary(corpus, found, threshold, ignored)
    if drop:
        report["dropped"] = write_copies(corpus, found, ignored, folder)
    write_list(corpus, found, folder / "leaks.txt")
    runs.write_text(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    return report


def table(report: Mapping[str, Any]) -> Table:
    """Lay the counts out: two splits a row, a kind a column."""
    kinds = list(dict.fromkeys(entry["kind"] for entry in report["between"]))
    grid = Table("rows of -> that are in", *kinds, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in grid.columns[1:]:
        column.justify = "right"
    counts = {(*entry["splits"], entry["kind"]): (entry["rows"], entry["leak"]) for entry in report["between"]}
    counts |= {(e["split"], e["split"], e["kind"]): (e["repeated"], False) for e in report["within"]}
    for left, right in dict.fromkeys(key[:2] for key in counts):
        name = f"{left}, repeated" if left == right else f"{left} -> {right}"
        cells = [counts.get((left, right, kind), ("", False)) for kind in kinds]
        grid.add_row(
            name, *(Text(f"{count:,}" if count != "" else "", "bold red" if leak else "") for count, leak in cells)
        )
    return grid


def shared(report: Mapping[str, Any], right: str) -> list[str]:
    """Say in a line each what other splits share with one."""
    entries = [
        e for e in report["between"] if e["splits"][1] == right and e["rows"] and e["kind"] not in report["ignored"]
    ]
    nouns = [NOUNS[entry["kind"]].format(report["group"]) for entry in entries]
    return [
        f"{entry['splits'][0]} -> {right}: {entry['rows']:,} rows share {noun} with {entry['of']:,} rows"
        for entry, noun in zip(entries, nouns, strict=True)
    ]


def tell(report: Mapping[str, Any], folder: Path, allowed: bool, state: str, can_drop: bool) -> None:
    """Show what was found, the worst of it and what to do."""
    go_on = f"SOURCE={relative(folder / 'clean')} uv run bash train_all.sh {report['task']}"
    show(table(report))
    for pair in report["worst"]:
        alike = "" if pair["alike"] is None else f" {pair['alike']:.2f}"
        show(f"{pair['kind']}{alike}: {'  '.join(pair['rows'])}")
        for line in pair["text"]:
            show(f"    {line}", log=False)
    for problem in shared(report, "test"):
        show(f"{'warning' if allowed else 'error'}: {problem}", style="yellow" if allowed else "bold red")
    for problem in shared(report, "validation"):
        show(f"warning: {problem}; the validation loss flatters", style="yellow")
    if "dropped" in report:
        rows = sum(report["dropped"].values())
        show(f"leaks: {relative(folder / 'clean')} holds the raw files without {rows:,} rows; go on with:")
        show(f"    {go_on}")
    elif report["leaks"] and not can_drop:
        show(f"leaks: {report['leaks']:,} rows of training and validation leak into the test set; {REMEDY}")
        show("or go on with them: --allow-leaks (train_all.sh: LEAKS=allow)")
    elif report["leaks"]:
        show(f"leaks: {report['leaks']:,} rows of training and validation leak into the test set; go on without them:")
        options = f"--source {report['source']} --threshold {report['threshold']:g}"
        show(f"    uv run tools/leaks.py {report['task']} {options} --drop")
        show(f"    {go_on}")
        show("or with them: --allow-leaks (train_all.sh: LEAKS=allow)")
    if not report["leaks"]:
        show("leaks: none into the test set", style="green")
    show(f"leaks: {state} {relative(folder)}")


def leaks(
    task: str,
    source: Annotated[
        Path | None, typer.Option(help="raw folder; default data/raw/TASK, else data/samples/TASK")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.1, max=1, help="Jaccard of near texts; default data.leaks, else 0.8")
    ] = None,
    drop: Annotated[bool, typer.Option(help="write raw files without what leaks to outputs/TASK/leaks/clean")] = False,
    allow_leaks: Annotated[bool, typer.Option(help="warn only")] = False,
) -> None:
    """Look for what the splits of a task share; exit 1 where it is in the test set."""
    recipe = load_task(task)
    folder = source.resolve() if source else recipe.source_dir
    log_to("leaks", recipe.outputs)
    least = threshold or recipe.spec["data"].get("leaks", {}).get("threshold", THRESHOLD)
    step = make_step(recipe, folder, least, drop)
    path = recipe.outputs / "leaks" / "report.json"
    if step.done():
        report, state = json.loads(path.read_text(encoding="utf-8")), "up to date:"
    else:
        report, state = examine(recipe, folder, least, drop), "written to"
        step.record(leaks=report["leaks"])
    tell(report, path.parent, allow_leaks, state, recipe.kind == "extraction")
    if report["leaks"] and not allow_leaks:
        raise typer.Exit(1)


if __name__ == "__main__":
    main(leaks)
