"""Train one phase of a task with Axolotl, and believe nothing that it says.

    uv run tools/train.py hawks phase1 --profile gpu

The phase's YAML and the CPU overlays are resolved into logs/<time>/<phase>.yml, which Axolotl trains on in a process of
its own. The phase counts as done when every planned step was reached, the adapter's values differ from where they
started, the saved file holds what training ended with, a later phase really began with the adapter of the one before
it, an evaluation took place and no loss was NaN. Stopped anywhere, the same command goes on from the last checkpoint.
Out of memory, it says what to change, and with AUTO_OOM=1 changes it and goes on.
"""

import itertools
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import journal, models, remedies, resuming, tracking, yamlfile
from recipekit.adapters import adapter_digest
from recipekit.console import GC_THRESHOLD, log_to, main, show
from recipekit.durations import rows_per_step
from recipekit.errors import UserError
from recipekit.hub import TOKEN_NAMES, setting
from recipekit.oom import OutOfMemory, kernel_kills, recognise
from recipekit.process import PARENT, hold, last_error, run, written_since
from recipekit.resolve import (
    SPLITTING,
    base_model_key,
    data_files,
    memory_overlay,
    merged_phase,
    resolve,
    write_resolved,
)
from recipekit.resuming import Failure, prepare_output
from recipekit.runs import Step, digest, read_record, relative
from recipekit.segments import has_prompt_of_today, read_jsonl
from recipekit.task import Task, load_task

PACKAGES = ("axolotl", "torch", "transformers", "peft")


def train(
    task: Annotated[str, typer.Argument(help="A folder under recipes/")],
    phase: Annotated[str, typer.Argument(help="One of the task's phases")],
    profile: Annotated[str, typer.Option(help="cpu or gpu")] = "gpu",
) -> None:
    """Train one phase of a task; a phase that is done is skipped, an unfinished one goes on."""
    train_phase(load_task(task), phase, profile)


def train_phase(task: Task, phase: str, profile: str) -> None:
    """Train a phase unless it is done; with AUTO_OOM=1 again, with less memory, where it ran out of it.

    Raises:
        UserError: The recipe is wrong, data or the phase before is missing, training failed, or its result is not what
            a full run leaves.
    """
    for tried in itertools.count():
        found, log = attempt(task, phase, profile)
        if found is None:
            return
        remedies.answer(task, phase, profile, found, tried, log)


def attempt(task: Task, phase: str, profile: str) -> tuple[OutOfMemory | None, Path]:
    """Train a phase unless it is done; returns how it ran out of memory, if it did, and its log.

    Raises:
        UserError: As train_phase.
    """
    config = resolve(task, phase, profile)
    os.environ["LOG_DIR"] = str(task.root / os.environ.get("LOG_DIR", f"logs/{time.strftime('%Y%m%d_%H%M%S')}"))
    log_to(phase, task.outputs)
    output = task.root / config["output_dir"]
    processes = gpu_count() if profile == "gpu" else 1
    step = Step(task.outputs, phase, step_inputs(task, config, processes), models.trained_files(output, config))
    if step.done():
        show(f"{phase}: up to date ({relative(output)})")
        tracking.send(task.root, config, phase, output)
        return None, output
    with hold(task.outputs / "state" / f"{phase}.lock", f"{task.name} {phase}") as lock:
        prepare_output(task, phase, config, checkpoint_inputs(step, config))
        resolved = write_resolved(config, phase, task.root)
        journal.note(config=journal.config_of(resolved))
        log = resolved.with_suffix(".log")
        show(f"{phase}: {config['base_model']}, {relative(resolved)}, log {relative(log)}")
        less = laid_over(task, phase, profile)
        command, env = axolotl_command(resolved, profile, processes), environment(task, config)
        report = output / "progress.jsonl"

        def start() -> OutOfMemory | Failure | None:
            written, kills = log.stat().st_size, kernel_kills()
            code = run(command, task.root, env, lock, report, log, phase, config.get("max_steps"))
            text = written_since(log, written)
            return (recognise(text, code, kills, report) or Failure(code, text)) if code else None

        ended = resuming.go_on(start, output, lambda end: isinstance(end, Failure) and end.met_in_reading)
        if isinstance(ended, OutOfMemory):
            return ended, log
        if ended is not None:
            problem = f"training failed (exit code {ended.code}): {last_error(ended.text)}"
            raise UserError(f"{phase}: {problem}; log: {relative(log)}")
        facts = check_result(task, phase, config, log)
    step.products = models.trained_files(output, config)  # how many files there are is known now
    step.record(
        base=config["base_model"], prompt=None if "regression" in config else task.prompt_digest(), **less, **facts
    )
    resuming.forget_unread(output)
    show(f"{phase}: {facts['reached_steps']} steps, eval loss {facts['eval_loss']:.4f}")
    tracking.send(task.root, config, phase, output)
    return None, log


def laid_over(task: Task, phase: str, profile: str) -> dict[str, Any]:
    """Say what saves memory in this run, where it once ran out; returns it for the step's record."""
    path = memory_overlay(task, phase, profile)
    if not path.exists():
        return {}
    values = yamlfile.load(path)[0]["laid_over"]
    show(f"{phase}: {relative(path)}: {', '.join(f'{key} {value}' for key, value in values.items())}")
    return {"laid_over": values}


def checkpoint_inputs(step: Step, config: dict[str, Any]) -> str:
    """Digest what a checkpoint depends on: all that the step does, but of a batch its rows, not how they are split."""
    same = {key: value for key, value in config.items() if key not in SPLITTING}
    return digest(step.input_digests | {"config": digest([same, rows_per_step(config)])})


def step_inputs(task: Task, config: dict[str, Any], processes: int) -> dict[str, Any]:
    """List what the trained adapter depends on.

    Raises:
        UserError: A data file is missing, or the phase before is not finished.
    """
    problems = [
        f"{relative(path)}: no such file; make it with: uv run tools/regenerate_segments.py {task.name}"
        for path in data_files(task, config)
        if not path.exists()
    ]
    base = config["base_model"]
    if (phase := merged_phase(task, base)) and not (task.root / base / "config.json").exists():
        problems.append(f"{base}: {phase} is not merged yet; run: uv run tools/merge.py {task.name} --phase {phase}")
    elif base.count("/") != 1 and not (task.root / base / "config.json").exists():  # a name on the Hub has one slash
        problems.append(f"base_model {base}: no config.json in that folder; restore it with: git checkout {base}")
    problems += models.torn_weights(task.root / base, f"restore it, or merge {phase} again" if phase else "restore it")
    inputs: dict[str, Any] = {
        "config": config,
        "base_model": base_model_key(task, config),
        "packages": {name: version(name) for name in PACKAGES},
        "processes": processes,
        **{relative(path): path for path in data_files(task, config)},
    }
    if "deepspeed" in config:
        inputs["deepspeed"] = task.root / config["deepspeed"]
    if "lora_model_dir" in config:
        adapter = task.root / config["lora_model_dir"] / "adapter_model.safetensors"
        before = Path(config["lora_model_dir"]).name
        recorded = read_record(task.outputs / "state" / f"{before}.json").get("products", {})
        inputs["previous adapter"] = adapter
        if not adapter.exists() or recorded.get(relative(adapter)) != digest(adapter):
            problems.append(
                f"{config['lora_model_dir']}: {before} is not finished, or its adapter was changed since; "
                f"run: uv run tools/train.py {task.name} {before}"
            )
    if not problems:
        problems = [
            f"{relative(path)}:1: made with another prompt than today's; make it again: "
            f"uv run tools/regenerate_segments.py {task.name}"
            for path in data_files(task, config)
            if "regression" not in config and not prompt_is_of_today(task, path)
        ]
    if problems:
        raise UserError(problems)
    return inputs


def prompt_is_of_today(task: Task, path: Path) -> bool:
    """Tell whether a data file was made with today's prompt: by its first row, or of a chat by regenerate's record."""
    if task.is_chat:
        return read_record(task.outputs / "state" / "regenerate.json").get("prompt") == task.prompt_digest()
    return has_prompt_of_today(task, next(read_jsonl(path))[1])


def gpu_count() -> int:
    """Count the GPUs that training will use.

    Raises:
        UserError: There is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError("--profile gpu: torch finds no GPU; use --profile cpu, or check the driver with nvidia-smi")
    return torch.cuda.device_count()


def axolotl_command(resolved: Path, profile: str, processes: int) -> list[str]:
    """Build the training command: one process on CPUs, as each imports Axolotl anew; accelerate on GPUs."""
    launcher = ["python"] if profile == "cpu" else ["accelerate", "--", "--num_processes", str(processes)]
    # Not `-m axolotl.cli.main`: datasets saves rows in a spawned process, which would import the main module once more.
    start = f"import gc; gc.set_threshold({GC_THRESHOLD}); from axolotl.cli.main import cli; cli(prog_name='axolotl')"
    return [sys.executable, "-c", start, "train", str(resolved), "--launcher", *launcher]


def environment(task: Task, config: dict[str, Any]) -> dict[str, str]:
    """Build the training process's environment."""
    env = (
        tracking.LIMITS
        | os.environ
        | {
            "AXOLOTL_DO_NOT_TRACK": "1",  # telemetry stalls the start by ten seconds
            PARENT: str(os.getpid()),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # Axolotl looks for `accelerate` there
        }
    )
    if token := setting(task.root, *TOKEN_NAMES):
        env["HF_TOKEN"] = token  # the name that the Hub's client reads; a gated base needs it
    if (task.root / config["base_model"]).is_dir():
        env["HF_HUB_OFFLINE"] = "1"  # nothing is fetched, and libraries that ask anyway wait for an answer
    return env


def check_result(task: Task, phase: str, config: dict[str, Any], log: Path) -> dict[str, Any]:
    """Hold what training left against what a full run leaves; returns the run's facts.

    Raises:
        UserError: Training stopped early, changed nothing, did not evaluate, met NaN, saved something else than
            it trained, or did not start from the phase before.
    """
    output = task.root / config["output_dir"]
    facts = read_record(output / "run_facts.json")
    if not facts:
        problem = "training stopped before its end, though its exit code is 0; run the same command again to go on"
        raise UserError(f"{phase}: {problem}; log: {relative(log)}")
    problems = []
    planned = config.get("max_steps", facts["planned_steps"])
    if facts["reached_steps"] != planned:
        problems.append(
            f"reached step {facts['reached_steps']}, expected {planned}; run the same command again to go on"
        )
    if not facts["finite"]:
        problems.append("a loss was NaN or infinite; lower learning_rate, or look for rows without a trained token")
    if not facts["evaluations"]:
        problems.append("no evaluation took place; set eval_steps to at most max_steps, and test_datasets")
    if not config.get("adapter"):
        if not models.differs(
            models.files_of(task.root, config["base_model"], config.get("revision_of_model")), output
        ):
            problems.append("no weight differs from the base's; look at learning_rate and the labels of the data")
    elif facts["start_digest"] == facts["end_digest"]:
        problems.append("the adapter did not change; look at learning_rate, warmup_steps and the labels of the data")
    if config.get("adapter") and adapter_digest(output / "adapter_model.safetensors") != facts["end_digest"]:
        problems.append("the saved adapter is not what training ended with; remove the folder and train again")
    if "lora_model_dir" in config:
        before = task.root / config["lora_model_dir"] / "adapter_model.safetensors"
        whole = not config.get("regression", {}).get("new_head")
        if adapter_digest(before, whole) != facts["start_digest" if whole else "start_lora_digest"]:
            problems.append(f"training did not start from {relative(before)}; check lora_model_dir and adapter")
    if problems:
        raise UserError([f"{phase}: {problem}; log: {relative(log)}" for problem in problems])
    return facts


if __name__ == "__main__":
    main(train)
