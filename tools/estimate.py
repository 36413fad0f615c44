"""How long a recipe trains, what that costs, and whether it fits the GPU, phase by phase, before the money is spent.

    uv run tools/estimate.py hawks --machine ml.g5.xlarge
    uv run tools/estimate.py hawks --steps-per-second phase1=0.5 --steps-per-second phase2=0.4-0.6

Steps come from the recipe, steps a second from a run of the phase here, finished or going on, or from
--steps-per-second; without either, the time that task.yml expects is taken, and said so. Prices: recipes/prices.yml.
Memory is predicted by a formula (docs/memory.md) that was not held against a GPU.
"""

import json
import math
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from recipekit.console import main, show
from recipekit.durations import Duration, Range, phase_duration
from recipekit.errors import UserError
from recipekit.fitting import Need, needs
from recipekit.memory import GB
from recipekit.prices import Machine, machine_for
from recipekit.task import Task, load_task

HOUR = 3600


def estimate(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    profile: Annotated[str, typer.Option(help="cpu or gpu")] = "gpu",
    machine: Annotated[str | None, typer.Option(help="One of recipes/prices.yml")] = None,
    steps_per_second: Annotated[
        list[str] | None, typer.Option(metavar="PHASE=X", help="Measured elsewhere; PHASE=X-Y for a range. Repeatable")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output")] = False,
) -> None:
    """Estimate time, cost and memory of a recipe."""
    recipe = load_task(task)
    found = machine_for(recipe, profile, machine)
    durations = phase_durations(recipe, profile, found, given_speeds(recipe, steps_per_second or []))
    memory, unknown = memory_needs(recipe, profile, found)
    if as_json:
        content = summary(recipe, profile, found, durations) | {"memory": memory_summary(memory)}
        print(json.dumps(content, ensure_ascii=False, indent=2))
        return
    show(f"{recipe.name}, profile {profile}, {found.describe()}")
    show(table(durations, found))
    for note in [note for duration in durations for note in duration.notes]:
        show(f"  {note}")
    show(
        "  training alone, from the start of each phase to its last step; prices are yours to check: recipes/prices.yml"
    )
    if memory:
        show(memory_table(memory))
        show(f"  GB of each GPU, predicted and not measured on one (docs/memory.md); {found.gpu} has {found.memory_gb}")
    for line in [f"{need.phase}: does not fit; {need.advice}" for need in memory if need.advice] + unknown:
        show(f"  {line}", style="yellow")


def memory_needs(task: Task, profile: str, machine: Machine) -> tuple[list[Need], list[str]]:
    """Predict the memory that each phase takes of a GPU; the second list says why it could not be predicted."""
    if profile != "gpu":
        return [], []
    try:
        return needs(task, machine), []
    except UserError as error:
        return [], error.problems


def memory_table(memory: list[Need]) -> Table:
    """Show a column a phase, its parts and whether it fits: there are more parts than a terminal has columns for."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    grid.add_column("phase", no_wrap=True)
    for need in memory:
        grid.add_column(need.phase, justify="right", no_wrap=True)
    for name in dict.fromkeys(name for need in memory for name in need.parts):
        grid.add_row(name, *(f"{need.parts[name] / GB:.1f}" if name in need.parts else "-" for need in memory))
    grid.add_row("together", *(f"{need.total / GB:.1f}" for need in memory))
    grid.add_row("", *("too much" if need.advice else "fits" for need in memory))
    return grid


def memory_summary(memory: list[Need]) -> list[dict[str, Any]]:
    """Put the needs of all phases into objects, in GB."""
    return [
        {
            "phase": need.phase,
            "gb": {name: round(value / GB, 3) for name, value in need.parts.items()},
            "total_gb": round(need.total / GB, 3),
            "limit_gb": round(need.limit / GB, 3),
            "fits": not need.advice,
            "advice": need.advice,
        }
        for need in memory
    ]


def given_speeds(task: Task, texts: list[str]) -> dict[str, Range]:
    """Read PHASE=X and PHASE=X-Y.

    Raises:
        UserError: An unknown phase, or no positive number; all that is wrong.
    """
    problems, speeds = [], {}
    for text in texts:
        phase, _, numbers = text.partition("=")
        try:
            values = [float(number) for number in numbers.split("-")]
        except ValueError:
            values = []
        if phase not in task.phases:
            problems.append(f"--steps-per-second {text}: no phase '{phase}'; they are {', '.join(task.phases)}")
        elif len(values) not in (1, 2) or not all(0 < value < math.inf for value in values):
            problems.append(f"--steps-per-second {text}: expected {phase}=X or {phase}=X-Y, with numbers over 0")
        else:
            speeds[phase] = Range(min(values), max(values))
    if problems:
        raise UserError(problems)
    return speeds


def phase_durations(task: Task, profile: str, machine: Machine, given: dict[str, Range]) -> list[Duration]:
    """Find how long each phase takes.

    Raises:
        UserError: What is not known, of all phases.
    """
    durations, problems = [], []
    for phase in task.phases:
        try:
            durations.append(phase_duration(task, phase, profile, machine.gpu, max(machine.gpus, 1), given))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return durations


def cost(seconds: Range, per_hour: float) -> Range:
    """Price a time, in USD."""
    return seconds.times(per_hour / HOUR)


def table(durations: list[Duration], machine: Machine) -> Table:
    """Show a line a phase, and their sum."""
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("phase", "steps", "steps/s", "hours", "cost", "spot", "from"):
        justify: Literal["left", "right"] = "left" if title in ("phase", "from") else "right"
        grid.add_column(title, justify=justify, no_wrap=title != "from", overflow="fold")

    def money(seconds: Range, per_hour: float | None) -> str:
        return "-" if per_hour is None else span(cost(seconds, per_hour), 2, "$")

    def row(phase: str, steps: str, speed: str, seconds: Range, source: str) -> None:
        hours = span(seconds.times(1 / HOUR), 1 if seconds.high >= HOUR else 2)
        prices = [money(seconds, per_hour) for per_hour in (machine.usd_per_hour, machine.spot_per_hour)]
        grid.add_row(phase, steps, speed, hours, *prices, source)

    for one in durations:
        steps = "?" if one.steps is None else f"{one.steps:,}"
        row(one.phase, steps, span(one.speed, 2) if one.speed else "?", one.seconds, one.source)
    row("together", "", "", total(durations), "")
    return grid


def total(durations: list[Duration]) -> Range:
    """Add the phases' seconds up."""
    return sum((duration.seconds for duration in durations), Range(0, 0))


def span(values: Range, digits: int, unit: str = "") -> str:
    """Write a range, or one number where both ends read the same: $2.21-3.68."""
    low, high = f"{values.low:.{digits}f}", f"{values.high:.{digits}f}"
    return unit + (low if low == high else f"{low}-{high}")


def summary(task: Task, profile: str, machine: Machine, durations: list[Duration]) -> dict[str, Any]:
    """Put everything into one object; a range is [low, high]."""

    def priced(seconds: Range) -> dict[str, Any]:
        spot = machine.spot_per_hour
        values = {
            "hours": seconds.times(1 / HOUR),
            "usd": cost(seconds, machine.usd_per_hour),
            "spot_usd": None if spot is None else cost(seconds, spot),
        }
        return {key: value and [round(value.low, 4), round(value.high, 4)] for key, value in values.items()}

    phases = [
        {
            "phase": one.phase,
            "steps": one.steps,
            "steps_per_second": one.speed and [one.speed.low, one.speed.high],
            "source": one.source,
            **priced(one.seconds),
            "notes": list(one.notes),
        }
        for one in durations
    ]
    together = priced(total(durations))
    return {"task": task.name, "profile": profile, "machine": asdict(machine), "phases": phases, "together": together}


if __name__ == "__main__":
    main(estimate)
