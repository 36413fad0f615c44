"""Words of the small base's own corpus: names, places, organisations and numbers, all put together at random."""

import random
from typing import Any

WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
HIRAGANA = {ord("ァ") + place: ord("ぁ") + place for place in range(83)}


class Words:
    """Draws words from a corpus recipe with a random generator; each method returns one new word.

    Names are mostly random characters, with the endings that such names have, so that a reader has to find them by what
    stands around them and has to copy them instead of remembering them.

    Attributes:
        wide: Whether numbers are full-width.
        varied: Whether rarer forms occur too: villages' addresses, towns as employers, former posts; but names
            are put together as most names are.
        local: How often a town is one that the text has named before, and how often its name is part of another.
        kana: How often a company is written in hiragana; half as often, a post is in kana or limited (臨時, 元).
        towns: The towns that the text has named, each with the prefecture that its addresses begin with.
        quarters: The parts of towns that it has named.
    """

    def __init__(self, corpus: dict[str, Any], rng: random.Random) -> None:
        self.parts, self.rng, self.wide, self.varied = corpus["words"], rng, False, False
        self.local, self.kana, self.towns, self.quarters = 0.0, 0.0, dict[str, str](), list[str]()
        self.kanji = corpus["characters"]["kanji"].replace(" ", "")

    def pick(self, name: str) -> str:
        """Draw from a list of the recipe."""
        return str(self.rng.choice(self.parts[name]))

    def chance(self, share: float) -> bool:
        """Tell whether something happens that happens this often."""
        return self.rng.random() < share

    def some_kanji(self, low: int, high: int) -> str:
        """Join some kanji, about one in fifty of them rare (without a token of its own)."""
        chars = [
            chr(self.rng.randint(0x4E00, 0x9FA0)) if self.chance(0.02) else self.rng.choice(self.kanji)
            for _ in range(self.rng.randint(low, high))
        ]
        return "".join(chars)

    def katakana(self, low: int, high: int) -> str:
        """Join some katakana."""
        text = "".join(self.pick("katakana") for _ in range(self.rng.randint(low, high)))
        return text.lstrip("ーッン") or "アオ"

    def number(self, low: int, high: int) -> str:
        """Write a number in the passage's digits."""
        text = str(self.rng.randint(low, high))
        return text.translate(WIDE) if self.wide else text

    def person(self) -> tuple[str, str]:
        """Return a family name and the full name."""
        kind = 0.2 + 0.8 * self.rng.random() if self.varied else self.rng.random()
        if kind < 0.06:
            family = self.katakana(2, 5)
            return family, family + self.rng.choice(["・", "・", "＝", ""]) + self.katakana(2, 5)
        family = self.some_kanji(1, 3)
        if kind > 0.2:
            family = (self.some_kanji(1, 2) if kind < 0.5 else self.pick("surname_heads")) + self.pick("surname_ends")
        given = self.some_kanji(1, 2)
        if kind > 0.3:
            given = (self.some_kanji(1, 1) if kind < 0.6 else self.pick("given_heads")) + self.pick("given_ends")
        if self.chance(0.08):
            given = self.pick("kana_given")
        return family, family + ("　" if self.chance(0.02) else "") + given

    def area(self) -> str:
        """Name a town."""
        if self.local and self.towns and self.chance(self.local):
            return self.rng.choice(list(self.towns))
        core = self.katakana(2, 3) if self.chance(0.05) else self.some_kanji(1, 2)
        town = core + (self.pick("surname_ends") if self.chance(0.4) else "") + self.pick("area_ends")
        self.towns.setdefault(town, "")
        return town

    def core(self) -> str:
        """Draw the part of a name that tells it from others: some kanji, or a town's name."""
        return self.area()[:-1] if self.local and self.chance(self.local) else self.some_kanji(1, 3)

    def district(self) -> str:
        """Name a part of a town."""
        block = f"{self.number(1, 9)}丁目" if self.chance(0.25) else ""
        named = self.quarters + [town[:-1] for town in self.towns]
        if self.local and named and self.chance(self.local / 3):
            quarter = self.rng.choice(["", "", *"東西南北上下"]) + self.rng.choice(named)
            return quarter + self.rng.choice(["", self.pick("district_ends")]) + block
        self.quarters.append(self.some_kanji(1, 2))
        return self.quarters[-1] + self.pick("district_ends") + block

    def home(self) -> str:
        """Write an address."""
        if self.varied and self.chance(0.25):
            area = self.area() if self.chance(0.7) else "同" + self.rng.choice("市町村")
            part = self.rng.choice(["大字", "字", "上", "下", "中", ""]) + self.some_kanji(1, 2)
            return area + part + (self.number(100, 3990) if self.chance(0.4) else "")
        if self.chance(0.1):
            return self.some_kanji(1, 2) + "市" + self.some_kanji(1, 2) + "区" + self.district()
        prefecture = self.some_kanji(1, 2) + self.rng.choice("県県県府都道") if self.chance(0.15) else ""
        area = self.area()
        if self.local:
            prefecture = self.towns[area] = self.towns[area] or prefecture
        return prefecture + area + (self.district() if self.chance(0.5) else "")

    def job(self) -> str:
        """Name an occupation or a post."""
        if self.kana and self.chance(self.kana / 2):
            short, limit, job = self.katakana(2, 4).rstrip("ー"), self.pick("job_limits"), self.pick("jobs")
            limited = job if job.startswith(limit) else limit + job
            return self.rng.choice([short + "ー", short.translate(HIRAGANA) + "職", limited])
        if self.varied and self.chance(0.1):
            return "元" + self.pick("jobs").removeprefix("元")
        kind = (0.8 if self.varied else 1) * self.rng.random()
        if kind < 0.6:
            return self.pick("jobs")
        if kind < 0.8:
            return self.pick("job_depts") + self.pick("job_ranks")
        return self.some_kanji(1, 3) + self.pick("job_ends")

    def org(self, bare: bool = False) -> str:
        """Name an organisation; a bare name, such as quotation marks hold, may lack what tells that it is one."""
        if self.varied and self.chance(0.08):
            return self.area()
        kind = self.rng.random()
        core = self.katakana(2, 6) if kind < 0.35 else self.some_kanji(2, 3)
        if self.varied and kind < 0.1:
            core = core.translate(HIRAGANA)
        elif self.kana and self.chance(self.kana):
            core = self.katakana(3, 6).translate(HIRAGANA)
        if bare and self.chance(0.5):
            return core
        if self.chance(0.1):
            core = "".join(self.rng.choice("ABCDEFGHKLMNOPRSTUVY") for _ in range(self.rng.randint(2, 4)))
        if kind > 0.7:
            return self.pick("org_heads") + core
        if self.chance(0.2):
            core = self.area()[:-1] + self.pick("org_middles")
        return (self.pick("org_heads") if self.chance(0.15) else "") + core + self.pick("org_ends")

    def place(self) -> str:
        """Name a place: an address, a spot, or both."""
        kind = self.rng.random()
        spot = (self.some_kanji(1, 3) if self.chance(0.6) else self.katakana(2, 4)) + self.pick("place_ends")
        if kind < 0.3:
            return self.home()
        if kind < 0.45:
            return self.area() + spot
        if kind < 0.75:
            return self.home() + "の" + (self.pick("place_ends") if self.chance(0.5) else spot)
        return spot

    def item(self) -> str:
        """Make up a title of a work."""
        return self.pick("item_words") + self.pick("item_joins") + self.pick("item_words")

    def event(self) -> str:
        """Name an event."""
        head = self.rng.choice([f"第{self.number(2, 80)}回", self.area()[:-1], self.some_kanji(2, 2), ""])
        return head + self.pick("subjects") + self.pick("event_ends")

    def date(self) -> str:
        """Write a date."""
        day = f"{self.number(1, 30)}日"
        return self.rng.choice([day, f"{self.number(1, 12)}月{day}", "昨年秋", "今月", f"同月{day}"])

    def time(self) -> str:
        """Write a time of day."""
        return f"{self.rng.choice(['午前', '午後', ''])}{self.number(1, 12)}時{self.rng.choice(['', '半', '20分'])}"

    def prize(self) -> str:
        """Name a prize or a place in a contest."""
        return self.pick("prizes") if self.chance(0.6) else self.some_kanji(1, 3) + self.pick("prize_ends")
