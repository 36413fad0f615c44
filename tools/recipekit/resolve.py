"""From a phase's production YAML and the CPU overlays to the one file that Axolotl gets."""

import os
import time
from pathlib import Path
from typing import Any

import yaml

from recipekit import hub, secret_scan, yamlfile
from recipekit.errors import UserError
from recipekit.runs import digest, relative, write_text
from recipekit.task import Task

RUN_PLUGIN = "recipekit.run_plugin.RunPlugin"
PROFILES = ("cpu", "gpu")
# How a batch is computed, not what is learned from it: a checkpoint and prepared rows stay good when these change.
SPLITTING = (
    *("micro_batch_size", "gradient_accumulation_steps", "eval_batch_size", "gradient_checkpointing"),
    *("dataloader_num_workers", "dataloader_prefetch_factor"),
)


def resolve(task: Task, phase: str, profile: str) -> dict[str, Any]:
    """Lay recipes/cpu.yml and recipes/<task>/cpu.yml over a phase's YAML (profile cpu) and add what a run needs.

    A key of an overlay replaces the phase's, whole; null removes it. On top comes what saves memory on this machine
    (`memory_overlay`), where there is such a file. Paths stay relative to task.root, which training
    runs in.

    Args:
        task: The task.
        phase: One of task.phases.
        profile: "cpu" or "gpu".

    Raises:
        UserError: Unknown phase or profile, an unreadable YAML, an overlay for a phase that does not exist, a phase
            that writes elsewhere than outputs/<task>/<phase>, or does not go on from an earlier phase, or a memory
            overlay that was made for another recipe.
    """
    if profile not in PROFILES:
        raise UserError(f"--profile {profile}: expected one of {', '.join(PROFILES)}")
    if phase not in task.phases:
        raise UserError(
            f"no phase '{phase}' in task {task.name}; the phases are {', '.join(task.phases)} "
            f"({relative(task.dir / 'task.yml')}: phases)"
        )
    problems: list[str] = []
    config = _layers(task, phase, profile, problems)
    config = _with_less_memory(task, phase, profile, config, problems)
    _check_chain(task, phase, config, problems)
    _check_code(task, phase, config, problems)
    if problems:
        raise UserError(problems)
    config["plugins"] = [*config.get("plugins", []), RUN_PLUGIN]
    config["dataset_prepared_path"] = f"outputs/{task.slug}/prepared/{phase}-{_data_digest(task, config)}"
    return config


def memory_overlay(task: Task, phase: str, profile: str) -> Path:
    """Name the file that tools/train.py keeps what saves memory in, once a phase ran out of it on this machine."""
    return task.outputs / f"{phase}.{profile}.oom.yml"


def write_resolved(config: dict[str, Any], phase: str, root: Path) -> Path:
    """Write what Axolotl gets, and what is kept as the record of the run, to $LOG_DIR/<phase>.yml; returns the path.

    Raises:
        UserError: It holds a secret.
    """
    folder = root / os.environ.setdefault("LOG_DIR", f"logs/{time.strftime('%Y%m%d_%H%M%S')}")
    path = folder / f"{phase}.yml"
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
    if secrets := sorted({secret.name for secret in secret_scan.find(text, hub.find_token(root))}):
        what = f"would be written into logs and MLflow ({', '.join(secrets)})"
        raise UserError(f"{phase}: a secret in its YAML {what}; take it out and put it into .env or the environment")
    write_text(path, f"# Made from the recipe and its overlays; edits here are lost.\n{text}")
    return path


def data_files(task: Task, config: dict[str, Any]) -> list[Path]:
    """Name the local files a config trains and evaluates on."""
    entries = [*config.get("datasets", []), *config.get("test_datasets", [])]
    return [task.root / entry["path"] for entry in entries if Path(entry["path"]).suffix]


def base_model_key(task: Task, config: dict[str, Any]) -> Any:
    """Tell a base model from others: its folder where it is local, else its name and revision."""
    folder = task.root / config["base_model"]
    return folder if folder.is_dir() else [config["base_model"], config.get("revision_of_model")]


def merged_phase(task: Task, base: str) -> str | None:
    """Name the phase whose merged model a base is: outputs/<task>/<phase>/merged; None: it is no such."""
    return next((phase for phase in task.phases if _same(base, f"outputs/{task.slug}/{phase}/merged")), None)


def all_phases(task: Task) -> list[str]:
    """Name the phases of a task and of its variants."""
    lists = [task.spec.get("phases", []), *task.spec.get("variants", {}).values()]
    return list(dict.fromkeys(phase for phases in lists for phase in phases))


def _layers(task: Task, phase: str, profile: str, problems: list[str]) -> dict[str, Any]:
    config, _ = yamlfile.load(task.dir / f"{phase}.yml")
    if profile == "gpu":
        return config
    overlay, _ = yamlfile.load(task.root / "recipes" / "cpu.yml")
    config |= overlay
    path = task.dir / "cpu.yml"
    if path.exists():
        by_phase, lines = yamlfile.load(path)
        for name, values in by_phase.items():
            place = f"{relative(path)}:{lines[name,]}: {name}"
            if name not in all_phases(task):
                problems.append(f"{place}: no such phase; the phases of {task.name} are {', '.join(all_phases(task))}")
            elif not isinstance(values, dict):
                problems.append(f"{place}: expected keys and values for this phase, found {values!r}")
        values = by_phase.get(phase)
        config |= values if isinstance(values, dict) else {}
    return {key: value for key, value in config.items() if value is not None}


def _with_less_memory(
    task: Task, phase: str, profile: str, config: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    path = memory_overlay(task, phase, profile)
    if not path.exists():
        return config
    overlay, lines = yamlfile.load(path)
    made_for, laid_over = overlay.get("made_for"), overlay.get("laid_over")
    if not isinstance(made_for, dict) or not isinstance(laid_over, dict):
        problems.append(f"{relative(path)}:1: expected made_for and laid_over with keys and values; delete the file")
        return config
    for key, value in made_for.items():
        if config.get(key) != value:
            place = f"{relative(path)}:{lines['made_for', key]}: {key}"
            found = f"made for {value}, but the recipe says {config.get(key)} now"
            problems.append(f"{place}: {found}; delete the file, or write the new value here")
    return {key: value for key, value in (config | laid_over).items() if value is not None}


def _check_chain(task: Task, phase: str, config: dict[str, Any], problems: list[str]) -> None:
    path = task.dir / f"{phase}.yml"
    lines = yamlfile.load(path)[1]

    def at(key: str) -> str:
        return f"{relative(path)}:{lines.get((key,), 1)}: {key}"

    expected, found = f"outputs/{task.slug}/{phase}", config.get("output_dir")
    if not _same(found, expected):
        problems.append(f"{at('output_dir')}: found {found!r}, expected '{expected}'; later steps look there")
    earlier = [f"outputs/{task.slug}/{name}" for name in task.phases[: task.phases.index(phase)]]
    adapter, base = config.get("lora_model_dir"), str(config.get("base_model"))
    if adapter is not None and not any(_same(adapter, folder) for folder in earlier):
        remedy = f"an earlier phase's output_dir: {', '.join(earlier)}" if earlier else "none: no phase comes before"
        problems.append(f"{at('lora_model_dir')}: found '{adapter}', expected {remedy}")
    elif adapter is None and earlier and not any(Path(base).is_relative_to(folder) for folder in earlier):
        problems.append(
            f"{at('lora_model_dir')}: missing, so {phase} would start afresh and lose {task.phases[len(earlier) - 1]}; "
            f"add lora_model_dir: {earlier[-1]}"
        )


def _check_code(task: Task, phase: str, config: dict[str, Any], problems: list[str]) -> None:
    """Refuse code that a model or data set brings along, unless task.yml names that model at one commit."""
    path = task.dir / f"{phase}.yml"
    line = yamlfile.load(path)[1].get(("trust_remote_code",), 1)
    trusted = task.spec.get("trust_remote_code")
    base = {"model": config.get("base_model"), "revision": config.get("revision_of_model")}
    if config.get("trust_remote_code") and base != trusted:
        what = f"{base['model']} at {base['revision'] or 'no revision_of_model'} would run code of its own"
        wanted = "trust_remote_code: {model: owner/name, revision: <40 hex digits>}"
        remedy = f"remove it, or read that code and name the same model and commit in task.yml, {wanted}"
        problems.append(f"{relative(path)}:{line}: trust_remote_code: {what}; {remedy}")
    for key in ("datasets", "test_datasets"):
        if any(isinstance(entry, dict) and entry.get("trust_remote_code") for entry in config.get(key) or []):
            problems.append(f"{relative(path)}:1: {key}: trust_remote_code runs a data set's own code; remove it")


def _same(found: Any, expected: str) -> bool:
    return isinstance(found, str) and Path(found) == Path(expected)


def _data_digest(task: Task, config: dict[str, Any]) -> str:
    # Axolotl's own name for the prepared rows leaves out what the files hold: an edited file would train its old rows.
    files = data_files(task, config)
    base = base_model_key(task, config)
    if isinstance(base, Path):
        files.append(base / "tokenizer.json")
    config = {key: value for key, value in config.items() if key not in SPLITTING}
    return digest([config, [digest(path) if path.exists() else None for path in files]])[:16]
