"""Invented Japanese news articles with labels: the facts of an article, and the slots that frames ask for.

A value counts as said by an article, and comes into its label, only when its slot was written.
"""

import random
import re
from typing import Any

from recipekit.sampling import Line, Pools, by_topic, fill

SUFFIXES = ["市"] * 15 + ["町"] * 4 + ["村"]
DIRECTIONS = ["署"] * 12 + ["東署", "西署", "南署", "北署", "中央署"]
EMPLOYERS = {"plain": 57, "company": 10, "business": 9, "public": 5, "office": 4, "school": 4, "college": 2}
EMPLOYERS |= {"hospital": 5, "finance": 2, "coop": 2}  # in percent, for crimes that anybody may commit
MINORS = ("少年", "男子生徒", "少女")
SAME_PLACE = re.compile("同[市町村]")
_SLOTS = """
who sub act where deed admit deny sentence demand ps dosho ken kensatsu saiban kosai judge station sdosho
place city pref citysuffix town stem a b afam bfam someone company company2 firm school highschool work title troupe
addr job name yobo age aff pos home suffix hall
"""
SLOTS = frozenset(_SLOTS.split())


class Facts:
    """The facts of one article.

    Args:
        sources: What recipekit.sampling.read_sources returns.
        pools: The words of the data set the article is for.
        kind: The article's kind, a value of sources["kinds"].
        rng: Where chance comes from.
    """

    def __init__(self, sources: dict[str, Any], pools: Pools, kind: dict[str, Any], rng: random.Random) -> None:
        self.lists, self.people = sources["lists"], sources["people"]
        self.pools, self.kind, self.rng = pools, kind, rng
        self.used: set[str] = set()
        self.persons: list[dict[str, Any]] = []
        self.heads: list[str] = []  # family names of the offenders
        self.locations: list[str] = []
        self.police: list[str] = []
        self.families = rng.sample(pools["family"], 18)
        self.city, self.pref, self.suffix = self.city_of(rng.choice(pools["place"]))
        self.facts = {"city": self.city, "pref": self.pref, "citysuffix": self.suffix, "judge": self.families.pop()}
        for slot in "ab":
            self.facts[f"{slot}fam"] = self.families[-1]
            self.facts[slot] = self.full_name()
        for slot in ("company", "company2", "school", "highschool", "work", "troupe"):
            self.facts[slot] = self.any_of(self.lists[slot.rstrip("2")])
        court = rng.choice(pools["place"])
        self.facts |= {"kensatsu": f"{court}地検", "kosai": f"{court}高裁"}
        self.facts["saiban"] = f"{court}地裁" + rng.choice(["", "", f"{rng.choice(pools['place'])}支部"])
        self.station = self.city[:-1] + rng.choice(DIRECTIONS)
        self.facts["station"] = rng.choice([self.station, f"{self.pref}警{self.station}"])
        self.facts["sdosho"] = "同署"
        self.facts["place"] = self.address(self.people["places"], {})

    def value(self, slot: str) -> str:
        """Return what stands in a slot."""
        self.used.add(slot)
        if slot in self.facts:
            return self.facts[slot]
        if slot in ("stem", "firm", "title"):
            return self.rng.choice(self.pools[{"stem": "place", "firm": "company"}.get(slot, slot)])
        if slot == "someone":
            return self.full_name()
        if slot == "town":
            return self.any_of(self.people["towns"])
        return self.any_of(self.lists[slot])

    def any_of(self, frames: list[Line]) -> str:
        """Fill one of the frames."""
        return fill(self.rng.choice(frames), self.rng, self.value)

    def full_name(self) -> str:
        """Invent a person whose family name nobody else in the article has."""
        return self.families.pop() + self.given_name()

    def given_name(self) -> str:
        """Choose a given name."""
        return self.rng.choice(self.pools["given_male" if self.rng.random() < 0.7 else "given_female"])

    def city_of(self, stem: str) -> tuple[str, str, str]:
        """Return a city, its prefecture and its suffix; a stem is always the same city."""
        fixed = random.Random(stem)
        suffix = fixed.choice(SUFFIXES)
        return stem + suffix, fixed.choice(self.pools["prefecture"]), suffix

    def address(self, forms: list[Line], slots: dict[str, str]) -> str:
        """Write an address with the given slots."""
        return fill(self.rng.choice(forms), self.rng, lambda slot: slots.get(slot) or self.value(slot))

    def add_crime(self, group: dict[str, Any]) -> None:
        """Choose act, deed, place, police and court of a crime."""
        rng = self.rng
        bureau = self.pref[-1]
        act = rng.choice(group["acts"].split())
        self.facts["act"] = bureau + act[1:] if act.startswith("県") else act
        self.group = group
        deeds = [by_topic(frame) for frame in group["deeds"]]
        deed = rng.choice([text for acts, text in deeds if not acts or act in acts])
        self.facts["deed"] = fill(deed, rng, self.value)
        self.locations = [self.facts["place"]]
        if self.kind.get("who") != "several" and rng.random() < 0.3 * ("places" in group):
            self.locations.append(self.address(self.people["places"], {}))
        scenes = rng.sample(group["scenes"].split(), len(self.locations))
        self.facts["where"] = "と".join(f"{loc}の{scene}" for loc, scene in zip(self.locations, scenes, strict=True))
        for slot in ("admit", "deny"):
            self.facts[slot] = self.any_of(group[slot])
        for slot in ("sentence", "demand"):
            self.facts[slot] = self.any_of(self.lists[f"{group['penalty']}_{slot}"])
        self.add_police(f"{bureau}警", group["division"])

    def add_police(self, force: str, division: str) -> None:
        """Choose who investigates: a station, a division of the prefectural police, or both."""
        unit, full = force + division, f"{self.pref}警{self.station}"
        written, self.police, self.facts["dosho"] = self.rng.choices(
            [
                (self.station, [self.station], "同署"),
                (full, [self.station], "同署"),
                (unit, [unit], "同課"),
                (f"{self.station}と{unit}", [self.station, unit], force),
                (f"{unit}と{self.station}", [unit, self.station], force),
            ],
            [38, 34, 12, 8, 8],
        )[0]
        self.facts |= {"ps": written, "ken": force}

    def add_offenders(self, negligent: bool) -> None:
        """Choose who is accused, and how the article names them."""
        who, title = self.kind.get("who", "one"), self.kind["title"]
        if who == "anonymous":
            allowed = [sub for sub in self.people["anonymous"] if sub not in MINORS or self.group.get("minor")]
            self.facts["sub"] = self.rng.choice(allowed)
            self.facts["who"] = self.address(self.people["anonymous"][self.facts["sub"]], {"home": self.home()[0]})
            return
        count = self.rng.choice([2, 2, 2, 3]) if who == "several" else 1
        written = [self.person(title, negligent, short=count > 2) for _ in range(count)]
        self.facts["who"] = written[0]
        self.facts["sub"] = self.heads[0] + title
        if count > 1:
            joined = "、".join(written) if count > 2 else self.rng.choice(["と", "、"]).join(written)
            self.facts["who"] = f"{joined}の{count}人"
            self.facts["sub"] = self.rng.choice([f"{count}人", self.facts["sub"]])

    def home(self) -> tuple[str, str, str]:
        """Return a city to live in: mostly the one of the article."""
        near = self.rng.random() < 0.55 or "public" in self.group.get("jobs", "")
        return (self.city, self.pref, self.suffix) if near else self.city_of(self.rng.choice(self.pools["place"]))

    def person(self, title: str, negligent: bool, short: bool) -> str:
        """Invent an offender and add their label; returns how the article introduces them."""
        rng, fiction = self.rng, self.kind.get("offender") == "fiction"
        home, pref, suffix = self.home()
        weights = [0 if short else 74, 0 if "jobs" in self.group else 5, 21]
        style = rng.choices(["with_address", "homeless", "without_address"], weights)[0]
        form = rng.choice(self.people["fiction" if fiction else style])
        address = {"homeless": "住所不定"}.get(style) or self.address(
            [frame for frame in self.people["addresses"] if home == self.city or "<suffix>" not in frame],
            {"home": home, "pref": pref, "suffix": suffix},
        )
        position, affiliation, job, (youngest, oldest) = self.job(home, employed=style != "homeless")
        self.heads.append(self.families.pop())
        said = {"addr": address, "job": job, "name": self.heads[-1] + self.given_name(), "yobo": title}
        age = str(rng.randint(youngest, oldest))
        said["age"] = age + "歳" * (rng.random() < 0.1)
        self.persons.append(
            {
                "name": said["name"],
                "is_real": not fiction,
                "is_offender": self.kind.get("offender") != "cleared",
                "age": age if "<age>" in form else "",
                "position": position if "<job>" in form else "",
                "affiliation": affiliation if "<job>" in form else "",
                "address": address if "<addr>" in form else "",
                "category": "過失" if negligent else "法令違反",
                "act": self.facts["act"],
            }
        )
        return fill(form, rng, said.__getitem__)

    def job(self, home: str, employed: bool) -> tuple[str, str, str, tuple[int, int]]:
        """Return position, affiliation, both as written, and the ages that go with them."""
        rng = self.rng
        allowed = self.group.get("jobs", " ".join(EMPLOYERS)).split()
        employer = rng.choices(allowed, [EMPLOYERS[name] for name in allowed])[0]
        if not employed or employer == "plain":
            jobs = [frame.split() for frame in self.people["plain"]]
            position, youngest, oldest = rng.choice(jobs[:2] if not employed else jobs + jobs[:4] * 3)
            return position, "", position, (int(youngest), int(oldest))
        source = self.people[employer]
        at_home = {"home": home, "hall": "所" if home.endswith("市") else "場"}
        affiliation = fill(rng.choice(source["aff"]), rng, lambda slot: at_home.get(slot) or self.value(slot))
        position = rng.choice(source["posts"].split())
        parts = {"aff": affiliation, "pos": position}
        written = fill(rng.choice(source["forms"]), rng, lambda slot: parts.get(slot) or self.value(slot))
        return position, affiliation, written, (45 if position.endswith("長") else 24, 64)

    def label(self) -> dict[str, Any]:
        """Return the label of what was written so far."""
        crime = "offender" not in self.kind
        return {
            "persons": self.persons if "who" in self.used else [],
            "occured_locations": self.locations if crime and "where" in self.used else [],
            "police_departments": self.police if crime and "ps" in self.used else [],
        }

    def says_where(self, body: str) -> bool:
        """Tell whether every 同市 in a text points at the article's city, the last one named before it."""
        for match in SAME_PLACE.finditer(body):
            before = SAME_PLACE.sub(self.city, body[: match.start()])
            stems = [stem for stem in self.pools["place"] if stem in before]
            last = max((before.rfind(stem + suffix) for stem in stems for suffix in "市町村"), default=-1)
            if match[0][1] != self.suffix or last < 0 or before.rfind(self.city) < last:
                return False
        return True
