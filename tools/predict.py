"""Predict: a model's JSON for every article of the test set, one line each.

    uv run tools/predict.py hawks                                                              # the merged model
    uv run tools/predict.py hawks --adapter outputs/hawks/phase1 --output outputs/phase1.jsonl  # phase 1 alone
    uv run tools/predict.py hawks --model data/samples/base --output outputs/base.jsonl         # the bare base

Greedy, in batches, held to the output_schema of task.yml. A run that was stopped goes on where it was: its finished
rows wait in <output>.partial.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import orjson
import typer

from recipekit import models, runs
from recipekit.console import log_to, main, progress, show
from recipekit.errors import UserError
from recipekit.runs import Step, relative
from recipekit.segments import encode, read_jsonl
from recipekit.task import Task, load_task

Row = dict[str, Any]
Articles = list[tuple[int, Row]]  # with line numbers


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


def read_articles(path: Path) -> Articles:
    """Read what is to be predicted, with line numbers.

    Raises:
        UserError: The file is missing or empty, or lines of it are broken, lack id or body, or repeat an id.
    """
    articles: Articles = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    try:
        for line, row in read_jsonl(path):
            place = f"{relative(path)}:{line}"
            for key in ("id", "body"):
                if not isinstance(row.get(key), str) or not row[key].strip():
                    problems.append(f"{place}: key '{key}': expected text, found {row.get(key)!r}; add it")
            if isinstance(row.get("id"), str) and seen.setdefault(row["id"], line) != line:
                problems.append(f"{place}: id '{row['id']}' stands on line {seen[row['id']]} already; ids are unique")
            articles.append((line, row))
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    return articles


def load(task: Task, options: Options) -> tuple[Any, Any]:
    """Load model and tokenizer, in bfloat16 onto a GPU or in float32 on the CPU; an adapter is merged in memory."""
    import torch

    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if options.adapter is None:
        assert options.model is not None
        return models.load_model(options.model, dtype), models.load_tokenizer(options.model)
    from peft import PeftModel

    config = models.check_adapter(options.adapter, "train the phase again")
    source = options.model or models.base_of(options.adapter, config, task.root)
    model = PeftModel.from_pretrained(models.load_model(source, dtype), str(options.adapter))
    return model.merge_and_unload(), models.load_tokenizer(options.adapter)


def encode_prompts(task: Task, tokenizer: Any, articles: Articles, room: int, path: Path) -> list[list[int]]:
    """Tokenise the prompts as they were for training.

    Raises:
        UserError: Articles are longer than `room`, the tokens that context and answer leave.
    """
    prompts = [encode(tokenizer, task.prompt(row["body"])) for _, row in articles]
    problems = [
        f"{relative(path)}:{line}: the prompt of '{row['id']}' has {len(ids)} tokens, and the model's context less "
        f"predict.max_new_tokens leaves {room}; shorten the article, or lower max_new_tokens in task.yml"
        for (line, row), ids in zip(articles, prompts, strict=True)
        if len(ids) > room
    ]
    if problems:
        raise UserError(problems)
    return prompts


def check_prompt(task: Task, model: Path) -> None:
    """Refuse a merged model that was trained with another prompt.

    Raises:
        UserError: The prompt of today is not the one that the model learned.
    """
    trained = runs.read_record(model / "recipe.json").get("prompt")
    if trained not in (None, task.prompt_digest()):
        raise UserError(
            f"{relative(model)}: trained with another prompt than recipes/{task.name}/prompts has now, and it answers "
            f"worse to this one; train again (uv run bash train_all.sh {task.name}), or restore the prompt with git"
        )


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


def decode(task: Task, options: Options, articles: Articles) -> Iterator[Row]:
    """Predict articles, in whatever order they are done."""
    from recipekit import decoding

    model, tokenizer = load(task, options)
    eos = tokenizer.convert_tokens_to_ids(task.spec["prompt"]["eos"])
    if eos in (None, tokenizer.unk_token_id):
        raise UserError(f"prompt.eos in task.yml: the model's tokenizer has no token {task.spec['prompt']['eos']}")
    most = task.spec.get("predict", {}).get("max_new_tokens", 1024)
    room = decoding.context_length(model.config) - most
    prompts = encode_prompts(task, tokenizer, articles, room, options.input)
    grammar = None
    if options.constrain:
        grammar = decoding.Grammar(tokenizer, task.output_schema, model.config.vocab_size, eos)
    valid = jsonschema.Draft202012Validator(task.output_schema).is_valid
    for generation in decoding.generate(
        model, prompts, grammar, eos=eos, max_new_tokens=most, batch_size=options.batch_size
    ):
        raw = tokenizer.decode(generation.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield {"id": articles[generation.index][1]["id"], **parse(raw, generation.finished, valid)}


def parse(raw: str, finished: bool, valid: Any) -> Row:
    """Make the answer's part of a prediction; cut off or not as the schema says, it has no output."""
    try:
        output = orjson.loads(raw) if finished else None
    except orjson.JSONDecodeError:
        output = None
    good = output is not None and valid(output)
    return {"output": output if good else None, "raw": raw, "valid": good}


def inputs(task: Task, options: Options) -> dict[str, Any]:
    """All that predictions depend on."""
    kit = Path(models.__file__).parent
    code = [Path(__file__), kit / "decoding.py", kit / "models.py", kit / "segments.py"]
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


def predict(task: Task, options: Options, articles: Articles, run: str) -> list[Row]:
    """Predict articles and write them to options.output in the input's order, whole or not at all.

    Args:
        task: The task.
        options: Model, output and so on.
        articles: From `read_articles`.
        run: Digest of all that predictions depend on; rows of a stopped run count only where it is the same.
    """
    partial = options.output.with_name(options.output.name + ".partial")
    rows = read_partial(partial, run)
    missing = [article for article in articles if article[1]["id"] not in rows]
    if rows:
        show(f"predict: {len(articles) - len(missing)} of {len(articles)} are done, going on")
    with progress("predict", len(articles)) as advance, partial.open("ab", buffering=0) as stream:
        advance(len(articles) - len(missing))
        for row in decode(task, options, missing) if missing else ():
            stream.write(orjson.dumps(row) + b"\n")
            rows[row["id"]] = row
            advance()
    ordered = [rows[article["id"]] for _, article in articles]
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
    if options.model:
        models.check_model(options.model, f"run uv run tools/merge.py {task} --profile cpu or gpu, or mend --model")
        check_prompt(it, options.model)
    if adapter:
        models.check_adapter(adapter, "train the phase again, or mend --adapter")
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
