"""Draft: the current model drafts replies for new scenes, and a person accepts, edits or rejects them in a local page.

    uv run tools/draft.py aku --contexts scenes.yml           # scenes of a file: .yml, .jsonl or .csv
    uv run tools/draft.py aku --draw 20 --turns 5             # what the data lack most, to be begun by hand
    uv run tools/draft.py aku --server http://localhost:8000/v1

Each decision is on disk before the next: run the same command again to go on. Accepted conversations stand in
outputs/TASK/draft/accepted.jsonl as raw rows that say who wrote them: docs/draft.md.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from demo import free_port, launch
from recipekit import chat_bias, draft_input, draft_page
from recipekit.chat_model import Sampling
from recipekit.chat_rows import accepted_path
from recipekit.chat_said import Said, read_data
from recipekit.console import log_to, main, show
from recipekit.conversations import Conversations
from recipekit.draft_input import Gaps, Scene
from recipekit.draft_journal import Journal
from recipekit.draft_model import Drafter, LocalDrafter, ServerDrafter
from recipekit.draft_session import GOALS, Session, need_sources
from recipekit.errors import UserError
from recipekit.kinds import need_chat
from recipekit.process import hold
from recipekit.runs import relative
from recipekit.task import Task, load_task

DRAWN = 20  # scenes that are begun at a time


def choose_drafter(
    task: Task, model: Path | None, server: str | None, served: str | None, by_hand: bool, total: int
) -> Drafter | None:
    """Load who drafts; None: the person writes.

    The first 100 conversations are written by hand, as the model has nothing yet to learn from, unless one is named.

    Raises:
        UserError: A model that was named is not there, or options contradict each other.
    """
    given = {"--model": model, "--server": server, "--by-hand": by_hand}
    if len(names := [name for name, value in given.items() if value]) > 1:
        raise UserError(f"{' and '.join(names)}: leave all but one out")
    if by_hand:
        return None
    if server:
        return ServerDrafter(task, server, served)
    if served:
        raise UserError("--served-model: of a --server only; leave it out, or name the server")
    merged = task.outputs / "merged"
    if model is None and total < GOALS[0]:
        show(f"draft: {total} of {GOALS[0]} conversations; the first are written by hand (--model drafts all the same)")
        return None
    if model is None and not merged.is_dir():
        train = f"uv run bash train_all.sh {task.name}"
        show(f"draft: no model in {relative(merged)}: you write the replies; train one: {train}")
        return None
    return LocalDrafter(model or merged)


def fill_queue(
    session: Session, conversations: Conversations, before: Sequence[Said], scenes: Sequence[Scene], draw: int,
    turns: int, seed: int,
) -> None:  # fmt: skip
    """Give a session its scenes: those of a file, else those that are still open, and new ones until there are enough.

    Args:
        session: Of the journal.
        conversations: Of the task.
        before: The data beside the drafts.
        scenes: Of the file; none: draw some.
        draw: Open scenes that there are to be.
        turns: Exchanges of a drawn conversation.
        seed: Of the draws.
    """
    known = [row.conversation for row in before]
    known += [talk.conversation() for talk in session.talks.values() if talk.ended != "rejected"]
    gaps = Gaps(conversations, known, chat_bias.choose_pair(conversations, None), seed + len(session.talks))
    if scenes:
        session.add(scenes, gaps)
        return
    number = len(session.talks)
    new = [Scene(f"drawn-{number + i + 1:05}", {}, [], turns) for i in range(draw - len(session.open))]
    names = list(session.talks)
    session.add(new, gaps)
    session.choose([*names, *(scene.id for scene in new)])


def draft(
    task: str,
    contexts: Annotated[Path | None, typer.Option(help="Scenes to draft for: .yml, .jsonl or .csv")] = None,
    draw: Annotated[int | None, typer.Option(min=1, help="Begin so many scenes with what the data lack  [20]")] = None,
    turns: Annotated[
        int | None, typer.Option(min=1, help="Exchanges of a conversation  [as many as are given]")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A model's folder.  [default: outputs/TASK/merged]")] = None,
    server: Annotated[str | None, typer.Option(help="Base URL of an OpenAI-compatible server")] = None,
    served_model: Annotated[str | None, typer.Option(help="The model's name there")] = None,
    by_hand: Annotated[bool, typer.Option(help="Write all replies yourself")] = False,
    temperature: Annotated[float, typer.Option(min=0.01, max=2, help="Of the drafts")] = 0.8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest draft")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the drafts and draws")] = 0,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
) -> None:
    """Show a page on this machine on which drafts are accepted, edited or rejected."""
    recipe = load_task(task)
    need_chat(recipe, "draft")
    if contexts and draw:
        raise UserError("--contexts and --draw: leave one out; a file's scenes without fields get what the data lack")
    conversations = Conversations(recipe)
    need_sources(conversations)
    log_to("draft")
    scenes = draft_input.read(conversations, contexts, turns) if contexts else []
    before = read_data(conversations, drafts=False)
    port = free_port("127.0.0.1", port)
    folder = accepted_path(recipe).parent
    with hold(folder / "lock", f"draft {recipe.name}", page=f"http://127.0.0.1:{port}"):
        journal = Journal(folder / "journal.jsonl")
        sampling = Sampling(max_new_tokens, temperature, seed=seed)
        session = Session(conversations, journal, accepted_path(recipe), None, sampling, len(before))
        session.drafter = choose_drafter(recipe, model, server, served_model, by_hand, session.total)
        fill_queue(session, conversations, before, scenes, draw or DRAWN, turns or 1, seed)
        who = session.drafter.name if session.drafter else "you"
        show(f"draft: {session.total:,} conversations, {len(session.open)} scenes open; replies are drafted by {who}")
        try:
            launch(lambda: draft_page.build(session), "127.0.0.1", port, (), draft_page.CSS, draft_page.KEYS, "draft")
        finally:
            counts = ", ".join(f"{name} {number}" for name, number in session.counts().items())
            show(f"draft: {counts}; accepted ones go into {relative(accepted_path(recipe))}")


if __name__ == "__main__":
    main(draft)
