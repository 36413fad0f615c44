"""How long a phase trains: its steps, and how many a second, as measured, given or expected."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.joining import count_lines
from recipekit.resolve import data_files, resolve
from recipekit.runs import relative
from recipekit.task import Task

LEAST_STEPS = 8  # the first ones load data and compile kernels, so fewer say nothing
GUESS = (0.67, 1.5)  # what an expected time is multiplied by: it comes from another machine


@dataclass(frozen=True)
class Range:
    """The least and the greatest value."""

    low: float
    high: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Range":
        """Multiply both."""
        return Range(self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Speed:
    """Steps of a phase a second.

    Attributes:
        steps_per_second: Slowest and fastest.
        source: Where it comes from, for people.
        start: Seconds until the first step is done: loading, and an evaluation before it.
        notes: What to know about it.
    """

    steps_per_second: Range
    source: str
    start: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Duration:
    """How long a phase takes.

    Attributes:
        steps: Optimizer steps; None: not known.
        speed: How fast; None where only a whole time is expected.
        seconds: From the start to the last step.
        source: Where the time comes from, for people.
        notes: What to know about it.
    """

    phase: str
    steps: int | None
    speed: Range | None
    seconds: Range
    source: str
    notes: tuple[str, ...]


def phase_duration(
    task: Task, phase: str, profile: str, gpu: str, processes: int, given: Mapping[str, Range]
) -> Duration:
    """Find how long a phase takes.

    Args:
        task: The task.
        phase: One of its phases.
        profile: "cpu" or "gpu".
        gpu: The GPU that it is to train on; "" for none.
        processes: How many train at once, one a GPU.
        given: Steps a second of phases, as the user knows them.

    Raises:
        UserError: Neither speed nor time of it is known, or its steps are not.
    """
    config = resolve(task, phase, profile)
    steps, notes = planned_steps(task, phase, config, processes)
    if phase in given:
        speed: Speed | None = Speed(given[phase], "given")
    else:
        speed = measured(task, phase, profile, gpu, rows_per_step(config) * processes)
    if speed is None:
        return _expected(task, phase, profile, steps, notes)
    if steps is None:
        paths = ", ".join(relative(path) for path in data_files(task, config))
        remedy = f"make them with: uv run tools/regenerate_segments.py {task.name}; or set max_steps"
        raise UserError(
            f"{phase}: no max_steps in its YAML, and {paths or 'its data files'} are not all here; {remedy}"
        )
    slow, fast = speed.steps_per_second.low, speed.steps_per_second.high
    seconds = Range(speed.start + steps / fast, speed.start + steps / slow)
    return Duration(phase, steps, speed.steps_per_second, seconds, speed.source, (*notes, *speed.notes))


def rows_per_step(config: Mapping[str, Any]) -> int:
    """Count the rows, or packed sequences, that one process sees in an optimizer step."""
    return config.get("micro_batch_size", 1) * config.get("gradient_accumulation_steps", 1)


def planned_steps(task: Task, phase: str, config: dict[str, Any], processes: int) -> tuple[int | None, tuple[str, ...]]:
    """Count the optimizer steps of a phase.

    Returns:
        max_steps where the YAML has it, else rows x epochs over rows a step, as transformers rounds it; None where a
        data file is missing; and what to know about it.
    """
    if config.get("max_steps", 0) > 0:
        return config["max_steps"], ()
    rows = 0.0
    for entry, path in zip(config.get("datasets", []), data_files(task, config), strict=False):
        if not path.is_file():
            return None, ()
        rows += count_lines(path) / entry.get("shards", 1)
    if not rows:
        return None, ()
    batches = math.ceil(math.ceil(rows) / (config.get("micro_batch_size", 1) * processes))
    steps = math.ceil(config.get("num_epochs", 1) * math.ceil(batches / config.get("gradient_accumulation_steps", 1)))
    packed = f"{phase}: rows are packed, so there are at most this many steps, and no more than one row a sequence"
    return steps, (packed,) if config.get("sample_packing") else ()


def measured(task: Task, phase: str, profile: str, gpu: str, rows: int) -> Speed | None:
    """Read how fast a run of the phase is, or was, here; None where there is none on this profile, or too short a one.

    Args:
        task: The task.
        phase: One of its phases.
        profile: "cpu" or "gpu".
        gpu: The GPU that it is to train on; "" for none.
        rows: Rows of an optimizer step, of all processes, that it is to train with.
    """
    folder = task.outputs / phase
    lines = [line for line in _lines(folder / "progress.jsonl") if "time" in line]
    if not lines or "device" not in lines[0] or (lines[0]["device"] == "cpu") != (profile == "cpu"):
        return None
    at = {line["step"]: line["time"] for line in lines}  # the last line of a step: after its evaluation
    steps = sorted(at)[1:]  # not what came before the first step
    if len(steps) < LEAST_STEPS:
        return None
    marks = [steps[round(i * (len(steps) - 1) / 4)] for i in range(5)]
    speeds = [(b - a) / max(at[b] - at[a], 1e-9) for a, b in zip(marks, marks[1:], strict=False)]
    device, then = lines[0]["device"], lines[0]["rows_per_step"]
    notes = []
    if gpu and gpu not in device:
        notes.append(f"{phase}: measured on {device}; {gpu} has another speed")
    if then != rows:
        notes.append(f"{phase}: measured with {then} rows a step, now {rows}: taken as rows a second, which is rough")
    scale = then / rows
    state = "finished" if steps[-1] >= lines[-1]["max_steps"] else f"at step {steps[-1]} of {lines[-1]['max_steps']}"
    start = max(at[steps[0]] - (folder / "started.json").stat().st_mtime, 0.0)
    source = f"measured ({device}, {state})"
    return Speed(Range(min(speeds), max(speeds)).times(scale), source, start, tuple(notes))


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the last may be half written


def _expected(task: Task, phase: str, profile: str, steps: int | None, notes: tuple[str, ...]) -> Duration:
    expected = task.spec.get("expected_seconds", {}).get(profile, {}).get(phase)
    if expected is None:
        raise UserError(
            f"{phase}: never run here on profile {profile}, and {relative(task.dir / 'task.yml')} expects no time "
            f"(expected_seconds.{profile}.{phase}); say --steps-per-second {phase}=X, or start it and ask again "
            "once it has made some steps"
        )
    seconds = Range(expected * GUESS[0], expected * GUESS[1])
    speed = Range(steps / seconds.high, steps / seconds.low) if steps else None
    hint = f"{phase}: not measured; expected_seconds of task.yml may be of another machine, and is widened by half"
    return Duration(phase, steps, speed, seconds, "expected (task.yml)", (*notes, hint))
