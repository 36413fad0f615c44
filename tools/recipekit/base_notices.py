"""Notices of the small base's corpus: short news of one kind, each kind with one schema that asks for all of it."""

import json
import random
from collections.abc import Callable
from typing import Any

from recipekit.base_corpus import SLOT, Piece, Writer

ABOUT = {
    "n": "姓と名",
    "a": "年齢の数字",
    "j": "職業や役職",
    "o": "所属する会社や団体",
    "h": "住まい",
    "t": "内容",
    "c": "種類",
    "real": "実在すれば真、作り話なら偽",
    "flag": "事実なら真、取り消しなら偽",
}


def notice(
    writer: Writer,
    framed: float = 0.0,
    brief: float = 0.0,
    hard: float = 0.0,
    local: float = 0.0,
    pairs: float = 0.0,
    kana: float = 0.0,
) -> list[Piece]:
    """Write an instruction, a notice, and as JSON what it tells of its people, places and organisations.

    One notice in four tells nothing of what is asked: it is of another kind, or only of bystanders.

    Args:
        writer: Draws the words.
        framed: Share of notices of the kinds that share their sentences.
        brief: Share of notices whose instruction is no more than the name of the kind.
        hard: Share of framed notices that name nobody or tell of nothing; above 0, all of them use hard_frames.
        local: How often a town is named again, with another part of it, or in the name of an office.
        pairs: How often there are two places where a line has one.
        kana: How often a company is written in hiragana; half as often, a post is in kana or limited (臨時, 元).
    """
    rng, corpus = writer.rng, writer.corpus
    writer.words.local, writer.words.kana = local, kana
    group = "framed" if framed and rng.random() < framed else "notices"
    specs = corpus[group] | (corpus["hard_framed"] if hard and group == "framed" else {})
    kinds = list(specs)
    kind = told = rng.choice(kinds)
    if rng.random() < 0.15:
        told = rng.choice([other for other in kinds if other != kind])
    news = News(writer, specs[told], hard if group == "framed" else 0.0, pairs)
    text = news.write(empty=rng.random() < 0.12)
    spec = specs[kind]
    people, fields = spec["people"]
    found = news if kind == told else News(writer, spec)
    answer = {
        people: [{name: one.get(fact, "") for fact, name in fields.items()} for one in found.people],
        spec["places"]: found.places,
        spec["orgs"]: found.orgs,
    }
    order = instruction(corpus, spec, kind, whole=rng.random() < 0.5)
    if brief and rng.random() < brief:
        order = people + "\n"
    pieces = ["<s>" + order, rng.choice(corpus["orders"]["headers"]) + text, rng.choice(["", "\n", "\n"])]
    return [("".join(pieces), False), (json.dumps(answer, ensure_ascii=False) + "</s>", True)]


def instruction(corpus: dict[str, Any], spec: dict[str, Any], kind: str, whole: bool) -> str:
    """Write the instruction of a kind of news, always the same: all of it, or the shape of the answer alone."""
    fixed = random.Random(kind)
    people, fields = spec["people"]
    example = {name: fact in ("flag", "real") or "..." for fact, name in fields.items()}
    shape = json.dumps({people: [example], spec["places"]: ["..."], spec["orgs"]: ["..."]}, ensure_ascii=False)
    if not whole:
        return shape + "\n"
    rules = [fixed.choice(corpus["orders"]["openers"]), *fixed.sample(corpus["orders"]["rules"], k=fixed.randint(2, 8))]
    about = "。".join(f'"{name}"は{ABOUT[fact]}' for fact, name in fields.items())
    return "".join(rules) + f"\n{about}。\n形：{shape}\n"


class News:
    """One notice: its text, and what it says of people, places and organisations."""

    def __init__(self, writer: Writer, spec: dict[str, Any], hard: float = 0.0, pairs: float = 0.0) -> None:
        self.writer, self.rng, self.hard, self.pairs = writer, writer.rng, hard, pairs
        self.spec = spec if "lines" in spec else writer.corpus["frames"] | spec
        if hard:
            for more in ("hard_frames", "local_frames")[: 2 if writer.words.local else 1]:
                lines = writer.corpus[more]
                self.spec = self.spec | {name: self.spec.get(name, []) + lines[name] for name in lines}
        writer.words.varied = hard > 0
        self.people: list[dict[str, Any]] = []
        self.places: list[str] = []
        self.orgs: list[str] = []
        self.family, self.deed, self.category = "", "", ""
        self.title, self.aside = self.spec.get("title", ""), False

    def write(self, empty: bool) -> str:
        """Write the text: first news, then what follows from it and what others say, unless it is empty of news."""
        rng, spec = self.rng, self.spec
        self.writer.start_text()
        others, fillers = self.writer.corpus["notice_others"], self.writer.corpus["fillers"]
        parts = [self.fill(rng.choice(others + fillers)) for _ in range(rng.choice([0, 0, 0, 1]))]
        opening = rng.choice(["unnamed", "idle", "idle"]) if self.hard and rng.random() < self.hard else ""
        if opening:
            parts += [self.fill(line) for line in rng.sample(spec[opening], k=1 if opening == "unnamed" else 2)]
        elif not empty:
            refused = rng.random() < 0.15
            self.aside = refused and self.pairs > 0
            parts.append(self.fill(rng.choice(spec["no"] if refused else spec["lines"]), flag=not refused))
            # What is replaced was drawn all the same: the stages before these kinds of text drew it, and draw it still.
            if "tales" in spec and rng.random() < 0.1:
                parts[-1] = self.retell("tales", aside=self.pairs > 0)
            if "cleared" in spec and rng.random() < 0.2:
                parts[-1] = self.retell(rng.choice(["tales", "cleared"]), aside=True)
            elif rng.random() < 0.15:
                self.aside = False
                parts.append(self.fill(rng.choice(spec["lines"]), flag=True))
        after = [] if empty or opening else rng.sample(spec["after"], k=rng.choice([0, 1, 1, 2]))
        more = after + rng.choices(others, k=rng.choice([0, 1, 1, 2])) + rng.choices(fillers, k=rng.choice([0, 0, 1]))
        rng.shuffle(more)
        meta = rng.choices(self.writer.corpus["meta_lines"], k=rng.choice([0, 0, 0, 1]))
        head = "".join(self.fill(line) + "\n" for line in meta)
        return head + "".join(parts + [self.fill(line) for line in more])

    def fill(self, line: str, flag: bool = True) -> str:
        """Fill a line's slots and keep what it tells."""
        writer, rng, words = self.writer, self.rng, self.writer.words
        told: list[dict[str, Any]] = []
        known = [*self.spec["after"], *self.spec.get("unnamed", [])]
        asked = not self.aside and ("{who}" in line or "{sur}" in line or line in known)
        if self.pairs and "{place}" in line and rng.random() < self.pairs:
            line = line.replace("{place}", rng.choice(["{place}と{place}", "{place}や{place}"]), 1)

        def slot(match: Any) -> str:
            name = match[1]
            if name in ("T", "done", "was", "thing"):
                return self.phrase(name)
            if name == "who":
                return self.introduce(told)
            if name == "other":
                return writer.introduce("さん")[0]
            if name == "sur":
                return self.family or words.person()[0]
            if name == "deed":
                return self.new_deed()
            if name == "deed0":
                return self.deed or "品"
            if name == "num":
                return words.number(2, rng.choice([9, 99, 3000]))
            if name in ("reason", "quote"):
                return words.pick(name + "s")
            return self.named(name, asked)

        text = SLOT.sub(slot, line)
        self.people += [one | {"t": self.deed, "c": self.category, "flag": flag, "real": True} for one in told]
        return text

    def named(self, name: str, asked: bool) -> str:
        """Draw a place, an organisation, a date or the like, and keep those of the first two that are asked for."""
        words, front, spot = self.writer.words, "", ""
        if "offices" in self.spec and name in ("org", "office"):
            value = self.kanji(self.rng.choice(self.spec["offices"]), words.core)
            if self.hard and self.rng.random() < 0.3:
                front = self.kanji(self.rng.choice(self.spec["before"]))
        elif name == "rival":
            value = self.kanji(self.rng.choice(self.spec["rivals"]))
        elif "offices" in self.spec and name == "place":
            value, spot = words.home(), self.rng.choice(["", "の" + words.pick("place_ends")])
        else:
            value = str(getattr(words, {"elsewhere": "place", "body": "org"}.get(name, name))())
        kept = {"place": self.places, "org": self.orgs}.get(name, [])
        if asked and value not in kept:
            kept.append(value)
        return front + value + spot

    def retell(self, name: str, aside: bool) -> str:
        """Put a tale in the place of the news, or news of people who were cleared, mostly without their title.

        Args:
            name: "tales" or "cleared"; what the people did is not real, or not a fact.
            aside: Whether places and offices do not count from here on.
        """
        self.people, self.places, self.orgs, self.aside = [], [], [], aside
        if name == "cleared" and self.rng.random() < 0.7:
            self.title = "さん"
        if self.pairs:
            self.family = ""  # of the news that this replaces
        text = self.fill(self.rng.choice(self.spec[name]))
        untrue = {"real": False} if name == "tales" else {"flag": False}
        self.people = [one | untrue for one in self.people]
        return text

    def kanji(self, text: str, core: Callable[[], str] | None = None) -> str:
        """Put random kanji (or what `core` draws), or a number, in the place of the slots of a phrase."""
        words = self.writer.words
        core = core or (lambda: words.some_kanji(1, 3))
        return SLOT.sub(lambda match: words.number(2, 90) if match[1] == "num" else core(), text)

    def new_deed(self) -> str:
        """Draw what the people did, and its category where the kind of news has any."""
        deeds = self.spec["deeds"]
        if isinstance(deeds, dict):
            self.category = self.rng.choice(list(deeds))
            deeds = deeds[self.category]
        self.deed = self.kanji(self.rng.choice(deeds))
        return self.deed

    def phrase(self, name: str) -> str:
        """Draw a phrase of a kind of news that shares its sentences: its title, its verbs or a pastime."""
        if name == "T":
            return str(self.title)
        return self.kanji(self.rng.choice(self.spec["things" if name == "thing" else name]))

    def introduce(self, told: list[dict[str, Any]]) -> str:
        """Introduce the one to three people of the news, with its title."""
        rng, texts = self.rng, list[str]()
        count = rng.choice([1, 1, 1, 1, 1, 2, 2, 3])
        for _ in range(count):
            text, said = self.writer.introduce(self.title)
            texts.append(text)
            told.append(dict(said))
            if not self.family or rng.random() < 0.5:
                self.family = self.writer.family
        tail = f"の{self.writer.words.number(count, count)}人" if count > 1 and rng.random() < 0.4 else ""
        return rng.choice(["と", "、", "と、"]).join(texts) + tail
