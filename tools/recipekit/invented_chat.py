"""Invented chat between invented speakers whose Big Five traits show, with chance, in what they say and how.

A speaker leans to one side of a trait by level, by habits of their own, and by the mood of a conversation; a cue of the
high or the low side is then drawn with the logistic probability of that lean. The rest of the talk depends on no trait.
"""

import math
import random
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Any

from recipekit.sampling import choose, fill

SLOTS = frozenset({"thing", "act", "mask"})
NOTHING = "無"  # what stands for no mark in a list of marks
Levels = dict[str, float]


class Speaker:
    """One invented speaker.

    Args:
        name: Two capital letters.
        sources: What recipekit.sampling.read_sources returns.
        rng: Where chance comes from.
    """

    def __init__(self, name: str, sources: dict[str, Any], rng: random.Random) -> None:
        self.name, self.levels, self.lean = name, Levels(), Levels()
        for trait, spec in sources["traits"].items():
            level = min(max(round(12 * rng.gauss(spec["mean"], spec["sd"])), 12), 84) / 12
            self.levels[trait] = level
            habit = rng.gauss(0, sources["plan"]["speaker_noise"])
            self.lean[trait] = (level - spec["mean"]) / spec["sd"] + habit
        self.polite = 1 / (1 + math.exp(-rng.gauss(1.2, 1.2)))
        self.before, self.after = (_favourites(sources["plain"][place], rng) for place in ("before", "after"))

    def mood(self, noise: float, rng: random.Random) -> Levels:
        """Return how far the speaker leans to the high side of each trait in one conversation, in deviations."""
        return {trait: lean + rng.gauss(0, noise) for trait, lean in self.lean.items()}


def _favourites(lines: list[str], rng: random.Random) -> tuple[list[str], list[float]]:
    words = [word for line in lines for word in line.split()]
    return words, [rng.random() ** 3 for _ in words]


class Conversation:
    """What is said between two speakers.

    Args:
        sources: What recipekit.sampling.read_sources returns.
        speakers: The two of them; the first one begins.
        rng: Where chance comes from.
    """

    def __init__(self, sources: dict[str, Any], speakers: tuple[Speaker, Speaker], rng: random.Random) -> None:
        self.sources, self.plan, self.rng, self.speakers = sources, sources["plan"], rng, speakers
        self.moods = [speaker.mood(self.plan["dialogue_noise"], rng) for speaker in speakers]
        self.topic = rng.choice(list(sources["topics"]))
        self.asked = False

    def utterances(self) -> list[str]:
        """Write the conversation, the speakers taking turns."""
        count = self.rng.randint(*self.plan["turns"])
        return [self.utterance(turn % 2, turn, count) for turn in range(count)]

    def utterance(self, who: int, turn: int, count: int) -> str:
        """Write what one of the two (0 or 1) says at a turn."""
        if self.rng.random() < 0.2:
            self.topic = self.next_topic(who)
        text = self.said(self.frame(who, turn, count), who)
        talkative = 1 / (1 + math.exp(-self.moods[who]["Extraversion"]))
        if 2 <= turn < count - 2 and self.rng.random() < 0.2 * talkative:
            text += "。" + self.said(self.rng.choice(self.sources["chat"]["tell"]), who)
        return self.with_marks(text, who)

    def frame(self, who: int, turn: int, count: int) -> str:
        """Choose what a turn is for: greeting, cue of a trait, question, answer, reaction or news."""
        chat, rng, asked = self.sources["chat"], self.rng, self.asked
        self.asked = False
        if turn < 2 or turn >= count - 2:
            return rng.choice(chat["open" if turn < 2 else "close"])
        if rng.random() < self.plan["cue_share"]:
            trait = rng.choice(list(self.sources["cues"]))
            return rng.choice(self.sources["cues"][trait][self.side(who, trait)])
        kind = "tell" if asked and rng.random() < 0.7 else rng.choices(("ask", "tell", "react"), (3, 4, 3))[0]
        self.asked = kind == "ask"
        return rng.choice(chat[kind])

    def side(self, who: int, trait: str) -> str:
        """Draw the side of a trait that shows."""
        high = 1 / (1 + math.exp(-self.plan["slope"] * self.moods[who][trait]))
        return "high" if self.rng.random() < high else "low"

    def next_topic(self, who: int) -> str:
        """Choose another topic, by a trait or by chance alone."""
        if self.rng.random() >= self.plan["topic_share"]:
            return self.rng.choice(list(self.sources["topics"]))
        trait = self.rng.choice(list(self.sources["traits"]))
        return self.rng.choice(self.sources["traits"][trait][self.side(who, trait)].split())

    def said(self, frame: str, who: int) -> str:
        """Fill a frame the way a speaker talks: `<polite/plain>` is one of its sides, `<mask>` the partner's name."""
        polite = self.rng.random() < self.speakers[who].polite

        def value(slot: str) -> str:
            if "/" in slot:
                return slot.split("/")[not polite]
            if slot == "mask":
                return f"<{self.speakers[1 - who].name}>"
            words = self.sources["topics"][self.topic] if slot in SLOTS else self.sources["lists"]
            return self.rng.choice(self.rng.choice(words[slot]).split())

        return fill(choose(frame, self.rng), self.rng, value)

    def with_marks(self, text: str, who: int) -> str:
        """Put an interjection before and a mark after an utterance, by a trait or by the speaker's habit."""
        rng, speaker = self.rng, self.speakers[who]
        before = rng.choices(*speaker.before)[0] if rng.random() < 0.15 else ""
        after = rng.choices(*speaker.after)[0]
        if rng.random() < self.plan["mark_share"]:
            trait = rng.choice(list(self.sources["marks"]))
            side, marks = self.side(who, trait), self.sources["marks"][trait]
            if rng.random() < 0.5:
                before = rng.choice(marks[f"before_{side}"][0].split())
            else:
                after = rng.choice(marks[f"after_{side}"][0].split())
        return before + text + after.replace(NOTHING, "")


def invent_speakers(sources: dict[str, Any], count: int, rng: random.Random) -> list[Speaker]:
    """Invent speakers, named by two letters as in the corpus: AA, AB, ..."""
    names = [first + second for first in ascii_uppercase for second in ascii_uppercase]
    return [Speaker(names[index % len(names)], sources, rng) for index in range(count)]


def invent_dialogues(
    sources: dict[str, Any], speakers: list[Speaker], count: int, rng: random.Random
) -> Iterator[tuple[tuple[Speaker, Speaker], list[str]]]:
    """Write conversations between random partners, each speaker in about as many.

    Yields:
        The two speakers, the first one beginning, and what they say in turn.
    """
    for number in range(count):
        place = 2 * number % (len(speakers) // 2 * 2)
        if place == 0:
            order = rng.sample(speakers, len(speakers))
        pair = order[place], order[place + 1]
        yield pair, Conversation(sources, pair, rng).utterances()
