"""The steps of a task's pipeline, as train_all.sh runs them."""

from collections.abc import Iterator

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.resolve import merged_phase
from recipekit.runs import relative
from recipekit.task import Task

MERGE = "merge_"  # and a phase: the step that merges it


def steps(task: Task, data: str | None = None) -> dict[str, str]:
    """Name each step and say what it does.

    Args:
        task: The task.
        data: Where raw data come from: "hub", "raw", "sample" or a folder; None: not known.
    """
    raw = {"hub": f"data/raw/{task.spec['name']}", "sample": relative(task.sample_dir), None: "raw data"}.get(
        data, data
    )
    raw = f"data/raw/{task.spec['name']}" if data == "raw" else raw
    before = {"download": f"HF Hub -> {raw}"} if data == "hub" else {}
    if "captions" in task.spec["data"]:
        before["caption"] = f"{raw} -> {relative(task.captioned_dir)}, pictures in words"
        raw = relative(task.captioned_dir)
    return {
        **before,
        "regenerate": f"{raw} -> data/train, data/test",
        "leaks": "what training shares with the test set",
        "check": "environment, YAMLs, data and masks",
        **dict(_training(task)),
        "merge": f"adapter of {task.phases[-1]} + base -> outputs/{task.slug}/merged",
        **({"held_out": "losses of every phase on every validation set"} if task.is_chat else {}),
        **({"baselines": "constant mean, ridge on TF-IDF ..."} if task.estimates else {}),
        "predict": "merged model on the test set",
        "evaluate": "replies by stated measures" if task.is_chat else "predictions against the gold CSV",
        "card": f"outputs/{task.slug}/README.md",
        "upload": "merged model to the HF Hub, where a token and a repository are named",
    }


def training(task: Task) -> list[str]:
    """Name the steps that train, in order: phases, and the merges of those that a later phase has as its base."""
    return [name for name, _ in _training(task)]


def _training(task: Task) -> Iterator[tuple[str, str]]:
    for phase in task.phases:
        config, _ = yamlfile.load(task.dir / f"{phase}.yml")
        if before := merged_phase(task, str(config.get("base_model"))):
            yield f"{MERGE}{before}", f"adapter of {before} + base -> outputs/{task.slug}/{before}/merged"
        what = f"{str(config['rl']).upper()} with LoRA" if config.get("rl") else "LoRA"
        yield phase, f"{what}, {relative(task.dir / phase)}.yml"


def choose(names: list[str], first: str | None, only: list[str]) -> list[str]:
    """Choose steps, in their order: all from one on, or only some.

    Raises:
        UserError: There is no such step, or both were asked for.
    """
    wrong = [name for name in (*filter(None, [first]), *only) if name not in names]
    problems = [f"no step '{name}'; the steps are {', '.join(names)}" for name in wrong]
    if first and only:
        problems.append("--from and --only do not go together; leave one of them out")
    if problems:
        raise UserError(problems)
    return [name for name in names if name in only] if only else names[names.index(first) if first else 0 :]
