"""A task's data sets into data/raw/<task>/, each whole or not at all: from the Hugging Face Hub, or from this machine.

    uv run tools/download.py hawks
    uv run tools/download.py hawks --limit 100
    uv run tools/download.py bigfive --source real_persona_chat --from ~/real_persona_chat.tar.xz

What is fetched stands in task.yml (data.sources). SOURCE.json beside the files says which commit they are, under which
licence, and their sha256. A download that was cut goes on where it stopped when the same command runs again.
"""

from pathlib import Path
from typing import Annotated

import typer

from recipekit import journal, sources
from recipekit.console import log_to, main, show
from recipekit.errors import UserError
from recipekit.fetching import from_here, from_hub
from recipekit.process import hold
from recipekit.task import load_task


def download(
    task: str,
    source: Annotated[list[str] | None, typer.Option(help="one of the task's sources; without it all")] = None,
    from_: Annotated[Path | None, typer.Option("--from", help="a folder or archive here, in place of the Hub")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="the first rows alone, to try things")] = None,
) -> None:
    """Fetch a task's data sets into data/raw/TASK."""
    recipe = load_task(task)
    log_to("download", recipe.outputs)
    journal.begin(recipe.outputs, "download", {}, ["it always asks, for what is not here"], makes=False)
    wanted = sources.select(recipe, source or [])
    problems: list[str] = []
    with hold(recipe.root / "data" / "raw" / f".{task}.lock", f"a download of {task}"):
        if from_:
            from_here(wanted, from_, limit)
        else:
            for one in wanted:
                try:
                    from_hub(one, limit)
                except UserError as error:
                    problems += error.problems
    if problems:
        raise UserError(problems)
    if "train" in recipe.spec["data"]:
        show(f"  next: uv run tools/regenerate_segments.py {task}")


if __name__ == "__main__":
    main(download)
