"""Every problem of data files, raw rows and segments alike; and mended copies of them.

    uv run tools/validate.py data/raw/hawks/*.jsonl --task hawks
    uv run tools/validate.py my.jsonl --task hawks --fix        # writes my.fixed.jsonl and my.fixes.jsonl

Exit code 0 where there are no errors (with --fix: none in the copies), 1 where there are.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.findings import KINDS, Finding, listing
from recipekit.joining import count_lines
from recipekit.kinds import need_extraction
from recipekit.runs import relative
from recipekit.task import load_task
from recipekit.validation import Copy, Limit, Report, limit, percentiles, validate

STYLES = {"error": "bold red", "warning": "yellow"}


def targets(files: list[Path], fix: bool, drop: bool, output: Path | None, json: Path | None) -> list[Copy | None]:
    """Name the mended copies.

    Raises:
        UserError: A file is missing or no JSONL file, or a copy or `json` would stand in the place of another.
    """
    problems = [
        f"--{name}: only with --fix" for name, given in (("drop", drop), ("output", output)) if given and not fix
    ]
    copies: list[Copy | None] = []
    taken = {file.resolve() for file in files}
    for file in files:
        if not file.is_file():
            problems.append(f"{relative(file)}: no such file; check the name")
        elif file.suffix.lower() != ".jsonl":
            remedy = "tools/regenerate_segments.py checks .csv and .json; save others as one of these"
            problems.append(f"{relative(file)}: expected a name that ends in .jsonl; {remedy}")
        folder = output or file.parent
        name = f"{file.stem}.jsonl" if output else f"{file.stem}.fixed.jsonl"
        copy = Copy(folder / name, folder / f"{file.stem}.fixes.jsonl", drop)
        for path in (copy.path, copy.fixes) if fix else ():
            if path.resolve() in taken:
                problems.append(f"{relative(path)}: stands there as a file to check; name another --output")
            taken.add(path.resolve())
        copies.append(copy if fix else None)
    if json and json.resolve() in taken:
        problems.append(f"--json {json}: is a file to check, or one that --fix writes; name another")
    if problems:
        raise UserError(problems)
    return copies


def heading(report: Report, measure: Limit | None, copy: Copy | None) -> str:
    """Say what a file holds, how long its rows are and what became of it."""
    rows = ", ".join(f"{count:,} {kind} rows" for kind, count in report.rows.items()) or "no rows"
    text = f"{relative(report.path)}: {rows}"
    if measure and report.lengths:
        shown = ", ".join(f"{name} {value:,}" for name, value in percentiles(report.lengths).items())
        over = sum(count for length, count in report.lengths.items() if length > measure.tokens)
        text += f"; tokens: {shown}; {over:,} over {measure.tokens:,} ({measure.phase})"
    if copy:
        changed = f"{report.mended:,} things mended, {report.left_out:,} lines left out"
        text += f"\n  -> {relative(copy.path)}: {report.written:,} rows; {changed}, see {relative(copy.fixes)}"
    return text


def table(report: Report) -> Table:
    """Show what was found, a line a kind: how often, the first lines, and what is wrong with the first of them."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
    for title, justify in (
        ("", "left"),
        ("kind", "left"),
        ("count", "right"),
        ("lines", "left"),
        ("the first", "left"),
    ):
        grid.add_column(title, justify=justify, no_wrap=True, ratio=1 if title == "the first" else None)  # type: ignore[arg-type]
    for kind, (severity, title) in KINDS.items():
        if count := report.tally.counts.get(kind):
            first = report.tally.first[kind]
            lines = ", ".join(map(str, dict.fromkeys(finding.line for finding in first)))
            cells = (title, f"{count:,}", lines + (" ..." if count > len(first) else ""), str(first[0]))
            grid.add_row(Text(severity, STYLES[severity]), *map(Text, cells))
    return grid


def summary(report: Report, measure: Limit | None, copy: Copy | None) -> dict[str, Any]:
    """Say in JSON what a file came to."""
    found: dict[str, Any] = {"file": relative(report.path), "rows": report.rows, "kinds": report.tally.counts}
    if measure:
        found["tokens"] = percentiles(report.lengths)
        found["over"] = sum(count for length, count in report.lengths.items() if length > measure.tokens)
    if copy:
        found["copy"] = {"file": relative(copy.path), "rows": report.written, "left_out": report.left_out}
    return found | {"errors": report.left}


def command(
    files: Annotated[list[Path], typer.Argument(help="JSONL files: raw rows, segments, or both")],
    task: Annotated[str, typer.Option(help="the task that they are for")],
    profile: Annotated[Literal["cpu", "gpu"], typer.Option(help="whose sequence_len and tokenizer count")] = "cpu",
    tokens: Annotated[bool, typer.Option(help="measure rows in tokens")] = True,
    fix: Annotated[bool, typer.Option("--fix", help="write mended copies, FILE.fixed.jsonl")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="with --fix: leave out what cannot be mended")] = False,
    output: Annotated[Path | None, typer.Option(help="with --fix: folder of the copies")] = None,
    json: Annotated[Path | None, typer.Option(help="write everything that was found to this file")] = None,
    every: Annotated[bool, typer.Option("--all", help="show everything that was found")] = False,
) -> None:
    """Find every problem of data files; exit 1 where there are errors."""
    recipe = load_task(task)
    redo = f"uv run tools/regenerate_segments.py {task} names every wrong raw row, tools/check.py every wrong row made"
    need_extraction(recipe, "validate", redo)
    copies = targets(files, fix, drop, output, json)
    measure = limit(recipe, profile) if tokens else None
    log_to("validate")
    left = 0
    with listing(json) as found:

        def note(path: Path, finding: Finding) -> None:
            if found:
                found.add(path, finding)
            if every:
                show(f"{relative(path)}:{finding.line}: {finding.severity}: {finding}")

        summaries = []
        for file, copy in zip(files, copies, strict=True):
            with progress("validate", count_lines(file)) as advance:
                report = validate(recipe, file, measure, note, advance, copy)
            show(heading(report, measure, copy))
            if report.tally.counts:
                show(table(report))
            left += report.left
            summaries.append(summary(report, measure, copy))
        if found:
            limits = {"profile": profile, "sequence_len": measure.tokens, "phase": measure.phase} if measure else {}
            found.end({"task": task, **limits, "files": summaries})
    if left:
        remedy = "--drop leaves such rows out" if fix else "--fix mends what can be mended"
        show(f"validate: {left:,} error(s){' left' if fix else ''}; --all shows each, {remedy}", "bold red")
        raise typer.Exit(1)
    show("validate: no errors")


if __name__ == "__main__":
    main(command)
