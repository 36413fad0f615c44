"""Rank the responses to an odai by the merged model of a ranking task, the best first.

    uv run tools/rank.py ogiri "こんな図書館はいやだ" "本がぜんぶ逆さま" "司書がいちばんうるさい"
    uv run tools/rank.py ogiri --caption "電車を運転する犬。" --file responses.txt      # one a line; - is stdin
    uv run tools/rank.py ogiri "こんな図書館はいやだ" --file - --json < responses.txt

What the model reads is made as for training: data.rows of task.yml says how, of the keys odai and caption.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from recipekit import models
from recipekit.console import log_to, main
from recipekit.errors import UserError
from recipekit.formats import Converter
from recipekit.regressor import Regressor, read_facts
from recipekit.runs import relative
from recipekit.task import Task, load_task

MOST = 10_000  # responses


def read_responses(given: list[str], file: Path | None) -> list[str]:
    """Gather responses from arguments and from a file with one a line; blank ones are none.

    Raises:
        UserError: The file cannot be read, or there are no responses, or too many.
    """
    lines = list(given)
    if file is not None:
        shown = "standard input" if str(file) == "-" else relative(file)
        try:
            content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
            lines += content.decode("utf-8-sig").splitlines()
        except FileNotFoundError:
            raise UserError(f"{shown}: no such file; write one response a line into it") from None
        except OSError as error:
            raise UserError(f"{shown}: cannot be read ({error.strerror}); name a text file") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise UserError(f"{shown}:{line}: not UTF-8; save the file as UTF-8") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise UserError("no responses; give them as arguments, or with --file, one a line")
    if len(found) > MOST:
        raise UserError(f"{len(found):,} responses, expected at most {MOST:,}; for more use tools/predict.py --input")
    return found


def read_odai(task: Task, odai: str, caption: str) -> str:
    """Write an odai the way that training rows have it.

    Raises:
        UserError: It is empty, or data.rows of task.yml asks for other keys.
    """
    if not (odai.strip() or caption.strip()):
        raise UserError("no odai; give its words as the second argument, or say what the picture shows with --caption")
    spec = task.spec["data"].get("rows", {}) | {"label": {}, "pair": "odai"}
    return task.clean(Converter(task, spec)({"odai": odai, "caption": caption})["body"])


def rank(
    task: Annotated[str, typer.Argument(help="A recipe whose kind is ranking.")],
    odai: Annotated[str, typer.Argument(help="Words of the odai; empty where it is a picture alone.")] = "",
    responses: Annotated[list[str] | None, typer.Argument(help="Responses.")] = None,
    caption: Annotated[str, typer.Option(help="What the odai's picture shows.")] = "",
    file: Annotated[Path | None, typer.Option(help="Responses, one a line; - is standard input.")] = None,
    model: Annotated[Path | None, typer.Option(help="A merged model.  [default: outputs/TASK/merged]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Rank responses to an odai."""
    log_to("rank")
    it = load_task(task)
    if it.kind != "ranking":
        raise UserError(f"{it.name} is of kind {it.kind}, which ranks nothing; give one of kind ranking, such as ogiri")
    texts = read_responses(responses or [], file)
    body = read_odai(it, odai, caption)
    folder = model or it.outputs / "merged"
    models.check_model(folder, f"train it with uv run bash train_all.sh {it.name}, or mend --model")
    read_facts(folder)
    values = Regressor.load(folder).predict([body] * len(texts), [it.clean(text) for text in texts])[:, 0]
    order = sorted(range(len(texts)), key=lambda i: -values[i])
    found = [{"rank": n, "score": round(float(values[i]), 3), "response": texts[i]} for n, i in enumerate(order, 1)]
    if as_json:
        typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in found))
        return
    (target,) = it.targets.values()
    table = Table("", target.get("title", "score"), "", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].justify = table.columns[1].justify = "right"
    for row in found:
        table.add_row(str(row["rank"]), f"{row['score']:.2f}", str(row["response"]))
    Console(highlight=False, markup=False).print(table)


if __name__ == "__main__":
    main(rank)
