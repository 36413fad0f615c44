"""Whether a recipe's phases fit into a GPU's memory, and what in the recipe would make them fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from recipekit.architecture import Architecture, architecture, read_config
from recipekit.errors import UserError
from recipekit.memory import GB, Setting, predict, setting
from recipekit.oom import OutOfMemory
from recipekit.prices import Machine
from recipekit.remedies import next_remedy
from recipekit.resolve import merged_phase, resolve
from recipekit.task import Task

SUPPOSED = OutOfMemory("gpu", "", "training", 0)


@dataclass(frozen=True)
class Need:
    """The memory that a phase takes of each GPU.

    Attributes:
        parts: Bytes, by what they are for.
        limit: Bytes that a GPU has.
        advice: What to change where it does not fit; "" where it does.
    """

    phase: str
    parts: dict[str, float]
    limit: float
    advice: str = ""

    @property
    def total(self) -> float:
        """Bytes of all parts."""
        return sum(self.parts.values())


def needs(task: Task, machine: Machine) -> list[Need]:
    """Predict what each phase takes of a machine's GPUs.

    Raises:
        UserError: The sizes of a base are not known here; of all phases.
    """
    found, problems = [], []
    for phase in task.phases:
        try:
            found.append(_need(task, phase, machine))
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise UserError(problems)
    return found


def _need(task: Task, phase: str, machine: Machine) -> Need:
    config = resolve(task, phase, "gpu")
    first = config
    while before := merged_phase(task, first["base_model"]):  # the base is what an earlier phase made of its own
        first = resolve(task, before, "gpu")
    model = architecture(read_config(task, first["base_model"], first.get("revision_of_model")), config)
    run, limit = setting(config, model.decoder, machine.gpus, task.root), machine.memory_gb * GB
    need = Need(phase, predict(model, run), limit)
    if need.total <= limit:
        return need
    return replace(need, advice=_advice(task, config, model, machine))


def _advice(task: Task, config: dict[str, Any], model: Architecture, machine: Machine) -> str:
    """Take remedies that lose nothing until it fits; then a quantised base, then one that is shared out."""
    limit, changed = machine.memory_gb * GB, ""
    smallest = setting(config, model.decoder, machine.gpus, task.root)
    for less, changes in _smaller(task, config):
        smallest = setting(less, model.decoder, machine.gpus, task.root)
        changed = ", ".join(f"{key}: {value}" for key, value in changes.items() if key != "eval_batch_size")
        if (total := _total(model, smallest)) <= limit:
            return f"fits with {changed} ({total / GB:.1f} GB)"
    ways: list[tuple[str, Setting]] = [
        ("adapter: qlora, load_in_4bit: true", replace(smallest, four_bit=True, zero=None))
    ]
    if machine.gpus > 1:
        ways.append(("deepspeed: deepspeed_configs/zero3.json", replace(smallest, zero=3)))
    for way, run in ways:
        if (total := _total(model, run)) <= limit:
            return f"fits with {', '.join(filter(None, (changed, way)))} ({total / GB:.1f} GB)"
    return f"nothing in the recipe makes it fit ({_total(model, smallest) / GB:.1f} GB at the least); take a larger GPU"


def _smaller(task: Task, config: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield the config with one remedy more at a time, and all its changes."""
    changes: dict[str, Any] = {}
    while True:
        try:
            remedy = next_remedy(task, "gpu", config | changes, SUPPOSED)
        except UserError:
            return
        if remedy is None or remedy.loses:
            return
        changes |= remedy.changes
        yield config | changes, changes


def _total(model: Architecture, run: Setting) -> float:
    return sum(predict(model, run).values())
