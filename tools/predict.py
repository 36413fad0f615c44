"""Predict: a model's JSON for every article of the test set, one line each.

    uv run tools/predict.py hawks                                                              # the merged model
    uv run tools/predict.py hawks --adapter outputs/hawks/phase1 --output outputs/phase1.jsonl  # phase 1 alone
    uv run tools/predict.py hawks --model data/samples/base --output outputs/base.jsonl         # the bare base
    uv run tools/predict.py hawks --server http://localhost:8000/v1 --output outputs/served.jsonl  # docs/serving.md

Greedy, in batches, held to the output_schema of task.yml. A run that was stopped goes on where it was: its finished
rows wait in <output>.partial. What the rows hold: docs/inference.md.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from recipekit import estimator, models, predictor, runs
from recipekit.chat_predictor import ChatPredictor, read_scenes
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.estimator import DigitEstimator, HeadEstimator
from recipekit.inputs import Article, read_articles
from recipekit.predictor import LocalPredictor, Predictor, PromptAs, Row
from recipekit.runs import Step, relative
from recipekit.task import Task, load_task

CODE = (
    "answers",
    "chat_model",
    "chat_predictor",
    "decoding",
    "digits",
    "estimator",
    "inputs",
    "models",
    "predictor",
    "regression",
    "regressor",
    "segments",
    "server",
    "windows",
)  # modules that rows depend on


@dataclass(frozen=True)
class Options:
    """What is predicted, with what.

    Attributes:
        model: Folder of the model, or of the base under `adapter`; None takes the base that the adapter names.
        adapter: Folder of a LoRA adapter to put on the model.
        input: Articles: a JSONL or CSV file, or a folder of text files.
        output: JSONL file to write.
        constrain: Whether answers are held to output_schema.
        batch_size: Prompts decoded at a time here.
        server: Base URL of a server that has the model, in place of a model in this process.
        served_model: The model's name there; None takes the only one.
        prompt_as: Whether the server gets token ids or text.
        concurrency: Requests under way at a time.
    """

    model: Path | None
    adapter: Path | None
    input: Path
    output: Path
    constrain: bool = True
    batch_size: int = 32
    server: str | None = None
    served_model: str | None = None
    prompt_as: PromptAs = "ids"
    concurrency: int = 16


def load(task: Task, options: Options) -> Predictor | HeadEstimator | DigitEstimator | ChatPredictor:
    """Make ready what predicts."""
    if task.estimates:
        assert options.model is not None
        return estimator.load(task, options.model, options.batch_size)
    if task.is_chat:
        return ChatPredictor.load(task, options.model, options.adapter, options.batch_size)
    if options.server:
        from recipekit.server import ServerPredictor  # it takes seconds to load

        return ServerPredictor(
            task, options.server, options.served_model, options.model, options.prompt_as, options.constrain,
            options.concurrency,
        )  # fmt: skip
    return LocalPredictor.load(task, options.model, options.adapter, options.constrain, options.batch_size)


def read_partial(path: Path, run: str) -> dict[str, Row]:
    """Take up the finished rows of a run that was stopped, and leave the file ready for more.

    A torn last line goes; a file left by another run (other model, prompt, schema or input) is begun anew.
    """
    header = orjson.dumps({"run": run}) + b"\n"
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:  # there is none, or there can be none, which writing it will say
        lines = []
    rows: dict[str, Row] = {}
    if lines[:1] == [header]:
        whole = [line for line in lines[1:] if line.endswith(b"\n")]
        rows = {row["id"]: row for row in map(orjson.loads, whole)}
    runs.write_bytes(path, header + b"".join(orjson.dumps(row) + b"\n" for row in rows.values()))
    return rows


def inputs(task: Task, options: Options, articles: list[Article]) -> dict[str, Any]:
    """All that predictions depend on."""
    code = [Path(__file__), *(Path(predictor.__file__).with_name(f"{name}.py") for name in CODE)]
    adapter = {name: options.adapter / name for name in models.ADAPTER_FILES} if options.adapter else {}
    return {
        **{path.name: path for path in code},
        **adapter,
        **(task.prompt_sources() if "prompt" in task.spec else {}),
        "model": options.model,
        "output_schema": orjson.dumps(task.output_schema).decode(),  # the order of its keys counts
        "predict": task.spec.get("predict"),
        "input": [[article.id, article.body, article.pair] for article in articles],
        "constrain": options.constrain,
        "server": [options.server, options.served_model, options.prompt_as],
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

    Raises:
        UserError: Nothing can be written to options.output.
    """
    if os.path.lexists(options.output) and not options.output.is_file():
        raise UserError(f"{relative(options.output)}: is a folder or device; name a JSONL file as --output")
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


def articles_of(task: Task, options: Options, skip_bad: bool) -> list[Article]:
    """Read the articles; what is bad among them is shown and left out, or stops it all.

    Raises:
        UserError: There are bad ones, which are not to be skipped, or no good ones.
    """
    articles, problems = (
        read_scenes(task, options.input) if task.is_chat else read_articles(options.input, task.text_keys)
    )
    if problems and not (skip_bad and articles):
        raise UserError([*problems, "nothing was started; mend these, or leave them out with --skip-bad"])
    for problem in problems:
        show(f"warning: {problem}; skipped", style="yellow")
    if problems:
        show(f"predict: {len(problems)} problem(s), {len(articles)} good article(s)", style="yellow")
    return articles


def command(
    task: Annotated[str, typer.Argument(help="A recipe: a folder under recipes/ with a task.yml.")],
    model: Annotated[Path | None, typer.Option(help="A model's folder.  [default: outputs/TASK/merged]")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter's folder, on its base or --model.")] = None,
    input: Annotated[Path | None, typer.Option(help="JSONL, CSV or folder.  [default: the test set]")] = None,
    output: Annotated[Path | None, typer.Option(help="[default: outputs/TASK/predictions.jsonl]")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many articles.")] = None,
    constrain: Annotated[bool, typer.Option(help="Hold answers to the task's output_schema, or mend them.")] = True,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows of the input out.")] = False,
    server: Annotated[str | None, typer.Option(help="A server's base URL, http://localhost:8000/v1.")] = None,
    served_model: Annotated[str | None, typer.Option(help="Its model.  [default: the only one there]")] = None,
    prompt_as: Annotated[PromptAs, typer.Option(help="What the server gets.")] = "ids",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the server at a time.")] = 16,
) -> None:
    """Predict JSON for every article of a task's test set."""
    it = load_task(task)
    if it.is_chat and (server or not constrain):
        raise UserError("--server and --no-constrain are for tasks whose answers are extracted; leave them out")
    if it.estimates and (server or adapter or not constrain):
        raise UserError("--server, --adapter and --no-constrain are for tasks whose answers are texts; leave them out")
    usual = not any((model, adapter, input, limit, skip_bad, server)) and constrain
    log_to("predict", it.outputs if usual else None)
    if output is None and not usual:
        raise UserError("--output is missing: with other than the usual model or articles, say where to write")
    if server and adapter:
        raise UserError("--adapter does not go with --server: the server has the model; serve the merged one")
    options = Options(
        model or (None if adapter else it.outputs / "merged"), adapter, input or it.test_path("input"),
        output or it.outputs / "predictions.jsonl", constrain, batch_size,
        server, served_model, prompt_as, concurrency,
    )  # fmt: skip
    predictor.check(it, options.model, adapter)
    articles = articles_of(it, options, skip_bad)
    step = Step(it.outputs, "predict", inputs(it, options, articles), [options.output])
    if usual and step.done():
        show("predict: up to date")
        return
    rows = predict(it, options, articles[:limit], runs.digest(step.input_digests))
    good = sum(row["valid"] for row in rows)
    what = "estimated" if it.estimates else "that end" if it.is_chat else "with valid JSON"
    show(f"predict: {len(rows)} {'scenes' if it.is_chat else 'articles'}, {good} {what} -> {relative(options.output)}")
    if usual:
        step.record(articles=len(rows), valid=good)


if __name__ == "__main__":
    main(command)
