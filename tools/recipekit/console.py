"""What a command shows: its own lines and progress on the screen, everything else in the step's log.

With LOG_DIR set (train_all.sh sets it), file descriptors 1 and 2 are led into $LOG_DIR/<step>.log before any library is
imported, so that warnings and config dumps of libraries, and of child processes, never reach the screen.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recipekit.errors import UserError
from recipekit.own_secrets import scrub, without_secrets

console = Console(stderr=True, highlight=False)
_log: Console | None = None
_log_path: Path | None = None


def main(command: Callable[..., None]) -> None:
    """Run a function as the program; a UserError becomes lines on stderr and exit code 2.

    What libraries wrote into the log loses this machine's tokens and passwords at the end.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    try:
        _run(app)
    finally:
        if _log_path:
            scrub(_log_path)


def _run(app: typer.Typer) -> None:
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            show(f"error: {problem}", style="bold red")
        sys.exit(2)
    except KeyboardInterrupt:
        show("stopped; run the same command again to go on", style="yellow")
        sys.exit(130)
    except Exception as error:
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        if _log:
            show(f"error: {type(error).__name__}: {error}; the traceback is in {_log_path}", style="bold red")
        sys.exit(1)


def log_to(step: str) -> None:
    """Lead the output of libraries and child processes into $LOG_DIR/<step>.log; without LOG_DIR, do nothing."""
    global _log, _log_path
    if not os.environ.get("LOG_DIR") or _log is not None:
        return
    path = _log_path = Path(os.environ["LOG_DIR"]) / f"{step}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    screen = os.fdopen(os.dup(2), "w", encoding="utf-8")
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    console.file = screen
    console._force_terminal = screen.isatty()
    _log = Console(file=sys.stderr, force_terminal=False, width=140, highlight=False)


def show(renderable: RenderableType, style: str | None = None, *, log: bool = True) -> None:
    """Print a line, table or panel on the screen and, where there is one, in the step's log; lines without secrets.

    Args:
        renderable: What to print.
        style: As rich names it.
        log: Whether it goes into the log, too; what quotes data does not, for logs are kept and passed on.
    """
    soft = isinstance(renderable, str)
    if isinstance(renderable, str):
        renderable = without_secrets(renderable)
    for target in filter(None, (console, _log if log else None)):
        target.print(renderable, style=style, markup=False, soft_wrap=soft)


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[..., Any]]:
    """Show a bar with count, elapsed and remaining time; yields `advance(n=1, total=None, note="")`.

    `advance(n)` moves the bar by n; `advance(0, total=...)` sets the total once it is known; note is shown at the end.
    """
    columns = [
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total, note="")

        def advance(n: int = 1, total: int | None = None, note: str | None = None) -> None:
            bar.update(task, advance=n, total=total)
            if note is not None:
                bar.update(task, note=note)

        yield advance
