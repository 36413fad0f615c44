"""Writes the bundled sample of a task about speakers: invented dialogues with their speakers' traits, and personas."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from recipekit import invented_chat, invented_personas, sampling
from recipekit.errors import UserError
from recipekit.runs import write_bytes
from recipekit.sampling import Line

CORPUS, PERSONAS = "real_persona_chat", "nemotron_personas_japan"


def read(folder: Path) -> dict[str, Any]:
    """Read the sources of a task.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources = sampling.read_sources(folder)
    problems = list(_frame_problems(sources)) + list(_name_problems(sources))
    if problems:
        raise UserError(problems)
    return sources


def _frame_problems(sources: dict[str, Any]) -> Iterator[str]:
    talk = invented_chat.SLOTS | set(sources["lists"])
    known = {"chat": talk, "cues": talk, "persona": invented_personas.SLOTS, "stages": invented_personas.SLOTS}
    for name, slots in known.items():
        for frame in sampling.all_frames(sources[name]):
            choices = {slot for slot in sampling.SLOT.findall(frame) if "/" in slot}
            yield from sampling.frame_problems(frame, (slots | choices).__contains__)


def _name_problems(sources: dict[str, Any]) -> Iterator[str]:
    traits, topics = sources["traits"], sources["topics"]
    for trait, spec in traits.items():
        yield from (
            f"{line.place}: {trait} names '{name}', no topic; expected one of {', '.join(topics)}"
            for line in (spec["high"], spec["low"])
            for name in line.split()
            if name not in topics
        )
    for name in ("cues", "marks"):
        for trait, blocks in sources[name].items():
            line: Line = next(iter(blocks.values()))[0]
            if trait not in traits:
                yield f"{line.place}: {name}.{trait} is no trait; expected one of {', '.join(traits)}"


def make(source: Path, output: Path) -> dict[str, int]:
    """Write all data sets of a source folder; returns rows by file name."""
    sources = read(source)
    plan = sources["plan"]
    rng = random.Random(f"{plan['seed']} dialogues")
    speakers = invented_chat.invent_speakers(sources, plan["speakers"], rng)
    dialogues = [
        dialogue_row(number, pair, texts)
        for number, (pair, texts) in enumerate(
            invented_chat.invent_dialogues(sources, speakers, plan["dialogues"], rng), start=1
        )
    ]
    people = list(
        invented_personas.invent_personas(sources, plan["personas"], random.Random(f"{plan['seed']} personas"))
    )
    listed = {speaker.name: interlocutor(speaker) for speaker in speakers}
    files = {f"{CORPUS}/dialogues.jsonl": dialogues, f"{PERSONAS}/personas.jsonl": people}
    for name, rows in files.items():
        write_bytes(output / name, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    write_bytes(output / CORPUS / "interlocutors.json", orjson.dumps(listed, option=orjson.OPT_INDENT_2) + b"\n")
    return {name: len(rows) for name, rows in files.items()} | {f"{CORPUS}/interlocutors.json": len(listed)}


def dialogue_row(
    number: int, pair: tuple[invented_chat.Speaker, invented_chat.Speaker], texts: list[str]
) -> dict[str, Any]:
    """Return a dialogue in the layout of RealPersonaChat."""
    names = [speaker.name for speaker in pair]
    utterances = [
        {"utterance_id": turn, "interlocutor_id": names[turn % 2], "text": text} for turn, text in enumerate(texts)
    ]
    return {"dialogue_id": number, "interlocutors": names, "utterances": utterances}


def interlocutor(speaker: invented_chat.Speaker) -> dict[str, Any]:
    """Return a speaker in the layout of RealPersonaChat."""
    levels = {f"BigFive_{trait}": level for trait, level in speaker.levels.items()}
    return {"interlocutor_id": speaker.name, "personality": levels}
