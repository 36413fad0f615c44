"""Predict: a model's JSON for every article of the test set, one line each.

    uv run tools/predict.py hawks                                                              # the merged model
    uv run tools/predict.py hawks --adapter outputs/hawks/phase1 --output outputs/phase1.jsonl  # phase 1 alone
    uv run tools/predict.py hawks --model data/samples/base --output outputs/base.jsonl         # the bare base

Greedy, in batches, held to the output_schema of task.yml. A run that was stopped goes on where it was: its finished
rows wait in <output>.partial. What the rows hold: docs/inference.md.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from recipekit import models, predictor, runs
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.inputs import Article, read_articles
from recipekit.predictor import LocalPredictor, Predictor, Row
from recipekit.runs import Step, relative
from recipekit.task import Task, load_task

CODE = ("answers", "decoding", "models", "predictor", "segments", "windows")  # modules that rows depend on


@dataclass(frozen=True)
class Options:
    """What is predicted, with what.

    Attributes:
        model: Folder of the model, or of the base under `adapter`; None takes the base that the adapter names.
        adapter: Folder of a LoRA adapter to put on the model.
        input: JSONL file of {"id", "body"}.
        output: JSONL file to write.
        constrain: Whether answers are held to output_schema.
    """

    model: Path | None
    adapter: Path | None
    input: Path
    output: Path
    constrain: bool = True
    batch_size: int = 32


def load(task: Task, options: Options) -> Predictor:
    """Make ready what predicts."""
    return LocalPredictor.load(task, options.model, options.adapter, options.constrain, options.batch_size)


def read_partial(path: Path, run: str) -> dict[str, Row]:
    """Take up the finished rows of a run that was stopped, and leave the file ready for more.

    A torn last line goes; a file left by another run (other model, prompt, schema or input) is begun anew.
    """
    header = orjson.dumps({"run": run}) + b"\n"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    rows: dict[str, Row] = {}
    if lines[:1] == [header]:
        whole = [line for line in lines[1:] if line.endswith(b"\n")]
        rows = {row["id"]: row for row in map(orjson.loads, whole)}
    runs.write_bytes(path, header + b"".join(orjson.dumps(row) + b"\n" for row in rows.values()))
    return rows


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """All that predictions depend on."""
    code = [Path(__file__), *(Path(predictor.__file__).with_name(f"{name}.py") for name in CODE)]
    adapter = {name: options.adapter / name for name in models.ADAPTER_FILES} if options.adapter else {}
    return {
        **{path.name: path for path in code},
        **adapter,
        **task.prompt_sources(),
        "model": options.model,
        "output_schema": orjson.dumps(task.output_schema).decode(),  # the order of its keys counts
        "predict": task.spec.get("predict"),
        "input": options.input,
        "constrain": options.constrain,
    }


def decode(task: Task, options: Options, articles: Iterable[Article]) -> Iterator[Row]:
    """Predict articles, in whatever order they are done."""
    return load(task, options).predict(articles)


def predict(task: Task, options: Options, articles: list[Article], run: str) -> list[Row]:
    """Predict articles and write them to options.output in the input's order, whole or not at all.

    Args:
        task: The task.
        options: Model, output and so on.
        articles: From `read_articles`.
        run: Digest of all that predictions depend on; rows of a stopped run count only where it is the same.
    """
    partial = options.output.with_name(options.output.name + ".partial")
    rows = read_partial(partial, run)
    missing = [article for article in articles if article.id not in rows]
    if rows:
        show(f"predict: {len(articles) - len(missing)} of {len(articles)} are done, going on")
    with progress("predict", len(articles)) as advance, partial.open("ab", buffering=0) as stream:
        advance(len(articles) - len(missing))
        for row in decode(task, options, missing) if missing else ():
            stream.write(orjson.dumps(row) + b"\n")
            rows[row["id"]] = row
            advance()
    ordered = [rows[article.id] for article in articles]
    runs.write_jsonl(options.output, ordered)
    partial.unlink()
    return ordered


def command(
    task: Annotated[str, typer.Argument(help="A recipe: a folder under recipes/ with a task.yml.")],
    model: Annotated[Path | None, typer.Option(help="A model's folder.  [default: outputs/TASK/merged]")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter's folder, on its base or --model.")] = None,
    input: Annotated[Path | None, typer.Option(help="Articles.  [default: the test set]")] = None,
    output: Annotated[Path | None, typer.Option(help="[default: outputs/TASK/predictions.jsonl]")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many articles.")] = None,
    constrain: Annotated[bool, typer.Option(help="Hold answers to the task's output_schema.")] = True,
) -> None:
    """Predict JSON for every article of a task's test set."""
    log_to("predict")
    it = load_task(task)
    usual = not any((model, adapter, input, limit)) and constrain
    if output is None and not usual:
        raise UserError("--output is missing: with other than the usual model or articles, say where to write")
    options = Options(
        model or (None if adapter else it.outputs / "merged"), adapter, input or it.test_path("input"),
        output or it.outputs / "predictions.jsonl", constrain, batch_size,
    )  # fmt: skip
    predictor.check(it, options.model, adapter)
    articles = read_articles(options.input)[:limit]
    step = Step(it.outputs, "predict", inputs(it, options), [options.output])
    if usual and step.done():
        show("predict: up to date")
        return
    rows = predict(it, options, articles, runs.digest(step.input_digests()))
    good = sum(row["valid"] for row in rows)
    show(f"predict: {len(rows)} articles, {good} with valid JSON -> {relative(options.output)}")
    if usual:
        step.record(articles=len(rows), valid=good)


if __name__ == "__main__":
    main(command)
