"""Invented personas in the columns of Nemotron-Personas-Japan, their text showing age, sex and occupation."""

import math
import random
from collections.abc import Iterator
from typing import Any

from recipekit.sampling import choose, fill

TEXTS = ("persona", "professional_persona", "hobbies_and_interests", "skills_and_expertise")
OTHER = "その他"  # the group without an occupation
_SLOTS = """
age job she who years place stage hobby hobby2 item duty duty2 skill skill2 site trait trait2 thing thing2 often ability
goal
"""
SLOTS = frozenset(_SLOTS.split())


class Persona:
    """One invented person: who they are, and the words that slots are filled with.

    Args:
        sources: What recipekit.sampling.read_sources returns.
        rng: Where chance comes from.
    """

    def __init__(self, sources: dict[str, Any], rng: random.Random) -> None:
        self.sources, self.rng = sources, rng
        self.sex = rng.choice(["男", "女"])
        self.age = min(max(round(rng.gauss(50, 18)), 18), 90)
        self.group = self.draw_group()
        self.job: str = self.draw_title()
        self.region = rng.choice(list(sources["regions"]))
        self.prefecture: str = rng.choice(sources["regions"][self.region].split())
        ages = [age for age in sources["stages"] if int(age) <= self.age + rng.gauss(0, 3)]
        self.stage = ages[-1] if ages else next(iter(sources["stages"]))
        self.used: set[str] = set()

    def draw_group(self) -> str:
        """Choose what the person works in; the old and the very young often in nothing."""
        idle = 1 / (1 + math.exp((67 - self.age) / 2.5)) * 0.8 + 0.5 * (self.age < 21)
        jobs = self.sources["jobs"]
        if self.rng.random() < idle:
            return OTHER
        return self.rng.choices(list(jobs), [job["share"] for job in jobs.values()])[0]

    def draw_title(self) -> str:
        """Choose the occupation of a group; a student is young."""
        titles = self.sources["jobs"][self.group]["titles"].split()
        if self.group == OTHER:
            return titles[self.age < 24]
        return self.rng.choice(titles)

    def hobby(self) -> str:
        """Choose a hobby, by age and, less, by sex."""
        weights = []
        for peak, spread, ratio in self.sources["hobbies"].values():
            nearness = math.exp(-(((self.age - peak) / spread) ** 2) / 2) + 0.04
            weights.append(nearness * self.by_sex(ratio))
        return self.rng.choices(list(self.sources["hobbies"]), weights)[0]

    def by_sex(self, ratio: float) -> float:
        """Return the weight of something that `ratio` times as many men as women have."""
        return math.sqrt(ratio if self.sex == "男" else 1 / ratio)

    def years(self) -> str:
        """Say how long the person has worked."""
        count = max(1, round((self.age - 22) * self.rng.uniform(0.3, 1)))
        if count < 4:
            return self.rng.choice(["まだ新人", f"{count}年目", "修業中", "配属されたばかり"])
        return self.rng.choice([f"{count}年", f"{count}年目", f"勤続{count}年", f"この道{count}年", f"経験{count}年"])

    def value(self, slot: str) -> str:
        """Return a word for a slot, never the same twice."""
        for _ in range(20):
            word = self.word(slot.rstrip("2") if slot != "trait2" else slot)
            if word not in self.used:
                break
        if len(word) > 1:
            self.used.add(word)
        return word

    def word(self, slot: str) -> str:
        """Return a word for a slot; what is to be estimated is said outright only at times."""
        rng, sources = self.rng, self.sources
        outright = rng.random() < 0.4
        woman = self.sex == "女"
        if slot in ("duty", "skill", "site"):
            group = self.group if rng.random() < 0.7 else rng.choice(list(sources["jobs"]))
            return rng.choice(sources["jobs"][group][slot].split())
        if slot in ("goal", "stage"):
            lines = sources["persona"]["goal"] if slot == "goal" else sources["stages"][self.stage]
            frame = lines[0] if len(lines) == 1 else rng.choice(lines)
            return fill(rng.choice(frame.split()), rng, self.value)
        if slot == "item":
            items = sources["items"]
            return rng.choices(list(items), [self.by_sex(ratio) for ratio in items.values()])[0]
        said = {
            "age": f"{self.age}歳の" if outright else "",
            "job": self.job if outright and self.group != OTHER else "働き手",
            "she": ("彼女は" if woman else "彼は") if outright else "",
            "who": ("女性" if woman else "男性") if outright else "人",
            "place": self.prefecture,
        }
        if slot in said:
            return said[slot]
        if slot in ("hobby", "years"):
            return getattr(self, slot)()
        return rng.choice(rng.choice(sources["persona"][slot]).split())

    def row(self) -> dict[str, Any]:
        """Return the person in the columns of the data set."""
        uuid = f"{self.rng.getrandbits(128):032x}"
        texts = {}
        for name in TEXTS:
            frames = self.sources["persona"][name]
            if name == "professional_persona" and self.group == OTHER:
                frames = self.sources["persona"]["idle_persona"]
            texts[name] = fill(choose(self.rng.choice(frames), self.rng), self.rng, self.value)
        facts = {"sex": self.sex, "age": self.age, "occupation": self.job}
        return {"uuid": uuid, **texts, **facts, "region": self.region, "prefecture": self.prefecture}


def invent_personas(sources: dict[str, Any], count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield rows of invented people."""
    for _ in range(count):
        yield Persona(sources, rng).row()
