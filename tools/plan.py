"""What train_all.sh is going to do: the profile and why, the data, the steps and how long each takes.

    uv run tools/plan.py hawks --profile auto

train_all.sh itself begins with this, with --start: here its options are read, the task's lock is taken and old logs are
pruned; then this process becomes train_all.sh, with what is to be done in the environment.
"""

import os
import shutil
import signal
import subprocess
import time
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from recipekit import ROOT, journal
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.pipeline import choose, steps, training
from recipekit.process import hold
from recipekit.runs import read_record, relative
from recipekit.task import Task, load_task


def choose_profile(asked: str) -> tuple[str, str]:
    """Return the profile and the reason for it.

    Raises:
        UserError: The asked profile does not exist.
    """
    if asked not in ("auto", "cpu", "gpu"):
        raise UserError(f"PROFILE: found '{asked}', expected auto, cpu or gpu")
    if asked != "auto":
        return asked, f"PROFILE={asked} was given"
    if shutil.which("nvidia-smi"):
        try:
            run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
        except subprocess.TimeoutExpired:
            return "cpu", "nvidia-smi gave no answer in 60 s: look at the driver, or PROFILE=gpu overrides"
        gpus = run.stdout.strip().splitlines()
        if run.returncode == 0 and gpus:
            return "gpu", f"nvidia-smi lists {len(gpus)} GPU(s): {gpus[0].split(' (UUID')[0]}"
        return "cpu", "nvidia-smi is there but lists no GPU"
    return "cpu", "no GPU here (no nvidia-smi); PROFILE=gpu overrides"


def choose_data(task: Task, profile: str, asked: str) -> str:
    """Return where raw data come from: "hub", "raw" (data/raw/<task>), "sample" (data/samples/<task>) or a folder.

    Raises:
        UserError: The asked data do not exist.
    """
    folders = {"raw": task.root / "data" / "raw" / task.spec["name"], "sample": task.sample_dir}
    if asked not in ("auto", "hub", *folders):
        if not (task.root / asked).is_dir():
            raise UserError(f"'{asked}': expected DATA=auto, hub, raw or sample, or SOURCE=FOLDER with the raw data")
        return asked
    if asked == "auto":
        real = "hub" if "sources" in task.spec["data"] else "raw" if folders["raw"].is_dir() else "sample"
        asked = real if profile == "gpu" else "sample"
        if asked == "sample" and not folders["sample"].is_dir():
            asked = "raw"
    if asked in folders and not folders[asked].is_dir():
        raise UserError(f"{relative(folders[asked])}: no such folder; put the task's raw data there")
    return asked


def minutes(seconds: float) -> str:
    """Write a duration the way a person says it."""
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def times(task: Task, profile: str, name: str) -> str:
    """Say how long a step took last time on this profile, or is expected to take."""
    record = read_record(task.outputs / "state" / f"{name}.json")
    if record.get("seconds") is not None and record.get("profile", profile) == profile:
        return f"{minutes(record['seconds'])} (last time)"
    expected = task.spec.get("expected_seconds", {}).get(profile, {}).get(name)
    return f"about {minutes(expected)}" if expected is not None else "not known yet"


def force(task: Task, names: list[str]) -> None:
    """Forget that steps are done: their records go, and what a phase began with, so that it does not go on."""
    for name in names:
        (task.outputs / "state" / f"{name}.json").unlink(missing_ok=True)
        (task.outputs / name / "started.json").unlink(missing_ok=True)


def show_plan(task: Task, profile: str, data: str, names: list[str]) -> None:
    """Show the steps, what each does and how long it takes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("step", "what", "time"):
        table.add_column(heading, header_style="dim")
    for name, what in steps(task, data).items():
        if name in names:
            table.add_row(name, what, times(task, profile, name))
    show(table)


def start(environment: dict[str, str]) -> None:
    """Become train_all.sh, which runs the steps; a lock that this process holds stays held, also by each step."""
    os.environ.update(environment | {journal.RUN: str(os.getpid())})
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and a shell would then, too
    os.execvp("bash", ["bash", "train_all.sh", environment["TASK"]])  # noqa: S606 (a shell is what it becomes)


def dry_run(environment: dict[str, str]) -> int:
    """Let every step say what it would do; nothing is written but to a folder that goes away."""
    with TemporaryDirectory() as folder:
        steps_run = subprocess.Popen(
            ["bash", "-c", f'export {journal.RUN}=$$; exec bash train_all.sh "$TASK"'],
            env=os.environ | environment | {journal.DRY_RUN: folder, "LOG_DIR": folder},
            cwd=ROOT,
        )
        return steps_run.wait()


def plan(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[TASK]", help="default hawks")] = None,
    profile: Annotated[str, typer.Option(envvar="PROFILE", help="auto, cpu or gpu")] = "auto",
    data: Annotated[str, typer.Option(envvar="DATA", help="auto, hub, raw or sample")] = "auto",
    source: Annotated[str | None, typer.Option(envvar="SOURCE", help="a folder with the raw data")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="STEP", help="this step and those after it")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="STEP", help="this step; can be repeated")] = None,
    force_: Annotated[bool, typer.Option("--force", help="run steps although they are up to date")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="say what would run, and why; write nothing")] = False,
    run: Annotated[bool, typer.Option("--start", hidden=True, help="go on as train_all.sh")] = False,
) -> None:
    """Run a task from raw data to a scored, published model, or show the plan of that."""
    task = load_task(task_name(arguments or []))
    chosen, reason = choose_profile(profile)
    where = choose_data(task, chosen, source or data)
    pipeline = list(steps(task, where))
    names = choose(pipeline, first, only or [])
    logs = os.environ.get("LOG_DIR") or time.strftime("logs/%Y%m%d_%H%M%S")
    environment = {
        "TASK": task.name,
        "PROFILE": chosen,
        "DATA": where,
        "CAPTIONS": "yes" if "captions" in task.spec["data"] else "no",
        "PHASES": " ".join(training(task)),
        "STEPS": " ".join([*names, *(["summary"] if "evaluate" in names and not dry else [])]),
        "LOG_DIR": logs,
    }
    title = f"{task.title}: profile {chosen} ({reason})"
    if dry and not force_:
        show(f"{title}; a dry run, nothing is written", style="bold")
        raise typer.Exit(dry_run(environment))
    if dry or not run:
        show(f"{title}{'; --force: these run all' if force_ else ''}", style="bold")
        show_plan(task, chosen, where, names)
        return
    facts = {"command": ["train_all.sh"], "logs": logs, "steps": names, "pipeline": pipeline}
    with hold(task.outputs / "run.lock", f"a run of {task.name}", **facts) as lock:
        show(f"{title}; logs in {logs}", style="bold")
        show_plan(task, chosen, where, names)
        journal.prune_logs(task.root)
        if force_:
            force(task, names)
        os.set_inheritable(lock.fileno(), True)
        start(environment)


def task_name(arguments: list[str]) -> str:
    """Find the task among what is no option.

    Raises:
        UserError: An unknown option, or more than a task.
    """
    wrong = [argument for argument in arguments if argument.startswith("-")] or arguments[1:]
    if wrong:
        usage = "expected [TASK] [--from STEP] [--only STEP] [--force] [--dry-run]"
        raise UserError(f"{wrong[0]}: {usage}; the steps of hawks are {', '.join(steps(load_task('hawks')))}")
    return arguments[0] if arguments else "hawks"


if __name__ == "__main__":
    main(plan, context_settings={"ignore_unknown_options": True})
