"""How fast prediction decodes, against `model.generate`, one prompt after the other, at the same answers.

    uv run benchmarks/predict_speed.py --model outputs/hawks/merged --articles 100

Figures and the machine they were measured on stand in docs/performance.md.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from rich.table import Table

from recipekit import decoding
from recipekit.console import main, progress, show
from recipekit.errors import UserError
from recipekit.inputs import read_articles
from recipekit.predictor import LocalPredictor
from recipekit.task import load_task
from recipekit.windows import prompts

Answers = dict[int, list[int]]  # a prompt's place -> tokens without eos


def batched(predictor: LocalPredictor, ids: list[list[int]], grammar: Any) -> Iterator[tuple[int, list[int]]]:
    """Decode as prediction does."""
    for one in decoding.generate(
        predictor.model, ids, grammar, eos=predictor.eos, max_new_tokens=predictor.most,
        batch_size=predictor.batch_size,
    ):  # fmt: skip
        yield one.index, one.ids


def one_by_one(predictor: LocalPredictor, ids: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Decode with transformers' own greedy search."""
    for place, prompt in enumerate(ids):
        tokens = torch.tensor([prompt], device=predictor.model.device)
        out = predictor.model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, num_beams=1, use_cache=True,
            max_new_tokens=predictor.most, eos_token_id=predictor.eos, pad_token_id=predictor.eos,
        )  # fmt: skip
        yield place, [token for token in out[0, len(prompt) :].tolist() if token != predictor.eos]


def timed(name: str, count: int, decode: Callable[[], Iterator[tuple[int, list[int]]]]) -> tuple[Answers, float]:
    """Decode all; returns the answers and the seconds it took."""
    with progress(name, count) as advance:
        started = time.perf_counter()
        answers = {}
        for place, tokens in decode():
            answers[place] = tokens
            advance()
        return answers, time.perf_counter() - started


def speed(
    model: Annotated[Path, typer.Option(help="A model's folder.")],
    articles: Annotated[int, typer.Option(min=1, help="How many articles of the input.")] = 100,
    task: Annotated[str, typer.Option(help="A recipe.")] = "hawks",
    input: Annotated[Path | None, typer.Option(help="Articles.  [default: the test set]")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
) -> None:
    """Measure articles a second; exit 1 where the batched answers are not those of `model.generate`."""
    it = load_task(task)
    predictor = LocalPredictor.load(it, model, batch_size=batch_size)
    read, problems = read_articles(input or it.test_path("input"))
    if problems:
        raise UserError(problems)
    ids = [p for one in read[:articles] for p in prompts(it, predictor.tokenizer, one.body, predictor.room)]
    list(batched(predictor, ids[:2], None))  # warms up
    plain, plain_seconds = timed("model.generate", len(ids), lambda: one_by_one(predictor, ids))
    ours, seconds = timed("batched", len(ids), lambda: batched(predictor, ids, None))
    _, held_seconds = timed("batched, held to the schema", len(ids), lambda: batched(predictor, ids, predictor.grammar))
    same = sum(ours[place] == plain[place] for place in plain)
    table = Table("decoding", "articles/s", "times", "seconds")
    for name, took in (
        ("model.generate, one by one", plain_seconds),
        (f"batches of {batch_size}", seconds),
        (f"batches of {batch_size}, held to the schema", held_seconds),
    ):
        table.add_row(name, f"{len(ids) / took:.2f}", f"{plain_seconds / took:.1f}", f"{took:.1f}")
    show(table)
    show(f"{torch.get_num_threads()} thread(s), torch {torch.__version__}, transformers {transformers.__version__}")
    show(f"token ids: {same} of {len(plain)} answers are those of model.generate")
    if same < len(plain):
        raise typer.Exit(1)


if __name__ == "__main__":
    main(speed)
