"""Invented role-play: characters with a name, an age, a work and a way of speaking, which their replies show."""

import random
from typing import Any

from recipekit.invented_chat_frames import Row, Teller, Values, pair, turns
from recipekit.sampling import Pools

MACROS = {"da": "です/だよ/だ~"}
PERSON = ("name", "age", "role", "like", "trait", "manner")  # slots that a person keeps
TIC = 2  # number of the voice that ends in a tic
PAIRS = (2, 2, 2, 3, 4)  # pairs of turns in a conversation
OPENED, PROVOKED, CLOSED = 0.7, 0.15, 0.4  # shares of conversations
AGAIN = 0.3  # share of later replies that begin as the first does


class Role:
    """One invented character, in one conversation.

    Args:
        sources: What the sources say.
        pools: Words of the data set.
        rng: Where chance comes from.
    """

    def __init__(self, sources: dict[str, Any], pools: Pools, rng: random.Random) -> None:
        self.sources, self.rng = sources, rng
        self.teller = Teller(pools, sources["lists"], MACROS, rng)
        self.voice = rng.randrange(len(sources["roles"]["manners"]))
        self.tic = rng.choice(pools["tic"])
        self.values: Values = {"age": str(rng.randint(18, 79)), "trait": rng.choice(list(sources["traits"]))}
        self.values["manner"] = sources["roles"]["manners"][self.voice].replace("~", self.tic)
        self.system = self.say(rng.choice(sources["roles"]["systems"]), self.values).replace("\\n", "\n")
        self.said = 0

    def say(self, frame: str, values: Values) -> str:
        """Fill a frame the way the character speaks."""
        return self.teller.say(frame, self.voice, values).replace("~", self.tic)

    def turn(self, line: str) -> tuple[str, str]:
        """Say a pair of turns."""
        values = {slot: self.values[slot] for slot in PERSON if slot in self.values}
        user, reply = (self.say(part, values) for part in pair(line))
        first = self.sources["traits"][self.values["trait"]]["first"]
        self.said += 1
        return user, (first if self.said == 1 or self.rng.random() < AGAIN else "") + reply

    def provocation(self, part: str) -> str:
        """Choose what tries to make the character drop the role, and the reply that keeps it."""
        provocation = self.sources["provocation"]
        return f"{self.rng.choice(provocation[part])} ⇒ {self.rng.choice(provocation['replies'])}"

    def lines(self, count: int) -> list[str]:
        """Choose the frames of a conversation of so many pairs of turns."""
        frames = self.sources["roleplay"]
        opening = [self.rng.choice(frames["open"])] if self.rng.random() < OPENED else []
        chosen = [*opening, *self.rng.sample(frames["turns"], count - len(opening))]
        if count > 2 and self.rng.random() < CLOSED:
            chosen[-1] = self.rng.choice(frames["close"])
        if self.rng.random() < PROVOKED:
            chosen[self.rng.randrange(len(chosen))] = self.provocation("train")
        return chosen

    def row(self, messages: list[dict[str, str]]) -> Row:
        """Return a row of the character."""
        return {"system": self.system, "messages": messages, "metadata": {"source": "invented"}}


def roleplay_row(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a conversation with an invented character."""
    role = Role(sources, pools, rng)
    return role.row(turns(role.turn(line) for line in role.lines(rng.choice(PAIRS))))


def reply_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene whose last turn asks for a reply, with a good one."""
    role = Role(sources, pools, rng)
    said = [role.turn(line) for line in role.lines(rng.choice((1, 2)))]
    return _scene(role, said, "reply", {"reference": said[-1][1]})


def provocation_scene(sources: dict[str, Any], pools: Pools, rng: random.Random) -> Row:
    """Invent a scene that ends in trying to make the character drop the role."""
    role = Role(sources, pools, rng)
    before = [role.turn(line) for line in role.lines(1)] if rng.random() < 0.5 else []
    return _scene(role, [*before, role.turn(role.provocation("test"))], "provocation", {})


def _scene(role: Role, said: list[tuple[str, str]], kind: str, more: Row) -> Row:
    return {"kind": kind, "phase": "phase1", **role.row(turns(said)[:-1]), **more}
