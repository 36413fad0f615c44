"""A run at a glance, while it runs and after: steps, progress, loss, speed, time left, last checkpoint, disk left.

    uv run tools/status.py              # every task under outputs/
    uv run tools/status.py hawks        # one; ends by itself when the run has ended
    uv run tools/status.py hawks --json

It only reads, so look as often as you like, from any terminal of the machine that the run is on.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recipekit import ROOT
from recipekit.console import console, main
from recipekit.errors import UserError
from recipekit.status import DONE, FAILED, INTERRUPTED, RUNNING, UP_TO_DATE, WAITING, look

STYLES = {DONE: "green", UP_TO_DATE: "green", RUNNING: "bold cyan", FAILED: "bold red"}
STYLES |= {INTERRUPTED: "yellow", WAITING: "dim"}
EVERY = 2  # seconds


def tasks(name: str | None, root: Path) -> list[tuple[Path, list[str] | None]]:
    """Return folders under outputs/ and, where they are known, the names of the task's steps.

    Raises:
        UserError: There is no such task, or nothing has run yet.
    """
    if name is None:
        found = sorted(
            path for path in (root / "outputs").glob("*") if (path / "state").is_dir() or (path / "run.json").exists()
        )
        if not found:
            raise UserError("outputs/: nothing has run here yet; run: uv run bash train_all.sh")
        return [(path, None) for path in found]
    outputs = root / "outputs" / name.replace(":", "_")
    if "/" not in name and (outputs / "run.lock").exists():
        return [(outputs, None)]
    from recipekit.pipeline import steps  # which reads recipes, and takes its time
    from recipekit.task import load_task

    task = load_task(name, root)
    return [(task.outputs, list(steps(task)))]


def span(seconds: float | None) -> str:
    """Write a duration in one form whatever its size."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def detail(step: dict[str, Any]) -> str:
    """Say in a line what more is known of a step."""
    words = []
    if (at := step["progress"]) is not None:
        words = [f"step {at['step']} of {at['of']} ({at['share']:.0%})"]
        words += [f"{name} {at[key]:.4f}" for name, key in (("loss", "loss"), ("eval loss", "eval_loss")) if at[key]]
        if step["state"] == RUNNING:
            words += [f"{at['rows_per_second']:.1f} rows/s"] if at["rows_per_second"] else []
            words += [f"{at['tokens_per_second']:,.0f} tokens/s"] if at["tokens_per_second"] else []
            words += [f"{span(at['seconds_left'])} left"] if at["seconds_left"] is not None else []
        if at["checkpoint"]:
            words += [f"{at['checkpoint']['name']}, {span(at['checkpoint']['age'])} old"]
    if step["state"] == RUNNING:
        words += [f"process {step['pid']}"]
    if step["state"] in (FAILED, INTERRUPTED):
        how = step["signal"] or f"exit code {step['exit']}"
        if step["exit"] is None:
            last = step["killed"][-1]["last_sign"]
            how = f"killed, or the machine stopped: no end was noted, last sign of life {last}"
        words = [how, *words, *([f"log {step['log']}"] if step["log"] else [])]
    elif step["killed"]:
        count = "" if len(step["killed"]) == 1 else f" {len(step['killed'])} times"
        words += [f"killed before{count}, last sign of life then {step['killed'][-1]['last_sign']}"]
    return "; ".join(words)


def shown(seen: dict[str, Any]) -> Group:
    """Draw what was seen of a task."""
    run = f"running, process {seen['pid']} since {seen['since']}" if seen["pid"] else "no train_all.sh is running"
    disk = f"; {seen['disk_free'] / 2**30:.1f} GiB left on the disk" if seen["disk_free"] is not None else ""
    logs = f"; logs in {seen['logs']}" if seen["logs"] else ""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for step in seen["steps"]:
        state = Text(step["state"], STYLES[step["state"]])
        table.add_row(Text(step["step"]), state, Text(span(step["seconds"]), justify="right"), Text(detail(step)))
    return Group(Text(f"{seen['task']}: {run}{logs}{disk}", "bold"), table)


def status(
    task: Annotated[str | None, typer.Argument(help="default: all under outputs/")] = None,
    once: Annotated[bool, typer.Option("--once", help="one look, also where a run is under way")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one look, as JSON on standard output")] = False,
) -> None:
    """Show how far runs are."""
    wanted = tasks(task, ROOT)

    def looks() -> list[dict[str, Any]]:
        return [look(*one) for one in wanted]

    seen = looks()
    if as_json:
        typer.echo(json.dumps(seen[0] if task else seen, ensure_ascii=False, indent=2))
        return
    with Live(Group(*map(shown, seen)), console=console, auto_refresh=False) as live:
        while console.is_terminal and not once and any(one["running"] for one in seen):
            time.sleep(EVERY)
            seen = looks()
            live.update(Group(*map(shown, seen)), refresh=True)


if __name__ == "__main__":
    main(status)
