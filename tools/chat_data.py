"""Make and check the data of chat tasks (companion, aku).

    uv run tools/chat_data.py check FILES --task companion                        # what is wrong, and what is in it
    uv run tools/chat_data.py scenes scenes.yml --task companion --output hand.jsonl       # written by hand
    uv run tools/chat_data.py generate scenarios.yml --task companion --output made.jsonl  # written by a model
    uv run tools/chat_data.py wrap talks.jsonl --task companion --output real.jsonl        # real ones, masked
    uv run tools/chat_data.py form answers.csv --task aku --output form.jsonl              # answers of a form
    uv run tools/chat_data.py augment hand.jsonl --task companion --output more.jsonl --draw emotion=0.3

Files are written whole or not at all, and never over another without --force. Formats and examples: docs/chat_data.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from recipekit import chat_augment, chat_check, chat_form, chat_real, chat_scenes, chat_talks
from recipekit import chat_quality as quality
from recipekit.chat_fields import parse_fields
from recipekit.chat_generate import Asking, Generator, Kept, expected
from recipekit.chat_making import NEAR, check_target, load, read_text, source, write
from recipekit.chat_pace import Pace
from recipekit.chat_scenarios import Job, Scenarios
from recipekit.console import log_to, main, progress, show
from recipekit.conversations import Conversations
from recipekit.endpoint import connect
from recipekit.errors import UserError
from recipekit.hub import masked, setting
from recipekit.runs import relative, write_jsonl

PUBLIC = "https://api.openai.com/v1"

Files = Annotated[list[Path], typer.Argument(help="Files to read")]
TaskName = Annotated[str, typer.Option("--task", help="A recipe of kind chat")]
Output = Annotated[Path, typer.Option(help="The file to write, .jsonl")]
Force = Annotated[bool, typer.Option("--force", help="Write over the output where it exists")]
Fields = Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE of every row; several times")]
KeyFile = Annotated[Path | None, typer.Option(help="Key file *.pii-key.json to turn masking back; none: nothing can")]
Fast = Annotated[bool, typer.Option("--fast", help="Mask without GiNZA: 100 times as fast, finds fewer names")]
Alike = Annotated[float, typer.Option(min=0.1, max=1, help="Jaccard from which on conversations are near duplicates")]


def _checked(conversations: Conversations, files: list[Path]) -> chat_check.Checked:
    with progress("read", None) as advance:
        return chat_check.check(conversations, files, advance)


def _counted(title: str, counts: Mapping[str, int]) -> None:
    if any(counts.values()):
        show(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items() if count))


def check(files: Files, task: TaskName, near: Alike = NEAR) -> None:
    """Tell what is wrong with files of conversations and preferences, and what is in them."""
    log_to("chat_data")
    conversations = load(task)
    checked = _checked(conversations, files)
    rows = [row for _, row in checked.rows]
    for path, count in checked.read.items():
        show(f"{relative(path)}: {count:,} rows, {len(checked.problems[path]):,} problems")
    if rows:
        show(chat_check.sizes(conversations, rows))
        show(chat_check.distribution(conversations, rows))
    for line in chat_check.warnings(checked, near):
        show(f"warning: {line}", style="yellow")
    if checked.errors:
        raise UserError(checked.errors)


def scenes(files: Files, task: TaskName, output: Output, force: Force = False) -> None:
    """Make rows of scenes that were written by hand in YAML."""
    log_to("chat_data")
    conversations = load(task)
    check_target(output, files, force)
    rows = chat_scenes.read(conversations, files)
    write(conversations, output, rows)
    show(f"{relative(output)}: {len(rows):,} rows")


def generate(
    scenarios: Annotated[Path, typer.Argument(help="YAML file of scenarios and personas")],
    task: TaskName,
    output: Output,
    served_model: Annotated[str, typer.Option(help="The model's name at the endpoint")],
    server: Annotated[str | None, typer.Option(help="Base URL; else OPENAI_BASE_URL, else OpenAI's")] = None,
    prompt: Annotated[Path | None, typer.Option(help="[default: prompts/generate.txt of the recipe]")] = None,
    price_in: Annotated[float | None, typer.Option(min=0, help="USD for a million tokens read")] = None,
    price_out: Annotated[float | None, typer.Option(min=0, help="USD for a million tokens written")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests under way at a time")] = 4,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer")] = 2048,
    tries: Annotated[
        int, typer.Option(min=1, help="Times that a conversation is asked for until its form is right")
    ] = 2,
    near: Alike = NEAR,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking")] = False,
    force: Force = False,
) -> None:
    """Have a model write conversations; the key is OPENAI_API_KEY, in the environment or .env."""
    log_to("chat_data")
    conversations = load(task)
    root = conversations.task.root
    check_target(output, [scenarios], force)
    if (price_in is None) != (price_out is None):
        raise UserError("--price-in and --price-out go together: USD for a million tokens read, and written")
    jobs = Scenarios(conversations, scenarios).jobs(prompt or conversations.task.dir / "prompts" / "generate.txt")
    url = server or setting(root, "OPENAI_BASE_URL") or PUBLIC
    asking = Asking(masked(url), served_model, temperature, max_tokens, tries, concurrency)
    client = connect(url, setting(root, "OPENAI_API_KEY"))
    generator = Generator(conversations, client, asking, Pace(requests_per_minute, tokens_per_minute), Kept(output))
    prices = None if price_in is None or price_out is None else (price_in, price_out)
    _run(generator, jobs, prices, yes)
    found = generator.result(jobs, near, prices)
    _counted("dropped", found.dropped)
    for reason, example in found.examples.items():
        show(f"    {reason}: {example}", log=False)
    write(conversations, output, found.rows)
    generator.kept.remove()
    show(f"{relative(output)}: {len(found.rows):,} rows; {found.cost}")


def _run(generator: Generator, jobs: list[Job], prices: tuple[float, float] | None, yes: bool) -> None:
    """Show the cost of what is missing, ask, and have it written."""
    left, asking = generator.left(jobs), generator.asking
    about, most = expected(left, prices, asking.max_tokens)
    done = len(jobs) - len(left)
    show(f"generate: {len(jobs):,} conversations, {done:,} of them done; {asking.model} at {asking.url}")
    show(f"  about {about}; at most {most}" + ("" if prices else "; --price-in and --price-out show the cost"))
    if left and not yes:
        typer.confirm("go on?", abort=True, err=True)
    with progress("generate", len(left)) as advance:
        generator.run(jobs, advance)


def wrap(
    files: Files,
    task: TaskName,
    output: Output,
    assistant: Annotated[str | None, typer.Option(help="Speaker who becomes the model; else who speaks second")] = None,
    persona: Annotated[Path | None, typer.Option(help="File that says who the model is; else persona.txt")] = None,
    fields: Fields = None,
    min_turns: Annotated[int, typer.Option(min=2)] = 4,
    max_characters: Annotated[int, typer.Option(min=1, help="Longest turn")] = 400,
    max_total: Annotated[int, typer.Option(min=1, help="Longest conversation (characters)")] = 1800,
    japanese: Annotated[float, typer.Option(min=0, max=1, help="Least share of Japanese letters")] = 0.7,
    words: Annotated[Path, typer.Option(help="YAML list of unsafe words")] = quality.WORDS,
    key: KeyFile = None,
    fast: Fast = False,
    force: Force = False,
) -> None:
    """Make rows of real conversations: judged, masked and wrapped with a persona."""
    log_to("chat_data")
    conversations = load(task)
    rejected = output.with_name(f"{output.stem}.rejected.jsonl")
    paths = chat_talks.files(files)
    for target in (output, rejected):
        check_target(target, paths, force)
    limits = quality.Limits(min_turns, max_characters, max_total, japanese, words=quality.read_words(words))
    own = source(conversations, "real") | parse_fields(conversations, fields or [])
    wrapping = chat_real.Wrapping(conversations, limits, assistant, own, _persona(persona), output.stem)
    if missing := [name for name in conversations.attribute if name not in own]:
        raise UserError(
            f"--set {missing[0]}=... is missing: {task} has attribute [{', '.join(conversations.attribute)}]"
        )
    with progress("judge and mask", None) as advance:
        done = chat_real.wrap(chat_talks.read(paths), wrapping, key, not fast, advance)
    _counted("rejected, by reason", dict(done.reasons.most_common()))
    _counted("changed", done.counts)
    _counted("masked", done.found)
    show(f"  {len(done.rejected):,} of {done.read:,} conversations rejected: {relative(rejected)}")
    write_jsonl(rejected, done.rejected)
    write(conversations, output, done.rows)
    show(f"{relative(output)}: {len(done.rows):,} rows; masking misses some names: look through them")


def _persona(path: Path | None) -> str | None:
    if path is None:
        return None
    text = read_text(path, "a file that says who the model is").strip()
    if not text:
        raise UserError(f"{relative(path)}: the file is empty; say who the model is")
    return text


def form(
    file: Annotated[Path, typer.Argument(help="CSV file of a form's answers, UTF-8 or CP932")],
    task: TaskName,
    output: Output,
    questions: Annotated[Path | None, typer.Option(help="YAML: question -> say, and fields of task.yml")] = None,
    answers: Annotated[
        Literal["reply", "opening"], typer.Option(help="What answers are: the model's reply, or the user's opening")
    ] = "reply",
    respondent: Annotated[str | None, typer.Option(help="Column that tells who answered")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Column that is no question; several times")] = None,
    fields: Fields = None,
    key: KeyFile = None,
    fast: Fast = False,
    force: Force = False,
) -> None:
    """Make rows of a form's answers, masked, respondents by number."""
    log_to("chat_data")
    conversations = load(task)
    check_target(output, [file], force)
    own = source(conversations, "form") | parse_fields(conversations, fields or [])
    forming = chat_form.Forming(conversations, chat_form.Questions.read(conversations, questions), own, answers)
    found = chat_form.read(conversations, file, respondent, skip or [])
    with progress("mask", None) as advance:
        done = chat_form.form(file, found, forming, key, not fast, advance)
    show(f"  {len(found):,} answers of {done.respondents:,} respondents, {done.empty:,} of them empty")
    _counted("masked", done.found)
    write(conversations, output, done.rows, scenes=answers == "opening")
    show(f"{relative(output)}: {len(done.rows):,} rows; masking misses some names: look through them")


def augment(
    files: Files,
    task: TaskName,
    output: Output,
    draw: Annotated[list[str] | None, typer.Option(help="FIELD=SHARE of rows that get a copy; several times")] = None,
    texts: Annotated[list[str] | None, typer.Option(help="FIELD=FILE, a list of texts to draw from")] = None,
    seed: int = 1,
    replace: Annotated[bool, typer.Option("--replace", help="Also copy rows that say the field already")] = False,
    copies_only: Annotated[bool, typer.Option("--copies-only", help="Write the copies without the rows")] = False,
    force: Force = False,
) -> None:
    """Add copies of rows with another emotion, affection level or memories, and the same replies."""
    log_to("chat_data")
    conversations = load(task)
    check_target(output, files, force)
    lists = chat_augment.read_texts(texts or [])
    shares = chat_augment.read_shares(conversations, draw or [], lists)
    checked = _checked(conversations, files)
    nameless = [f"{place}: id: missing; give it one" for place, row in checked.rows if row.get("id") in (None, "")]
    if checked.errors or nameless:
        raise UserError([*checked.errors, *nameless])
    rows = [row for _, row in checked.rows]
    done = chat_augment.augment(conversations, rows, shares, lists, seed, replace)
    _counted("copies", done.copies)
    _counted("left alone, as they say it already", done.has)
    written = done.rows if copies_only else [*rows, *done.rows]
    write(conversations, output, written)
    show(f"{relative(output)}: {len(written):,} rows, {len(done.rows):,} of them copies")


if __name__ == "__main__":
    main(check, scenes, generate, wrap, form, augment)
