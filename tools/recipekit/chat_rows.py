"""Raw conversations -> what Axolotl's chat_template trains on: whole conversations, preferences, and test scenes."""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from recipekit import raw, rawfiles
from recipekit.conversations import Conversation, Conversations, Problem, Row, read_rows, trains
from recipekit.errors import UserError
from recipekit.runs import first_problems, relative
from recipekit.task import Task

KINDS = ("reply", "memory", "provocation", "attribute")  # of test scenes


@dataclass
class Written:
    """What was written.

    Attributes:
        rows: Name of a data set, or of the test file -> rows.
        lengths: Name of a file -> bytes of each of its lines.
        problems: One line each.
    """

    rows: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, array] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def chat_row(reader: Conversations, conversation: Conversation) -> Row:
    """Make the row that trains: messages, each of which says whether it does; of a preference both replies."""
    messages = reader.messages(conversation)
    own = {} if conversation.id is None else {"id": conversation.id}
    if conversation.chosen is not None and conversation.rejected is not None:
        replies = {"chosen": conversation.chosen, "rejected": conversation.rejected}
        said = {k: {"role": "assistant", "content": reader.defuse(v.strip())} for k, v in replies.items()}
        return {**own, "messages": messages, **said}
    flags = [False, *map(trains, conversation.messages)]  # the system message comes first
    return {**own, "messages": [{**m, "train": flag} for m, flag in zip(messages, flags, strict=True)]}


def difficulty(conversation: Conversation) -> tuple[int, int]:
    """Tell how hard a conversation is: turns, then characters of the replies."""
    said = sum(len(m["content"]) for m in conversation.messages if m["role"] == "assistant")
    return len(conversation.messages), said


def sources(task: Task, source: Path) -> tuple[dict[Path, list[str]], list[str]]:
    """Find the raw files; returns each with the data sets that it becomes, and what is missing."""
    data = task.spec["data"]
    wanted = {name: spec.get("file", name) for name, spec in data["train"].items() if "base" not in spec}
    for name in task.groups:
        wanted[name] = data["curriculum"]["file" if task.role(name) == "train" else "validation"]
    found: dict[Path, list[str]] = defaultdict(list)
    problems: list[str] = []
    for name, file in wanted.items():
        try:
            found[rawfiles.find(task, source, file)].append(name)
        except UserError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    return found, problems


def accepted_path(task: Task) -> Path:
    """Where drafts lie that a person accepted in tools/draft.py, as raw rows."""
    return task.outputs / "draft" / "accepted.jsonl"


def drafts_for(task: Task, path: Path) -> Path | None:
    """Name the accepted drafts that are read with a raw file (data.drafts in task.yml); None: there are none."""
    accepted = accepted_path(task)
    return accepted if path.name == task.spec["data"].get("drafts") and accepted.exists() else None


def write(task: Task, source: Path, folder: Path, advance: Callable[..., None]) -> Written:
    """Write every data set but mixes, and the test scenes, below a folder.

    Raises:
        UserError: Raw files are missing, or rows of them are wrong; all at once.
    """
    reader, done = Conversations(task), Written()
    files, done.problems = sources(task, source)
    for path, names in files.items():
        found = list(sound_rows(reader, path, done.problems, advance))
        if drafts := drafts_for(task, path):
            found += sound_rows(reader, drafts, done.problems, advance)
        parts = _parts(task, path, names, found, done.problems)
        for name, rows in parts.items():
            lines = [orjson.dumps(chat_row(reader, one), option=orjson.OPT_APPEND_NEWLINE) for one in rows]
            target = folder / task.segments_path(name).name
            target.write_bytes(b"".join(lines))
            done.rows[name] = len(lines)
            done.lengths[target.name] = array("L", map(len, lines))
    test = task.spec["data"]["test"]
    try:
        path = rawfiles.find(task, source, test.get("file", test["input"]))
        scenes = [row for _, row in read_scenes(reader, path, done.problems)]
        name = test["input"]
        (folder / name).write_bytes(b"".join(orjson.dumps(s, option=orjson.OPT_APPEND_NEWLINE) for s in scenes))
        done.rows[name] = len(scenes)
    except UserError as error:
        done.problems += error.problems
    if done.problems:
        raise UserError(done.problems)
    return done


def _parts(
    task: Task, path: Path, names: list[str], rows: list[Conversation], problems: list[str]
) -> dict[str, list[Conversation]]:
    """Tell which rows of a file go to which data set; of a curriculum by its field, the easiest first."""
    whole = {name: rows for name in names if name not in task.groups}
    if len(whole) == len(names):
        return whole
    by = task.spec["data"]["curriculum"]["by"]
    parts: dict[str, list[Conversation]] = {name: [] for name in names if name in task.groups}
    group_of = {value: name for name in parts for value in task.groups[name]}
    left: dict[Any, int] = defaultdict(int)
    for row in rows:
        if group := group_of.get(row.fields.get(by, "")):
            parts[group].append(row)
        else:
            left[row.fields.get(by)] += 1
    expected = f"expected one of {', '.join(group_of)} (data.curriculum in task.yml)"
    problems += [
        f"{relative(path)}: metadata.{by}: found {value!r} in {count:,} rows, {expected}; mend either"
        for value, count in left.items()
    ]
    problems += [
        f"{relative(path)}: no row has a {by} of group {name} ({', '.join(task.groups[name])}); add some, or drop it"
        for name, own in parts.items()
        if not own and not left
    ]
    return whole | {name: sorted(own, key=difficulty) for name, own in parts.items()}


def sound_rows(
    reader: Conversations, path: Path, problems: list[str], advance: Callable[..., None] = lambda *_: None
) -> Iterator[Conversation]:
    """Read a raw file's conversations; what is wrong goes to `problems`, the first so many of the file.

    Yields:
        Each conversation that nothing is wrong with.
    """
    for _, row in _sound(path, reader.problems, problems, "no conversation in it; add some, or take the file away"):
        advance()
        yield reader.read(row)


def read_scenes(reader: Conversations, path: Path, problems: list[str]) -> Iterator[tuple[int, Row]]:
    """Read test scenes: conversations that end with the user; what is wrong goes to `problems`.

    Yields:
        Line and row, as it is, of each scene that nothing is wrong with.
    """

    def judge(row: Row) -> list[Problem]:
        return [*reader.problems(row, scene=True), *scene_problems(row)]

    return _sound(path, judge, problems, "no scenes in it; write conversations that end with the user's turn")


def row_problems(reader: Conversations, row: Row) -> list[Problem]:
    """Tell what is wrong with a row for training, a preference, or a test scene (which has a kind)."""
    return [*reader.problems(row, scene="kind" in row), *(scene_problems(row) if "kind" in row else ())]


def _sound(
    path: Path, judge: Callable[[Row], list[Problem]], problems: list[str], empty: str
) -> Iterator[tuple[int, Row]]:
    place, found, lines = relative(path), [], dict[int, int]()
    line = 0
    for line, row in read_rows(path):
        if isinstance(row, str):
            found.append(f"{place}:{line}: {row}")
            continue
        wrong = judge(row)
        name = row.get("id")
        if name not in (None, "") and (first := lines.setdefault(raw.key(str(name)), line)) != line:
            wrong.append(("id", f"'{name}' stands on line {first} already; ids are unique"))
        found += [f"{place}:{line}: {key}: {what}" for key, what in wrong]
        if not wrong:
            yield line, row
    if not line:
        found.append(f"{place}: {empty}")
    problems += first_problems(path, found)


def scene_problems(row: Row) -> Iterator[Problem]:
    """Tell what a scene lacks beside its conversation."""
    kind, facts = row.get("kind"), row.get("facts")
    if not _is_text(row.get("id")):
        yield "id", f"found {row.get('id')!r}, expected a text; predictions are named by it"
    if kind not in KINDS:
        yield "kind", f"found {kind!r}, expected one of {', '.join(KINDS)}"
    if (kind == "reply" or row.get("reference") is not None) and not _is_text(row.get("reference")):
        yield "reference", "missing or empty; a scene of kind reply has a good reply"
    if kind == "memory" and not (isinstance(facts, list) and facts and all(map(_is_text, facts))):
        yield "facts", f"found {facts!r}, expected a list of texts; a good reply to a scene of kind memory holds one"
    if kind == "attribute" and not _is_text(row.get("set")):
        yield "set", "missing; scenes of kind attribute that differ in fields alone have the name of their set"
    if row.get("phase") is not None and not _is_text(row["phase"]):
        yield "phase", f"found {row['phase']!r}, expected the name of a phase whose data the scene is like"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def test_scenes(task: Task, path: Path | None = None) -> list[Row]:
    """Read the test scenes, data/test/<input> unless another file is named.

    Raises:
        UserError: It is missing, or scenes are wrong.
    """
    problems: list[str] = []
    scenes = [row for _, row in read_scenes(Conversations(task), path or task.test_path("input"), problems)]
    if problems:
        raise UserError(problems)
    return scenes


def said(task: Task, rows: Iterable[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """Make conversations texts that can be compared: what is said, and what the system message has beside the persona.

    Args:
        task: The task.
        rows: Line and row of regenerated conversations, or of test scenes.

    Yields:
        Line, and a row with id and body.
    """
    reader = Conversations(task)
    persona = set(reader.default.splitlines())
    for line, row in rows:
        scene = "kind" in row
        turns = reader.messages(reader.read(row)) if scene else row["messages"]
        system = [text for text in turns[0]["content"].splitlines() if text not in persona]
        reply = row.get("reference") if scene else row["chosen"]["content"] if "chosen" in row else None
        texts = [*system, *(turn["content"] for turn in turns[1:]), *([reply] if reply else [])]
        yield line, {"id": row.get("id"), "body": "\n".join(texts), "label": None}
