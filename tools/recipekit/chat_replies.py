"""What a chat task is scored on: test scenes, and the replies that were predicted to them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recipekit import chat_rows
from recipekit.conversations import Conversation, Conversations, Row
from recipekit.errors import UserError
from recipekit.joining import several
from recipekit.runs import first_problems, relative
from recipekit.segments import read_jsonl
from recipekit.task import Task


class Scene(NamedTuple):
    """A test scene, which ends with what the user says.

    Attributes:
        id: Its name.
        line: Where it stands in its file, 1-based.
        kind: One of chat_rows.KINDS.
        conversation: What was said, and the fields of the system message.
        system: The system message as the model reads it.
        reference: A good reply; None: there is none.
        facts: Of a memory scene: a good reply holds one of them.
        set: Of an attribute scene: scenes of one set differ in their fields only.
        phase: Which phase's data it is like; None: it does not say.
    """

    id: str
    line: int
    kind: str
    conversation: Conversation
    system: str
    reference: str | None
    facts: list[str]
    set: str | None
    phase: str | None

    @property
    def asked(self) -> str:
        """What the user said last."""
        return self.conversation.messages[-1]["content"].strip()

    @property
    def group(self) -> str:
        """What is drawn anew together: the scenes of a set, any other scene by itself."""
        return f"set {self.set}" if self.set is not None else f"scene {self.id}"


class Reply(NamedTuple):
    """What a model replied to a scene.

    Attributes:
        text: The reply; empty where there is none.
        ended: Whether the model ended it; None: the file does not say.
    """

    text: str
    ended: bool | None


def read_scenes(task: Task, path: Path) -> list[Scene]:
    """Read test scenes, by id, so that the order of the file does not matter.

    Raises:
        UserError: The file is missing or empty, or scenes are broken or repeated; all at once.
    """
    reader, problems = Conversations(task), list[str]()
    scenes = [_scene(reader, line, row) for line, row in chat_rows.read_scenes(reader, path, problems)]
    if problems:
        raise UserError(problems)
    return sorted(scenes, key=lambda scene: scene.id)


def _scene(reader: Conversations, line: int, row: Row) -> Scene:
    conversation, kind = reader.read(row), row["kind"]
    return Scene(
        row["id"], line, kind, conversation, reader.system(conversation), row.get("reference"),
        row["facts"] if kind == "memory" else [], row["set"] if kind == "attribute" else None, row.get("phase"),
    )  # fmt: skip


def read_replies(task: Task, path: Path, scenes: Sequence[Scene], scenes_path: Path) -> list[Reply]:
    """Read predictions: {"id", "output": text or null, "ended"} a line, in any order.

    Returns:
        A reply a scene.

    Raises:
        UserError: The file is missing or empty, rows of it are broken, repeated or of no scene, or scenes have none;
            all at once.
    """
    known = {scene.id for scene in scenes}
    found: dict[str, tuple[int, Reply]] = {}
    unknown: dict[str, int] = {}
    problems: list[str] = []
    for line, row in _lines(path, problems):
        name, output, ended = row.get("id"), row.get("output", ...), row.get("ended")
        if not isinstance(name, str) or not (output is None or isinstance(output, str)):
            what = "expected the keys 'id' (text) and 'output' (text, or null for no reply)"
            problems.append(f"{relative(path)}:{line}: {what}; write them with predict.py {task.name}")
        elif name not in known:
            unknown.setdefault(name, line)
        elif name in found:
            what = f"id '{name}' stands on line {found[name][0]} already; keep one of them"
            problems.append(f"{relative(path)}:{line}: {what}")
        else:
            found[name] = line, Reply((output or "").strip(), ended if isinstance(ended, bool) else None)
    if unknown:
        remedy = "use the scenes that were predicted, or take these out of the predictions"
        where = f"{relative(path)}:{next(iter(unknown.values()))}"
        problems.append(f"{where}: {several(list(unknown))} no scene in {relative(scenes_path)}; {remedy}")
    if not problems and (without := [scene for scene in scenes if scene.id not in found]):
        names = several([scene.id for scene in without])
        remedy = f"predict all of them: uv run tools/predict.py {task.name}"
        first = min(scene.line for scene in without)
        problems.append(f"{relative(scenes_path)}:{first}: {names} no prediction in {relative(path)}; {remedy}")
    if problems:
        raise UserError(first_problems(path, problems))
    return [found[scene.id][1] for scene in scenes]


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from read_jsonl(path)
    except UserError as error:
        problems += error.problems
