"""The steps of a task's pipeline, as train_all.sh runs them."""

from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import Task


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
        **{phase: f"LoRA, {relative(task.dir / phase)}.yml" for phase in task.phases},
        "merge": f"adapter of {task.phases[-1]} + base -> outputs/{task.slug}/merged",
        **({"baselines": "constant mean, ridge on TF-IDF ..."} if task.estimates else {}),
        "predict": "merged model on the test set",
        "evaluate": "predictions against the gold CSV",
        "card": f"outputs/{task.slug}/README.md",
        "upload": "merged model to the HF Hub, where a token and a repository are named",
    }


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
