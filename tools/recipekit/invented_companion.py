"""Writes the bundled sample of companion: role-play, Sakura, memories of a user, preferences and test scenes."""

import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from recipekit import invented_chat_roles, invented_chat_sakura, invented_chat_scenes
from recipekit.conversations import Conversations
from recipekit.errors import UserError
from recipekit.invented_chat_frames import Apart, Row, numbered, read, rows_of, text_of, write
from recipekit.sampling import Pools
from recipekit.task import load_task

SLOTS = {"age", "trait", "manner", "key", "value", "plus", *invented_chat_roles.MACROS}
TRAINING: dict[str, Callable[[dict[str, Any], Pools, random.Random, int], Row]] = {
    "roleplay": lambda sources, pools, rng, _: invented_chat_roles.roleplay_row(sources, pools, rng),
    "character": lambda sources, pools, rng, _: invented_chat_sakura.character_row(sources, pools, rng),
    "user": lambda sources, pools, rng, _: invented_chat_sakura.user_row(sources, pools, rng),
    "preference": invented_chat_scenes.preference_row,
}


def make(source: Path, output: Path) -> dict[str, int]:
    """Write all data sets of a source folder; returns rows by file name.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources, pools = read(source, SLOTS)
    if problems := list(_reference_problems(sources)):
        raise UserError(problems)
    conversations = Conversations(load_task("companion"))
    plan = sources["plan"]
    apart = Apart(lambda row: f"{conversations.system(conversations.read(row))}\n{text_of(row)}")
    files: dict[str, list[Row]] = {}
    for split, name in itertools.product(("train", "val"), TRAINING):
        file = name if split == "train" else f"{name}_val"
        count = plan["rows"][name if split == "train" else "held_out"]
        invent = partial(TRAINING[name], sources, pools[split], random.Random(f"{plan['seed']} {file}"))
        files[f"{file}.jsonl"] = numbered(f"companion_{file}", rows_of(file, count, apart, invent))
    files["scenes.jsonl"] = numbered("companion_scene", scenes(sources, pools["test"], apart))
    return write(output, files)


def _reference_problems(sources: dict[str, Any]) -> Iterator[str]:
    """Yield every name in the sources that points at nothing."""
    for name, topic in sources["topics"].items():
        for mood in topic["moods"].split():
            if mood not in sources["feelings"]:
                known = ", ".join(sources["feelings"])
                yield f"{topic['moods'].place}: topics.{name} names '{mood}', no feeling; expected one of {known}"
        if topic["then"] not in sources["follows"]:
            known = ", ".join(sources["follows"])
            yield f"{topic['then'].place}: topics.{name} goes on '{topic['then']}', not there; expected one of {known}"


def scenes(sources: dict[str, Any], pools: Pools, apart: Apart) -> list[Row]:
    """Invent the test scenes."""
    plan = sources["plan"]
    rng, rows = random.Random(f"{plan['seed']} scenes"), plan["rows"]

    def reply(number: int) -> Row:
        if number % 4 == 0:
            return invented_chat_roles.reply_scene(sources, pools, rng)
        if number % 4 == 1:
            return invented_chat_scenes.memory_scene(sources, pools, rng, "reply")
        return invented_chat_scenes.character_scene(sources, pools, rng)

    def memory(_: int) -> Row:
        return invented_chat_scenes.memory_scene(sources, pools, rng, "memory")

    def provocation(number: int) -> Row:
        module = invented_chat_roles if number % 3 == 0 else invented_chat_scenes
        return module.provocation_scene(sources, pools, rng)

    written = []
    for kind, invent in (("reply", reply), ("memory", memory), ("provocation", provocation)):
        written += rows_of("scenes", rows[kind], apart, invent)
    sets: list[list[Row]] = []
    for number in range(rows["sets"]):
        seen = {str(rows[0]["messages"]) for rows in sets}
        while True:
            one = invented_chat_scenes.level_set(sources, pools, rng, f"level_{number + 1:02}")
            if str(one[0]["messages"]) not in seen:
                break
        sets.append(one)
    return [*written, *(row for one in sets for row in one)]
