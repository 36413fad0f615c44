"""A questionnaire about a chat's replies: people rate them from 1 to 5, without knowing whose they are.

    uv run tools/questionnaire.py companion
    uv run tools/questionnaire.py companion --compare A.jsonl B.jsonl      # replies of two models, under letters
    uv run tools/evaluate.py companion --ratings outputs/companion/questionnaire/ratings.csv

Writes questionnaire.html (to print), ratings.csv (to fill in: a row a reply and rater) and key.json (whose reply each
item is; keep it from those who rate).
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from recipekit import chat_questionnaire, chat_replies, runs
from recipekit.chat_ratings import KEY
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.kinds import need_chat
from recipekit.runs import relative
from recipekit.task import load_task


def questionnaire(
    task: str,
    predictions: Annotated[Path | None, typer.Option(help="JSONL; default outputs/TASK/predictions.jsonl")] = None,
    compare: Annotated[tuple[Path, Path] | None, typer.Option(help="two predictions files instead")] = None,
    scenes: Annotated[Path | None, typer.Option(help="JSONL; default the task's, below data/test/")] = None,
    number: Annotated[int, typer.Option(min=1, help="scenes in the form")] = 20,
    output: Annotated[Path | None, typer.Option(help="folder; default outputs/TASK/questionnaire")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the sample and the letters")] = 0,
    force: Annotated[bool, typer.Option(help="overwrite a ratings.csv that has ratings in it")] = False,
) -> None:
    """Write a form, a CSV and a key for a sample of replies."""
    recipe = load_task(task)
    need_chat(recipe, "questionnaire")
    if compare and predictions:
        raise UserError("--compare names both predictions files; leave --predictions away")
    files = list(compare) if compare else [predictions or recipe.outputs / "predictions.jsonl"]
    if len({path.resolve() for path in files}) < len(files):
        raise UserError(f"--compare: {relative(files[0])} is named twice; name two models' predictions")
    folder = output or recipe.outputs / "questionnaire"
    source = scenes or recipe.test_path("input")
    refuse_filled(folder / "ratings.csv", force)
    found = chat_replies.read_scenes(recipe, source)
    models = {relative(path): chat_replies.read_replies(recipe, path, found, source) for path in files}
    items = chat_questionnaire.draw(found, models, number, seed)
    digests = {relative(path): runs.digest(path) for path in files}
    content = json.dumps(chat_questionnaire.key(items, digests, seed), ensure_ascii=False, indent=2) + "\n"
    runs.write_text(folder / "questionnaire.html", chat_questionnaire.form(recipe, items))
    runs.write_text(folder / "ratings.csv", chat_questionnaire.template(items))
    runs.write_text(folder / KEY, content)
    replies = sum(len(item.replies) for item in items)
    show(f"questionnaire: {len(items)} scenes, {replies} replies; written to {relative(folder)}")


def refuse_filled(path: Path, force: bool) -> None:
    """Refuse to overwrite what people filled in.

    Raises:
        UserError: A row of the CSV has a rater or a rating.
    """
    if not force and path.exists():
        rows = [line.split(",") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]]
        if any(any(cell.strip(' "') for cell in [*row[:1], *row[2:]]) for row in rows):
            raise UserError(f"{relative(path)}: has ratings in it; name another --output, or overwrite it with --force")


if __name__ == "__main__":
    main(questionnaire)
