"""Invented preferences and test scenes with Sakura."""

import random
from typing import Any

from recipekit import sampling
from recipekit.invented_chat_frames import Row, Values, pair, turns
from recipekit.invented_chat_sakura import (
    Memory,
    Sakura,
    draw,
    provocation,
    remembering,
    steps,
    user_talk,
)
from recipekit.sampling import Pools

REMEMBERED = 0.6  # share of preferences in which a memory is to be used
FAULTS = ("out", "cold", "forgets", "voice", "repeats", "long")
BEFORE = 0.4  # share of scenes with a pair of turns before


def last_turn(
    sources: dict[str, Any], pools: Pools, rng: random.Random, remembered: bool
) -> tuple[Sakura, Memory | None, list[str], str, Values]:
    """Draw what a last turn is about; returns Sakura, her memory, the topics, the frame of the pair, and its words."""
    if remembered:
        sakura, memory = remembering(sources, pools, rng)
        fact, values = memory.facts[0]
        return sakura, memory, [fact["topic"]], rng.choice(fact["turns"]), values
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    return sakura, None, [name], steps(sources["topics"][name], 1, rng)[0], Values()


def preference_row(sources: dict[str, Any], pools: Pools, rng: random.Random, number: int) -> Row:
    """Invent a last turn with a good reply and a bad one, whose fault goes by the number."""
    fault = FAULTS[number % len(FAULTS)]
    remembered = fault == "forgets" or rng.random() < REMEMBERED
    sakura, memory, topics, line, values = last_turn(sources, pools, rng, remembered)
    user, frame = pair(line)
    said = sakura.teller.say(user, sakura.voice, values)
    frame = sampling.choose(frame, rng)
    core = sakura.teller.say(frame, sakura.voice, values)
    chosen = sakura.reply(core, True, True)
    if fault == "voice":
        rejected = sakura.teller.say(frame, 2 if sakura.voice == 0 else 0, values)
    elif fault == "repeats":
        rejected = core * 3
    else:
        rejected = sakura.teller.say(rng.choice(sources["rejected"][fault]), sakura.voice, {})
    metadata = sakura.metadata(topics, ["supportive"], memory.texts if memory else ())
    return {"messages": turns([(said, "")])[:-1], "metadata": metadata, "chosen": chosen, "rejected": rejected}


def character_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene about a topic, with a good reply."""
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    topic = sources["topics"][name]
    said = sakura.talk(steps(topic, 2 if rng.random() < BEFORE else 1, rng))
    metadata = sakura.metadata([name], topic["feels"].split())
    return {"kind": "reply", "phase": "phase2", "messages": turns(said)[:-1], "metadata": metadata, "reference": said[-1][1]}


def memory_scene(sources: dict[str, Any], pools: Pools, rng: random.Random, kind: str) -> Row:
    """Invent a scene whose reply uses a memory: of the kind "memory" or "reply"."""
    sakura, memory = remembering(sources, pools, rng)
    places = range(2 if len(memory.facts) > 1 and rng.random() < BEFORE else 1)
    said = user_talk(sources, sakura, memory, places)
    topics = list(dict.fromkeys(memory.facts[place][0]["topic"] for place in places))
    metadata = sakura.metadata(topics, ["supportive"], memory.texts)
    last = {"facts": [memory.value(places[-1])]} if kind == "memory" else {"reference": said[-1][1]}
    return {"kind": kind, "phase": "phase3", "messages": turns(said)[:-1], "metadata": metadata, **last}


def provocation_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene that ends in trying to make Sakura drop her role."""
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    topic = sources["topics"][name]
    before = steps(topic, 1, rng) if rng.random() < BEFORE else []
    said = sakura.talk([*before, provocation(sources, "test", rng)])
    metadata = sakura.metadata([name], topic["feels"].split())
    return {"kind": "provocation", "phase": "phase2", "messages": turns(said)[:-1], "metadata": metadata}


def level_set(sources: dict[str, Any], pools: Pools, rng: random.Random, name: str) -> list[Row]:
    """Invent a set of scenes that differ in the relation alone."""
    levels = list(sources["levels"])
    count = rng.randint(3, len(levels))
    chosen = {levels[0], levels[-1], *rng.sample(levels, count)}
    sakura, about = draw(sources, pools, rng, ["friend"])
    topic = sources["topics"][about]
    said = turns(sakura.talk(steps(topic, 1, rng)))[:-1]
    metadata = sakura.metadata([about], topic["feels"].split())
    return [
        {"kind": "attribute", "phase": "phase2", "set": name, "messages": said,
         "metadata": {**metadata, "affection_level": level}}
        for level in levels if level in chosen
    ]  # fmt: skip
