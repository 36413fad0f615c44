"""Chat in a terminal with a task's model, as a character who has memories and stands in a relation to you.

    uv run tools/chat.py companion
    uv run tools/chat.py companion --set affection_level=lover --memory 猫のミケと暮らしている
    uv run tools/chat.py aku --set relation=4 --set mood=0
    uv run tools/chat.py companion --server http://localhost:8000/v1       # a model that vLLM or Ollama serves
    printf 'おはよう\\nまたね\\n' | uv run tools/chat.py companion             # each line a turn, replies on stdout

/help tells the commands. Nothing is kept that /save does not write. docs/deploy.md
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from recipekit import chat_fields, models
from recipekit.chat_model import ChatModel, Sampling
from recipekit.console import main, show
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.export_model import Exported
from recipekit.hub import setting
from recipekit.kinds import need_chat
from recipekit.task import Task, load_task
from recipekit.terminal_chat import LocalReplies, Replies, ServerReplies, Talk, obey


def quiet() -> None:
    """Keep the words of libraries out of the conversation."""
    from transformers.utils import logging as of_transformers

    logging.disable(logging.WARNING)
    of_transformers.disable_progress_bar()


def local(task: Task, model: Path | None, adapter: Path | None, sampling: Sampling) -> Replies:
    """Load the model.

    Raises:
        UserError: There is none, or its tokenizer has no chat template.
    """
    if adapter and not model:
        remedy = f"train the phase first: uv run tools/train.py {task.name} {adapter.name}"
        model = Path(models.base_of(adapter, models.check_adapter(adapter, remedy), task.root))
    folder = model or task.outputs / "merged"
    show(f"chat: loading {folder.name} ...")
    chat = ChatModel.load(folder, adapter)
    if not chat.tokenizer.chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template; merge the model again, or name another --model")
    return LocalReplies(chat, sampling)


def remote(task: Task, url: str, served: str | None, model: Path | None, sampling: Sampling) -> Replies:
    """Reach the server; the model's folder, where there is one, gives the tokenizer that counts."""
    folder = model or task.outputs / "merged"
    found = (folder / "config.json").is_file()
    exported = Exported.of(task, folder) if found else None
    key = setting(task.root, "OPENAI_API_KEY")
    if exported and exported.has_template:
        return ServerReplies(url, key, served, sampling, exported.tokenizer, exported.num_ctx)
    return ServerReplies(url, key, served, sampling, None, None)


def lines(interactive: bool) -> Iterator[str]:
    """Yield what is typed; Ctrl-C at the prompt empties the line, Ctrl-D ends."""
    if not interactive:
        try:
            yield from (line.strip() for line in sys.stdin)
        except UnicodeDecodeError as error:
            raise UserError(f"stdin: not UTF-8 (byte {error.start}); give UTF-8 text, a turn a line") from None
        return
    import readline  # noqa: F401  # gives input() its history and keys

    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            show("(/quit or Ctrl-D ends)", style="dim")


def reply(talk: Talk, name: str) -> None:
    """Answer the last turn on stdout."""
    started = False

    def write(piece: str) -> None:
        nonlocal started
        piece = piece if started else piece.lstrip()
        if piece:
            print(piece if started else f"{name}{piece}", end="", flush=True)
            started = True

    before = len(talk.turns)
    try:
        left_out = talk.answer(write)
    finally:
        print(flush=True)
    if len(talk.turns) < before:
        show("(no reply; the turn is taken back)", style="yellow", log=False)
    elif "train" in talk.turns[-1]:
        show("(stopped)", style="yellow")
    if left_out:
        show(
            f"(the oldest {left_out} turns are left out: the model reads {talk.replies.context:,} tokens)", style="dim"
        )


def another(talk: Talk, name: str) -> None:
    """Answer the last turn anew; the reply that was there stays where that fails."""
    before = list(talk.turns)
    talk.say(talk.undo())
    try:
        reply(talk, name)
    finally:
        if len(talk.turns) < len(before):
            talk.turns = before


def converse(talk: Talk, interactive: bool) -> None:
    """Take turns until the end; what goes wrong with one is shown, and the conversation goes on."""
    name = f"{talk.reads.task.spec['chat'].get('character', '')}：" if interactive else ""
    wrong = 0
    for line in lines(interactive):
        if line == "/quit":
            break
        try:
            if line == "/again":
                another(talk, name)
            elif line.startswith("/") and not line.startswith("//"):
                if (found := obey(talk, line)) is None:
                    raise UserError(f"{line.split()[0]}: no such command; /help tells them")
                show(found, log=False)
            elif line:
                talk.say(line.removeprefix("/") if line.startswith("//") else line)
                reply(talk, name)
        except UserError as error:
            wrong += 1
            for problem in error.problems:
                show(f"error: {problem}", style="bold red", log=False)
    if wrong and not interactive:
        raise UserError(f"{wrong} of the lines could not be carried out")


def command(
    task: Annotated[str, typer.Argument(help="A recipe whose kind is chat.")],
    model: Annotated[Path | None, typer.Option(help="A merged model.  [default: outputs/TASK/merged]")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A phase's adapter, on its base or on --model.")] = None,
    fields: Annotated[list[str], typer.Option("--set", help="name=value; may be repeated.")] = [],  # noqa: B006
    memory: Annotated[list[str], typer.Option(help="What the character remembers; may be repeated.")] = [],  # noqa: B006
    server: Annotated[str | None, typer.Option(help="A server's base URL, http://localhost:8000/v1.")] = None,
    served_model: Annotated[str | None, typer.Option(help="Its model.  [default: the only one there]")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token.")] = 0.8,
    top_p: Annotated[float, typer.Option(min=0.01, max=1)] = 0.9,
    top_k: Annotated[int, typer.Option(min=1, help="Not sent to a server.")] = 40,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 42,
) -> None:
    """Chat with a model."""
    it = load_task(task)
    need_chat(it, "chat")
    if adapter and server:
        raise UserError("--adapter does not go with --server: the server has the model; serve the merged one")
    reads = Conversations(it)
    known = chat_fields.middle(reads) | chat_fields.parse_fields(reads, fields, memory)
    quiet()
    sampling = Sampling(max_new_tokens, temperature, top_p, top_k, seed)
    replies = remote(it, server, served_model, model, sampling) if server else local(it, model, adapter, sampling)
    interactive = sys.stdin.isatty()
    if interactive:
        show(f"chat: {it.title}; /help tells the commands, /quit ends", style="bold")
    converse(Talk(reads, replies, known, max_new_tokens, seed), interactive)


if __name__ == "__main__":
    main(command)
