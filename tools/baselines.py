"""What a trained model has to beat: estimates of the test set without one.

    uv run tools/baselines.py bigfive

Writes outputs/<task>/baselines/<name>.jsonl, which evaluate.py scores beside the model's predictions: constant (the
mean of the training rows' labels), ridge (TF-IDF of character n-grams, ridge regression) and, of rankings, length
(least squares on the response's length). They learn from the rows that the last phase of the task trains on, and choose
settings on its validation rows.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from recipekit import baselines, inputs
from recipekit.baselines import Data
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.runs import Step, relative, write_jsonl
from recipekit.task import Task, load_task


def read(task: Task, files: dict[str, Path]) -> Data:
    """Read what baselines are made from; all files' problems come at once."""
    problems: list[str] = []
    rows = {}
    for name in ("train", "validation"):
        try:
            rows[name] = baselines.read_rows(task, files[name])
        except UserError as error:
            problems += error.problems
    test = []
    try:
        for place, found in inputs.scan(files["test"], task.text_keys):
            if isinstance(found, inputs.Problem):
                problems.append(f"{place}: {found.text}")
            else:
                test.append(found)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    return Data(task, rows["train"], rows["validation"], test)


def digest(row: dict[str, Any]) -> dict[str, str]:
    """Say which pair of texts an estimate is of, where there are two."""
    return {"digest": inputs.pair_digest(row["body"], row["pair"])} if "pair" in row else {}


def make(
    task: str,
    train: Annotated[Path | None, typer.Option(help="JSONL; default the last phase's training rows")] = None,
    validation: Annotated[Path | None, typer.Option(help="JSONL; default the last phase's validation rows")] = None,
) -> None:
    """Estimate a task's test set by each baseline."""
    recipe = load_task(task)
    log_to("baselines", recipe.outputs)
    kinds = baselines.OF_KIND.get(recipe.kind)
    if kinds is None:
        raise UserError(f"{recipe.name} is of kind {recipe.kind}, which has no baselines; they are for numbers")
    given = {name: path for name, path in (("train", train), ("validation", validation)) if path}
    files = given if len(given) == 2 else baselines.training_files(recipe) | given
    files["test"] = recipe.test_path("input")
    code = [Path(__file__), Path(baselines.__file__)]
    step_inputs = {"targets": recipe.targets, **files, **{path.name: path for path in code}}
    paths = {name: recipe.baselines / f"{name}.jsonl" for name in kinds}
    step = Step(recipe.outputs, "baselines", step_inputs, list(paths.values()))
    if all(path.is_file() for path in files.values()) and step.done():
        show("baselines: up to date")
        return
    data = read(recipe, files)
    facts = {}
    with progress("baselines", len(kinds)) as advance:
        for name, baseline in kinds.items():
            advance(0, note=name)
            values, facts[name] = baseline(data)
            if values.shape != (len(data.test), len(recipe.targets)) or not (abs(values) < float("inf")).all():
                raise RuntimeError(f"{name} gave values of shape {values.shape}, or such as are not finite")
            estimates = [dict(zip(recipe.targets, row, strict=True)) for row in values.tolist()]
            rows = zip(data.test, estimates, strict=True)
            write_jsonl(paths[name], [{"id": row["id"], "output": output, **digest(row)} for row, output in rows])
            advance()
    step.record(train=relative(files["train"]), rows=len(data.train.texts), **facts)
    names = ", ".join(f"{name} {found}" for name, found in facts.items())
    show(f"baselines: {len(data.test):,} rows estimated after {len(data.train.texts):,}; {names}")


if __name__ == "__main__":
    main(make)
