"""Invented talk with Sakura: her replies follow the relation, her feeling, and what she remembers of the user."""

import random
from collections.abc import Sequence
from typing import Any

from recipekit.invented_chat_frames import Row, Teller, Values, pair, turns
from recipekit.sampling import Pools

MACROS: dict[str, str] = {}
CLOSE = ("friend", "close_friend", "crush", "lover")
NO_FEELING, PROVOKED = 0.12, 0.12  # shares of conversations about topics
TAIL = 0.5  # share of replies with a last word of the relation
PAIRS = (2, 2, 2, 3)  # pairs of turns in a conversation about a topic
CLOSER, FELT = 0.7, 0.4  # shares of conversations with memories: of close relations alone, with a feeling


class Sakura:
    """Sakura in one conversation.

    Args:
        sources: What the sources say.
        pools: Words of the data set.
        rng: Where chance comes from.
        level: The relation.
        emotion: What she feels; None: nothing is said of it.
    """

    def __init__(
        self, sources: dict[str, Any], pools: Pools, rng: random.Random, level: str, emotion: str | None
    ) -> None:
        self.sources, self.rng, self.level, self.emotion = sources, rng, level, emotion
        self.teller = Teller(pools, sources["lists"], MACROS, rng)
        self.manner = sources["levels"][level]
        self.voice = self.manner["voice"]

    def say(self, frame: str, values: Values) -> str:
        """Fill a frame the way she speaks."""
        return self.teller.say(frame, self.voice, values)

    def reply(self, text: str, first: bool, tail: bool) -> str:
        """Colour what she says by relation and feeling."""
        feeling = self.sources["feelings"].get(self.emotion, self.sources["calm"])
        before = self.say(feeling["first"], {}) if first and "first" in feeling else ""
        after = self.teller.any_of(self.manner["tails"]) if tail else ""
        mark = feeling["emoji"] if self.rng.random() < self.manner["emoji"] else ""
        return before + text + after + mark

    def talk(self, lines: Sequence[str], begun: bool = False) -> list[tuple[str, str]]:
        """Say pairs of turns, with the same words in all of them; `begun`: others stand before."""
        said, values = [], Values()
        for place, line in enumerate(lines):
            user, reply = (self.say(part, values) for part in pair(line))
            said.append((user, self.reply(reply, place == 0 and not begun, self.rng.random() < TAIL)))
        return said

    def metadata(self, topics: Sequence[str], memories: Sequence[str] = ()) -> Row:
        """Say what a conversation is about, and where nothing is remembered, which emotions occur in it."""
        feels = [] if memories else [feel for name in topics for feel in self.sources["topics"][name]["feels"].split()]
        emotions = list(dict.fromkeys([*feels, *([self.emotion] if feels and self.emotion else [])]))
        said: Row = {"affection_level": self.level, "emotion": self.emotion, "memories": list(memories)}
        said |= {"topics": list(dict.fromkeys(topics)), "emotions": emotions, "source": "invented"}
        return {key: value for key, value in said.items() if value}


def lines_of(sources: dict[str, Any], name: str, count: int, rng: random.Random) -> list[str]:
    """Choose so many pairs of turns of a topic: what begins it, and what follows."""
    topic = sources["topics"][name]
    return [rng.choice(topic["turns"]), *rng.sample(sources["follows"][topic["then"]], count - 1)]


def provocation(sources: dict[str, Any], part: str, rng: random.Random) -> str:
    """Choose what tries to make Sakura drop her role, and the reply that keeps it."""
    frame = rng.choice(sources["provocation"][part]).replace("<name>", "さくら")
    return f"{frame} ⇒ {rng.choice(sources['deny']['replies'])}"


def draw(sources: dict[str, Any], pools: Pools, rng: random.Random, levels: Sequence[str]) -> tuple[Sakura, str]:
    """Draw a relation, a topic and a feeling that goes with it."""
    name = rng.choice(list(sources["topics"]))
    emotion = None if rng.random() < NO_FEELING else rng.choice(sources["topics"][name]["moods"].split())
    return Sakura(sources, pools, rng, rng.choice(levels), emotion), name


def character_row(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a conversation with Sakura about a topic."""
    sakura, name = draw(sources, pools, rng, list(sources["levels"]))
    lines = lines_of(sources, name, rng.choice(PAIRS), rng)
    if rng.random() < PROVOKED:
        lines[rng.randrange(len(lines))] = provocation(sources, "train", rng)
    return {"messages": turns(sakura.talk(lines)), "metadata": sakura.metadata([name])}


class Memory:
    """What Sakura remembers of a user: one to three facts, in an order of their own.

    Args:
        sources: What the sources say.
        sakura: Who remembers.
    """

    def __init__(self, sources: dict[str, Any], sakura: Sakura) -> None:
        kinds = sakura.rng.sample(list(sources["facts"]), sakura.rng.randint(1, 3))
        self.lines: list[str] = sources["remember"]["turns"]
        self.sakura = sakura
        self.facts: list[dict[str, str]] = [sources["facts"][kind] for kind in kinds]
        self.said = [
            {slot: sakura.teller.say(fact[slot], sakura.voice, {}) for slot in ("key", "value", "plus")}
            for fact in self.facts
        ]
        texts = [f"{values['key']}は{values['value']}" for values in self.said]
        self.texts = sakura.rng.sample(texts, len(texts))

    def talk(self, places: Sequence[int]) -> list[tuple[str, str]]:
        """Talk of facts: the user names what each is about, Sakura says what she remembers."""
        said = []
        for turn, place in enumerate(places):
            user, frame = pair(self.sakura.rng.choice(self.lines))
            values = dict(self.said[place])
            reply = self.sakura.reply(self.sakura.say(frame, values), turn == 0, self.sakura.rng.random() < TAIL)
            said.append((self.sakura.say(user, values), reply))
        return said


def remembering(sources: dict[str, Any], pools: Pools, rng: random.Random) -> tuple[Sakura, Memory]:
    """Draw a Sakura who remembers something, the first fact to be talked of first; she is close to the user, mostly."""
    level = rng.choice(CLOSE if rng.random() < CLOSER else list(sources["levels"]))
    sakura = Sakura(sources, pools, rng, level, None)
    memory = Memory(sources, sakura)
    if rng.random() < FELT:
        sakura.emotion = rng.choice(memory.facts[0]["moods"].split())
    return sakura, memory


def user_row(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a conversation in which Sakura uses what she remembers."""
    sakura, memory = remembering(sources, pools, rng)
    asked = range(min(len(memory.facts), rng.choice((1, 2, 2))))
    said = memory.talk(asked)
    topics = [memory.facts[place]["topic"] for place in asked]
    if len(said) < 2 or rng.random() < 0.2:
        name = rng.choice(list(sources["topics"]))
        more = sakura.talk(lines_of(sources, name, 1, rng), begun=True)
        said, topics = [*said, *more], [*topics, name]
    return {"messages": turns(said), "metadata": sakura.metadata(topics, memory.texts)}
