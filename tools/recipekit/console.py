"""What a command shows: its own lines and progress on the screen, everything else in the step's log.

With LOG_DIR set (train_all.sh sets it), file descriptors 1 and 2 are led into $LOG_DIR/<step>.log before any library is
imported, so that warnings and config dumps of libraries, and of child processes, never reach the screen.
"""

import errno
import gc
import io
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from recipekit import journal
from recipekit.errors import UserError
from recipekit.own_secrets import scrub, without_secrets

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
FULL_DISK = re.compile("No space left on device|Disk quota exceeded|File too large|Read-only file system")
MEND_DISK = "make room there, or see to its rights, and run the same command again; it goes on where it stopped"
CLEAN_SECONDS = 1
GC_THRESHOLD = 100_000  # at Python's 700, a quarter of the time that imports take goes into collecting nothing
STOPPED = (129, 130, 143)  # exit codes after SIGHUP, SIGINT and SIGTERM
console = Console(stderr=True, highlight=False)
_log: Console | None = None
_log_path: Path | None = None
_step: str | None = None


class _LogFile(io.FileIO):
    """A log: where its disk is full, its lines are lost, and nothing else."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def main(*commands: Callable[..., None], **settings: Any) -> None:
    """Run a function as the program, or one of several by name; a UserError becomes lines on stderr and exit code 2.

    What libraries wrote into the log loses this machine's tokens and passwords every second, and at the end.

    Args:
        commands: What to run; its parameters are the command line's.
        settings: For typer's `command`.
    """
    gc.set_threshold(GC_THRESHOLD)
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)  # what importing torchao makes it say
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    for command in commands:
        app.command(**settings)(command)
    for number in (signal.SIGTERM, signal.SIGHUP):  # end as Ctrl-C does: tidy up, and note it in the journal
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
            os.register_at_fork(after_in_child=partial(signal.signal, number, signal.SIG_DFL))
    code = 1
    try:
        code = _exit_code(app)
    finally:
        if _log_path:
            _try(partial(scrub, _log_path), f"{_log_path} could not be freed of secrets")
        _try(partial(journal.end, code), "how this step ended could not be noted")
    sys.exit(code)


def _try(last: Callable[[], object], trouble: str) -> None:
    try:
        last()
    except (UserError, OSError) as error:
        show(f"warning: {trouble}: {error}", style="yellow")


def _exit_code(app: Callable[[], Any]) -> int:
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code in STOPPED:
            show("stopped; run the same command again to go on", style="yellow")
        return code
    except journal.WouldRun as would:
        show(str(would))
    except UserError as error:
        if earlier := journal.stale():
            more = f" (and {len(error.problems) - 1} more)" if error.problems[1:] else ""
            show(f"{_step}: would run after {earlier[0]}, as it cannot before: {error.problems[0]}{more}")
            return 0
        for problem in error.problems:
            show(f"error: {problem}", style="bold red")
        return 2
    except Exception as error:
        if disk := _disk_problem(error):
            show(f"error: {disk}", style="bold red")
            return 2
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
        if _log:
            show(f"error: {type(error).__name__}: {error}; the traceback is in {_log_path}", style="bold red")
        return 1
    return 0


def _disk_problem(error: BaseException | None) -> str | None:
    """Say what a disk that is full or may not be written did to a step, whichever library met it; None: nothing."""
    while error is not None:
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            return f"{place}cannot be written, {error.strerror}; {MEND_DISK}"
        if found := FULL_DISK.search(str(error)):
            return f"a file cannot be written, {found[0]}; {MEND_DISK}"
        error = error.__cause__ or error.__context__
    return None


def log_to(step: str, outputs: Path | None = None) -> None:
    """Lead the output of libraries and child processes into $LOG_DIR/<step>.log; without LOG_DIR, do nothing.

    Args:
        step: A step of the pipeline, or another command's name.
        outputs: The task's folder under outputs/, where this is a step whose start and end the run's journal notes.
    """
    global _log, _log_path, _step
    path = Path(os.environ["LOG_DIR"]) / f"{step}.log" if os.environ.get("LOG_DIR") else None
    if outputs:
        _step = step
        journal.enter(outputs, step, path)
    if path is None or _log is not None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise UserError(f"{path}: cannot be written, {error.strerror}; make room there, or set LOG_DIR") from None
    _log_path = path
    screen = os.fdopen(os.dup(2), "w", encoding="utf-8")
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(_LogFile(stream, "ab", closefd=False), "utf-8", "backslashreplace", write_through=True)
        for stream in (1, 2)
    )
    console.file = screen
    console._force_terminal = screen.isatty()
    _log = Console(file=sys.stderr, force_terminal=False, width=140, highlight=False)
    threading.Thread(target=_keep_clean, args=(path,), daemon=True).start()


def _keep_clean(log: Path) -> None:
    """Free a log of secrets as it grows: who is killed does it at no end."""
    clean, size = 0, -1
    while True:
        with suppress(OSError):
            if (now := log.stat().st_size) != size:
                clean, size = scrub(log, clean), now
        time.sleep(CLEAN_SECONDS)


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
    console.print(renderable, style=style, markup=False, soft_wrap=soft)
    if _log and log:
        _log.print(renderable, style=style, markup=False, soft_wrap=soft)


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
