"""What train_all.sh is going to do: the profile and why, the data, the steps and how long each takes.

    uv run tools/plan.py hawks --profile auto

The plan goes to the screen; profile, kind of task and data ("cpu extraction sample") to standard output.
"""

import os
import shutil
import subprocess
from typing import Annotated

import typer
from rich.table import Table

from recipekit.console import main, show
from recipekit.errors import UserError
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
        run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
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
        on_hub = profile == "gpu" and "sources" in task.spec["data"]
        asked = "hub" if on_hub else "sample" if folders["sample"].is_dir() else "raw"
    if asked in folders and not folders[asked].is_dir():
        raise UserError(f"{relative(folders[asked])}: no such folder; put the task's raw data there")
    return asked


def steps(task: Task, phases: list[str], data: str) -> dict[str, str]:
    """Name each step of the pipeline and say what it does."""
    raw = {"hub": "HF Hub", "raw": f"data/raw/{task.spec['name']}", "sample": relative(task.sample_dir)}.get(data, data)
    training = {phase: f"LoRA, {relative(task.dir / phase)}.yml" for phase in phases}
    captions = {}
    if "captions" in task.spec["data"]:
        captions["caption"] = f"{raw} -> {relative(task.captioned_dir)}, pictures in words"
        raw = relative(task.captioned_dir)
    return {
        **captions,
        "regenerate": f"{raw} -> data/train, data/test",
        "leaks": "what training shares with the test set",
        "check": "environment, YAMLs, data and masks",
        **training,
        "merge": f"adapter of {phases[-1]} + base -> outputs/{task.slug}/merged",
        **({"baselines": "constant mean, ridge on TF-IDF ..."} if task.estimates else {}),
        "predict": "merged model on the test set",
        "evaluate": "predictions against the gold CSV",
        "card": f"outputs/{task.slug}/README.md",
        "upload": "merged model to the HF Hub, where a token and a repository are named",
    }


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


def plan(
    task: str,
    profile: Annotated[str, typer.Option(help="auto, cpu or gpu")] = "auto",
    data: Annotated[str, typer.Option(help="auto, hub, raw, sample or a folder")] = "auto",
) -> None:
    """Show the plan of a task's pipeline; print profile, kind, whether there are pictures, and data."""
    recipe = load_task(task)
    phases = recipe.phases
    chosen, reason = choose_profile(profile)
    source = choose_data(recipe, chosen, data)
    show(f"{recipe.title}: profile {chosen} ({reason}); logs in {os.environ.get('LOG_DIR', 'logs/')}", style="bold")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("step", "what", "time"):
        table.add_column(heading, header_style="dim")
    for name, what in steps(recipe, phases, source).items():
        table.add_row(name, what, times(recipe, chosen, name))
    show(table)
    typer.echo(f"{chosen} {recipe.kind} {'yes' if 'captions' in recipe.spec['data'] else 'no'} {source}")


if __name__ == "__main__":
    main(plan)
