"""What a task's data is like, before anything is trained on it: a page to look at, and its numbers for machines.

    uv run tools/report_data.py hawks                          # outputs/hawks/data/report.html and report.json
    uv run tools/report_data.py hawks --profile gpu            # with the production tokenizer and sequence_len
    uv run tools/report_data.py hawks --limit 10000            # a sample of each training file

Reads data/train/*_segments.jsonl and data/test/, as regenerate_segments.py makes them. Personal names are hidden unless
--names is given. What is counted, and how: docs/report_data.md.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from plan import choose_profile
from recipekit import data_report, hub, runs
from recipekit.console import log_to, main, progress, show
from recipekit.data_stats import Meter
from recipekit.data_summary import Counted, summary
from recipekit.data_warnings import look_first
from recipekit.errors import UserError
from recipekit.joining import count_lines
from recipekit.kinds import need_extraction
from recipekit.resolve import resolve
from recipekit.rowcheck import load_tokenizer, tokenizer_name
from recipekit.runs import relative
from recipekit.segmentcheck import REDO
from recipekit.segments import count_tokens
from recipekit.task import Task, load_task

SHOWN = 8  # warnings on the screen


def data_paths(task: Task) -> list[Path]:
    """Name the files that are read.

    Raises:
        UserError: Some are missing; all of them at once.
    """
    train = [task.segments_path(name) for name in task.spec["data"]["train"]]
    names = task.spec["data"]["train"]
    mixes = [task.segments_path(n).with_suffix(".manifest.json") for n in names if n not in task.raw_sets]
    paths = [*train, task.test_path("input")]
    needed = [*paths, *mixes, task.test_path("gold")]
    if missing := [path for path in needed if not path.exists()]:
        raise UserError([f"{relative(path)}: no such file; {REDO.format(task.name)}" for path in missing])
    return paths


def read(task: Task, profile: str, limit: int | None, seed: int, names: bool) -> tuple[Counted, dict[str, Any]]:
    """Count all data of a task.

    Returns:
        What was counted, and the content of report.json.
    """
    configs = {phase: resolve(task, phase, profile) for phase in task.phases}
    paths = data_paths(task)
    first = configs[task.phases[0]]
    name = tokenizer_name(first)
    tokenizer = load_tokenizer(task.root, name, first.get("revision_of_model"), hub.find_token(task.root))
    meter = Meter(task, tokenizer, limit, seed)
    rows = [count_lines(path) or 0 for path in paths]
    total = sum(min(n, limit or n) for n in rows[:-1]) + rows[-1]
    problems: list[str] = []
    sets = {}
    with progress("report", total) as advance:
        for each in task.spec["data"]["train"]:
            try:
                sets[each] = meter.training(each, advance)
            except UserError as error:
                problems += error.problems
        try:
            test = meter.test(advance)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    counted = Counted(task, configs, sets, test, names, limit, seed)
    report = summary(counted, name, sum(count_tokens(tokenizer, task.render(""))))
    return counted, {"profile": profile, "warnings": look_first(report), **report}


def table(report: Mapping[str, Any]) -> Table:
    """Lay out the lengths of each data set."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("data set", "rows", "positives", "tokens p50", "p99", "max", "over", "trained"):
        grid.add_column(heading, justify="left" if heading == "data set" else "right")
    for name, found in {**report["datasets"], "test": report["test"]}.items():
        numbers = (found["rows"], found["positives"], *(found["tokens"][key] for key in ("p50", "p99", "max")))
        over = f"{found['over']:,}" if "over" in found else ""
        trained = f"{found['trained']['share']:.1%}" if "trained" in found else ""
        grid.add_row(name, *(f"{number:,}" for number in numbers), over, trained)
    return grid


def report_data(
    task: str,
    output: Annotated[Path | None, typer.Option(help=".html file; default outputs/TASK/data/report.html")] = None,
    profile: Annotated[str, typer.Option(help="auto, cpu or gpu: whose tokenizer and sequence_len count")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="rows of each training file, drawn at random")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of every draw")] = 0,
    names: Annotated[bool, typer.Option(help="show personal names, which are hidden otherwise")] = False,
) -> None:
    """Write a report of a task's data: report.html, and its numbers in report.json beside it."""
    recipe = load_task(task)
    need_extraction(recipe, "report_data", f"uv run tools/check.py {task} --profile cpu counts rows and tokens")
    log_to("report_data")
    path = output or recipe.outputs / "data" / "report.html"
    if path.suffix != ".html" or path.is_dir():
        raise UserError(f"--output {path}: expected the name of an .html file; report.json goes beside it")
    counted, report = read(recipe, choose_profile(profile)[0], limit, seed, names)
    html = data_report.render(counted, report)
    runs.write_text(path, html)
    runs.write_text(path.with_suffix(".json"), json.dumps(report, ensure_ascii=False, indent=2) + "\n")
    show(table(report))
    for warning in report["warnings"][:SHOWN]:
        show(f"look at: {warning['en']}", style="yellow")
    if len(report["warnings"]) > SHOWN:
        show(f"look at: {len(report['warnings']) - SHOWN} more in the report", style="yellow")
    sampled = f" (a sample: at most {limit:,} rows a file)" if report["limit"] else ""
    show(f"report: written to {relative(path)} and {path.with_suffix('.json').name}{sampled}")


if __name__ == "__main__":
    main(report_data)
