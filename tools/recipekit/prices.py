"""Machines that train, and what an hour of them costs: recipes/prices.yml."""

import difflib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from recipekit import yamlfile
from recipekit.console import show
from recipekit.errors import UserError
from recipekit.resolve import resolve
from recipekit.runs import relative
from recipekit.task import Task

NUMBERS = {"usd_per_hour": (0, float("inf")), "spot_discount": (0, 0.99), "memory_gb": (1, 10_000), "gpus": (0, 1_000)}


@dataclass(frozen=True)
class Machine:
    """A machine of prices.yml.

    Attributes:
        name: For SageMaker its instance type.
        usd_per_hour: Of the whole machine.
        gpus: How many it has.
        gpu: Their model, as a part of the name that their driver gives.
        memory_gb: Of one GPU.
        spot_discount: The share of the price that spot capacity saves; None where it has none.
        bf16: Whether its GPUs compute in bfloat16.
    """

    name: str
    usd_per_hour: float
    gpus: int
    gpu: str = ""
    memory_gb: int = 0
    spot_discount: float | None = None
    bf16: bool = True

    @property
    def spot_per_hour(self) -> float | None:
        """The price of spot capacity, USD an hour."""
        return None if self.spot_discount is None else self.usd_per_hour * (1 - self.spot_discount)

    def describe(self) -> str:
        """Say what it is and costs, in a line."""
        gpus = f"{self.gpus} x {self.gpu} with {self.memory_gb} GB" if self.gpus else "no GPU"
        spot = "" if self.spot_per_hour is None else f", spot about ${self.spot_per_hour:.3f}/h"
        return f"{self.name}: {gpus}, ${self.usd_per_hour:.3f}/h{spot}"


def load_machines(root: Path) -> dict[str, Machine]:
    """Read recipes/prices.yml.

    Raises:
        UserError: It is missing or wrong; all that is wrong.
    """
    path = root / "recipes" / "prices.yml"
    table, lines = yamlfile.load(path)
    problems: list[str] = []
    machines = {}
    for name, spec in table.items():
        place = f"{relative(path)}:{lines[name,]}: {name}"
        found = _problems(spec)
        problems += [f"{place}: {problem}" for problem in found]
        if not found:
            machines[name] = Machine(name, **spec)
    if problems:
        raise UserError(problems)
    return machines


def _problems(spec: Any) -> list[str]:
    if not isinstance(spec, dict):
        return [f"expected keys such as usd_per_hour and gpus, found {spec!r}"]
    known = [field.name for field in fields(Machine)][1:]
    problems = [f"unknown key '{key}'; expected one of {', '.join(known)}" for key in spec if key not in known]
    problems += [f"{key} is missing; add it" for key in ("usd_per_hour", "gpus") if key not in spec]
    for key, (low, high) in NUMBERS.items():
        value = spec.get(key, low)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            problems.append(f"{key}: found {value!r}, expected a number from {low:g} to {high:g}")
    if isinstance(spec.get("gpus"), int) and spec["gpus"] > 0:
        problems += [f"{key} is missing, though it has GPUs; add it" for key in ("gpu", "memory_gb") if key not in spec]
    return problems


def choose_machine(machines: dict[str, Machine], name: str | None, profile: str, bf16: bool) -> Machine:
    """Take the machine of that name, or the first that fits.

    Args:
        machines: Of prices.yml.
        name: One of them; None: choose.
        profile: "cpu" or "gpu".
        bf16: Whether the recipe asks for bfloat16.

    Raises:
        UserError: There is none, or it has no GPU and the profile is gpu.
    """
    if name is None:
        fitting = [one for one in machines.values() if bool(one.gpus) == (profile == "gpu") and (one.bf16 or not bf16)]
        if not fitting:
            raise UserError(f"recipes/prices.yml: no machine for profile {profile}; add one, or name one: --machine")
        return fitting[0]
    if name not in machines:
        near = difflib.get_close_matches(name, machines, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"--machine {name}: not in recipes/prices.yml, which has {', '.join(machines)}{meant}")
    if profile == "gpu" and not machines[name].gpus:
        raise UserError(f"--machine {name}: has no GPU; name another, or take --profile cpu")
    return machines[name]


def machine_for(task: Task, profile: str, name: str | None) -> Machine:
    """Take the machine of that name, or cloud.machine of task.yml, or the first that fits the recipe; warn of misfits.

    Raises:
        UserError: There is none, prices.yml or the recipe is wrong, or a GPU is asked for and it has none.
    """
    bf16 = any(resolve(task, phase, profile).get("bf16") is True for phase in task.phases)
    name = name or task.spec.get("cloud", {}).get("machine")
    machine = choose_machine(load_machines(task.root), name, profile, bf16)
    if bf16 and not machine.bf16:
        advice = "bf16: false and fp16: true in the phases' YAMLs, or another machine"
        show(f"{machine.name}: {machine.gpu} has no bfloat16, which the recipe asks for; {advice}", style="yellow")
    return machine
