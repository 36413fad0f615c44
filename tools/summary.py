"""How a run ended: the scores, where everything lies, and the next commands.

uv run tools/summary.py hawks
"""

import json
import os
from typing import Annotated

import typer

from recipekit import tables
from recipekit.console import main, show
from recipekit.errors import UserError
from recipekit.runs import relative
from recipekit.task import load_task


def summary(task: str, seconds: Annotated[int | None, typer.Option(help="how long the run took")] = None) -> None:
    """Show the score table, the artifacts and the next commands of a finished run."""
    recipe = load_task(task)
    out = recipe.outputs
    metrics = out / "evaluation" / "metrics.json"
    if not metrics.exists():
        raise UserError(f"{relative(metrics)}: no scores yet; run uv run bash train_all.sh {task}")
    show("")
    show(tables.OF_KIND[recipe.kind](json.loads(metrics.read_text(encoding="utf-8")), recipe.title))
    artifacts = {
        "model": out / "merged",
        "adapters": out / recipe.phases[-1],
        "predictions": out / "predictions.jsonl",
        "scores": out / "evaluation",
        "model card": out / "README.md",
    }
    for name, path in artifacts.items():
        show(f"  {name:<12} {relative(path)}")
    show(f"  {'logs':<12} {os.environ.get('LOG_DIR', 'logs/')}")
    show("next:")
    show("  uv run mlflow ui --backend-store-uri sqlite:///mlflow.db      # losses and scores at http://localhost:5000")
    show(f"  tmux new -s training 'uv run bash train_all.sh {task}'          # a run that outlives the connection")
    push = f"HF_REPO_ID=you/{recipe.spec['name']} uv run tools/upload.py {task}"
    show(f"  {push}               # push, with HF_AUTH_TOKEN in .env")
    if seconds is not None:
        show(f"done in {seconds // 60} min {seconds % 60} s", style="bold green")


if __name__ == "__main__":
    main(summary)
