"""Invented preferences and test scenes with Sakura."""

import random
from typing import Any

from recipekit import sampling
from recipekit.invented_chat_frames import Row, Values, pair, turns
from recipekit.invented_chat_sakura import Sakura, draw, lines_of, provocation, remembering
from recipekit.sampling import Pools

REMEMBERED = 0.6  # share of preferences in which a memory is to be used
FAULTS = ("out", "cold", "forgets", "voice", "repeats", "long")
BEFORE = 0.4  # share of scenes with a pair of turns before


def last_turn(
    sources: dict[str, Any], pools: Pools, rng: random.Random, remembered: bool
) -> tuple[Sakura, str, Values, Row]:
    """Draw what a last turn is about; returns Sakura, the frame of the pair, words for it, and the metadata."""
    if remembered:
        sakura, memory = remembering(sources, pools, rng)
        metadata = sakura.metadata([memory.facts[0]["topic"]], memory.texts)
        return sakura, rng.choice(memory.lines), dict(memory.said[0]), metadata
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    metadata = sakura.metadata([name])
    return sakura, lines_of(sources, name, 1, rng)[0], {}, metadata


def preference_row(sources: dict[str, Any], pools: Pools, rng: random.Random, number: int) -> Row:
    """Invent a last turn with a good reply and a bad one, whose fault goes by the number."""
    fault = FAULTS[number % len(FAULTS)]
    remembered = fault == "forgets" or rng.random() < REMEMBERED
    sakura, line, values, metadata = last_turn(sources, pools, rng, remembered)
    user, frame = pair(line)
    said, frame = sakura.say(user, values), sampling.choose(frame, rng)
    core = sakura.say(frame, values)
    if fault == "voice":
        rejected = sakura.teller.say(frame, 2 if sakura.voice == 0 else 0, values)
    elif fault == "repeats":
        rejected = core * 3
    else:
        rejected = sakura.say(rng.choice(sources["rejected"][fault]), {})
    chosen = sakura.reply(core, True, True)
    return {"messages": turns([(said, "")])[:-1], "metadata": metadata, "chosen": chosen, "rejected": rejected}


def character_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene about a topic, with a good reply."""
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    said = sakura.talk(lines_of(sources, name, 2 if rng.random() < BEFORE else 1, rng))
    metadata = sakura.metadata([name])
    return {
        "kind": "reply",
        "phase": "phase2",
        "messages": turns(said)[:-1],
        "metadata": metadata,
        "reference": said[-1][1],
    }


def memory_scene(sources: dict[str, Any], pools: Pools, rng: random.Random, kind: str) -> Row:
    """Invent a scene whose reply uses a memory: of the kind "memory" or "reply"."""
    sakura, memory = remembering(sources, pools, rng)
    places = range(2 if len(memory.facts) > 1 and rng.random() < BEFORE else 1)
    said = memory.talk(places)
    topics = [memory.facts[place]["topic"] for place in places]
    metadata = sakura.metadata(topics, memory.texts)
    last = {"facts": [memory.said[places[-1]]["value"]]} if kind == "memory" else {"reference": said[-1][1]}
    return {"kind": kind, "phase": "phase3", "messages": turns(said)[:-1], "metadata": metadata, **last}


def provocation_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene that ends in trying to make Sakura drop her role."""
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    before = lines_of(sources, name, 1, rng) if rng.random() < BEFORE else []
    said = sakura.talk([*before, provocation(sources, "test", rng)])
    metadata = sakura.metadata([name])
    return {"kind": "provocation", "phase": "phase2", "messages": turns(said)[:-1], "metadata": metadata}


def level_set(sources: dict[str, Any], pools: Pools, rng: random.Random, name: str) -> list[Row]:
    """Invent a set of scenes that differ in the relation alone."""
    levels = list(sources["levels"])
    count = rng.randint(3, len(levels))
    chosen = {levels[0], levels[-1], *rng.sample(levels, count)}
    sakura, about = draw(sources, pools, rng, ["friend"])
    said = turns(sakura.talk(lines_of(sources, about, 1, rng)))[:-1]
    metadata = sakura.metadata([about])
    return [
        {"kind": "attribute", "phase": "phase2", "set": name, "messages": said,
         "metadata": {**metadata, "affection_level": level}}
        for level in levels if level in chosen
    ]  # fmt: skip
