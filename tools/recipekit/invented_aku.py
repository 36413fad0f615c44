"""Writes the bundled sample of aku: small talk whose tone follows how close the user is and what mood Aku is in."""

import itertools
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from recipekit.errors import UserError
from recipekit.invented_chat_frames import Apart, Row, Teller, Values, numbered, pair, read, rows_of, turns, write
from recipekit.sampling import SLOT, Pools

SLOTS = {"ka", "yo", "feel"}
MACROS = {"ka": "ですか/か"}
SAD = "悲："  # stands before lines that are answered with sympathy
LEVELS = range(5)
CLOSING = (0.3, 0.3, 0.4, 0.6, 0.9)  # share of replies with a closing word, by mood
OWN_TONE = 0.4  # share of conversations whose user is polite or not whatever the relation
FOLLOWED, PROVOKED, PLACED = 0.2, 0.04, 0.9  # shares: of later turns, of turns, of conversations with a scene


class AkuTeller(Teller):
    """Says frames as a relation asks: two parts are polite and casual, three have one for partners, five one each."""

    def part(self, parts: Sequence[str], voice: int) -> str:
        """Choose the part of `<a/b>` that a relation, 0-4, says."""
        places = {2: (0, 0, 1, 1, 1), 3: (0, 0, 1, 1, 2), 5: (0, 1, 2, 3, 4)}
        return parts[places[len(parts)][voice]]


class Aku:
    """Aku in one conversation.

    Args:
        sources: What the sources say.
        pools: Words of the data set.
        rng: Where chance comes from.
        attribute: Relation and mood, 0-4 each.
    """

    def __init__(self, sources: dict[str, Any], pools: Pools, rng: random.Random, attribute: Sequence[int]) -> None:
        self.sources, self.rng = sources, rng
        self.relation, self.mood = attribute
        self.manner = sources["moods"][str(self.mood)]
        self.teller = AkuTeller(pools, sources["lists"], MACROS, rng)
        self.tone = rng.choice(LEVELS) if rng.random() < OWN_TONE else self.relation

    def turn(self, line: str) -> tuple[str, str]:
        """Say a pair of turns."""
        user, comment = pair(line.removeprefix(SAD))
        values: Values = {}
        slots = [slot for slot in SLOT.findall(user) if slot in self.teller.words]
        said = self.teller.say(user, self.tone, values)
        word = values[slots[0]] if slots else None
        if said.startswith(f"「{word}」"):
            word = f"「{word}」"
        return said, self.reply(comment, values, word, "sorry" if line.startswith(SAD) else "echo")

    def reply(self, comment: str, values: Values, word: str | None, echo: str) -> str:
        """Reply: the user's word again, a comment, a closing word and an emoji, as far as the mood allows."""
        feel = self.sources["lists"]["feelings"][0].split()[self.mood]
        values = {**values, "yo": "よ" if self.mood > 2 else "", "feel": feel}
        say = partial(self.teller.say, voice=self.relation, values=values)
        if word is None:
            text = self.manner["alone"] + say(comment)
        else:
            text = say(self.rng.choice(self.manner[echo])).replace("~", word)
            text += say(comment) if self.mood > 1 else ""
        if self.rng.random() < CLOSING[self.mood]:
            text += self.teller.any_of(self.sources["closings"][f"{self.relation}{self.mood}"])
        return text + self.mark()

    def mark(self) -> str:
        """Draw an emoji, or nothing."""
        if self.rng.random() >= self.manner["emoji"]:
            return ""
        love = self.relation == self.mood == LEVELS[-1] and self.rng.random() < 0.5
        return self.rng.choice(self.sources["marks"]["love" if love else "emoji"][0].split())

    def provocation(self, part: str) -> str:
        """Choose what tries to make Aku drop the role, and the reply that keeps it."""
        found = self.sources["provocation"]
        return f"{self.rng.choice(found[part])} ⇒ {self.rng.choice(found['replies'])}"

    def lines(self, genre: str, count: int) -> list[str]:
        """Choose the frames of so many pairs of turns; the first is of the genre."""
        own, follow = self.sources["genres"][genre]["turns"], self.sources["follow"]["turns"]
        first, *rest = self.rng.sample(own, min(count, len(own)))
        chosen = [first, *(self.rng.choice(follow) if self.rng.random() < FOLLOWED else line for line in rest)]
        return list(dict.fromkeys(chosen))

    def row(self, genre: str, said: Sequence[dict[str, str]]) -> Row:
        """Return a row."""
        context = self.teller.any_of(self.sources["genres"][genre]["contexts"])
        placed = {"context": context} if self.rng.random() < PLACED else {}
        metadata = {"genre": genre, "source": "invented"}
        return {**placed, "conversation": list(said), "attribute": [self.relation, self.mood], "metadata": metadata}


def conversation(sources: dict[str, Any], pools: Pools, rng: random.Random, number: int) -> Row:
    """Invent a conversation; the number goes through all genres and pairs of relation and mood."""
    genres = list(sources["genres"])
    genre = genres[number % len(genres)]
    aku = Aku(sources, pools, rng, divmod(number // len(genres) % 25, 5))
    count = int(rng.choice(sources["genres"][genre]["pairs"].split()))
    lines = [aku.provocation("train") if rng.random() < PROVOKED else line for line in aku.lines(genre, count)]
    return aku.row(genre, turns(aku.turn(line) for line in lines))


def scene(sources: dict[str, Any], pools: Pools, rng: random.Random, kind: str, number: int) -> Row:
    """Invent a scene that asks for a reply, or ends in trying to make Aku drop the role."""
    genres = list(sources["genres"])
    genre = genres[number % len(genres)]
    aku = Aku(sources, pools, rng, divmod(number * 7 % 25, 5))
    lines = aku.lines(genre, rng.choice((1, 2, 3)))
    if kind == "provocation":
        lines[-1] = aku.provocation("test")
    said = [aku.turn(line) for line in lines]
    reference = {"reference": said[-1][1]} if kind == "reply" else {}
    return {"kind": kind, "phase": phase(genres.index(genre)), **aku.row(genre, turns(said)[:-1]), **reference}


def phase(place: int) -> str:
    """Name the phase that learns a genre, by the genre's place."""
    return "phase1" if place < 3 else "phase2" if place < 7 else "phase3"


def attribute_sets(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Iterator[Row]:
    """Invent sets of scenes that differ in relation and mood alone, one of each genre."""
    plan = sources["plan"]
    genres = list(sources["genres"])
    for number in range(plan["rows"]["sets"]):
        genre = genres[number % len(genres)]
        aku = Aku(sources, pools, rng, (2, 2))
        row = aku.row(genre, turns([aku.turn(rng.choice(sources["genres"][genre]["turns"]))])[:-1])
        whole = number < plan["rows"]["whole_sets"]
        every = [f"{relation}{mood}" for relation, mood in itertools.product(LEVELS, LEVELS)]
        for one in every if whole else plan["seed_pairs"]:
            start = {"kind": "attribute", "phase": phase(number % len(genres)), "set": f"pair_{number + 1:02}"}
            yield {**start, **row, "attribute": [int(level) for level in one]}


def make(source: Path, output: Path) -> dict[str, int]:
    """Write all data sets of a source folder; returns rows by file name.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources, pools = read(source, SLOTS)
    if problems := list(_part_problems(sources)):
        raise UserError(problems)
    plan, apart = sources["plan"], Apart()
    files: dict[str, list[Row]] = {}
    for name, split in (("aku", "train"), ("aku_val", "val")):
        rng = random.Random(f"{plan['seed']} {name}")
        rows = rows_of(name, plan["rows"][name], apart, partial(conversation, sources, pools[split], rng))
        files[f"{name}.jsonl"] = numbered(name, rows)
    rng = random.Random(f"{plan['seed']} scenes")
    scenes = []
    for kind in ("reply", "provocation"):
        scenes += rows_of("scenes", plan["rows"][kind], apart, partial(scene, sources, pools["test"], rng, kind))
    scenes += attribute_sets(sources, pools["test"], rng)
    files["scenes.jsonl"] = numbered("aku_scene", scenes)
    return write(output, files)


def _part_problems(sources: dict[str, Any]) -> Iterator[str]:
    """Yield frames whose `<a/b>` has neither two, three nor five parts."""
    frames = [line for genre in sources["genres"].values() for line in genre["turns"]]
    frames += [line for mood in sources["moods"].values() for line in (*mood["echo"], *mood["sorry"])]
    for frame in [*frames, *sources["follow"]["turns"], *sources["provocation"]["replies"]]:
        for slot in SLOT.findall(frame):
            if "/" in slot and slot.count("/") not in (1, 2, 4):
                yield f"{frame.place}: <{slot}> has {slot.count('/') + 1} parts; expected 2, 3 or 5"
