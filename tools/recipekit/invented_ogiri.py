"""Writes the bundled sample of ogiri: invented odai, in words or pictures, with responses and the mean of their votes.

A response is a frame filled with words of a topic: that of the odai, or another. No frame and no topic says which, so
that whether a response fits shows only beside its odai.
"""

import csv
import hashlib
import io
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from recipekit import invented_ogiri_checks as checks
from recipekit import invented_ogiri_images as images
from recipekit import sampling
from recipekit.errors import UserError
from recipekit.invented_ogiri_checks import KINDS, PLAIN
from recipekit.runs import write_bytes, write_text
from recipekit.sampling import SLOT, Deck

COLUMNS = ("id", "odai_id", "type", "odai", "image", "response", "score")
CAPTIONED = "written by hand"
TRIES = 1000


class Odai(NamedTuple):
    """What is to be answered.

    Attributes:
        topic: What it is about.
        form: How it is answered: "state" what happens, "say" what somebody says.
        text: Its words; a picture may have none.
        picture: What its picture shows, None where it has none.
        caption: The same in words, empty where it has none.
    """

    topic: str
    form: str
    text: str
    picture: images.Picture | None = None
    caption: str = ""

    @property
    def body(self) -> str:
        """The odai as rows of recipes/ogiri have it."""
        return "\n".join(part for part in (self.text, self.caption and f"写真: {self.caption}") if part)


class Answer(NamedTuple):
    """A response.

    Attributes:
        text: Its words.
        relates: Whether it is about the topic of its odai.
        twist: The kind of its twist, or PLAIN.
    """

    text: str
    relates: bool
    twist: str


class Row(NamedTuple):
    """A row of the sample, and what its score was drawn from.

    Attributes:
        odai_id: Number of the odai, from 1.
        odai: The odai.
        answer: The response.
        worth: The score it would have from endlessly many voters without a scale's ends.
        score: Mean of the votes.
    """

    odai_id: int
    odai: Odai
    answer: Answer
    worth: float
    score: float


def read(folder: Path) -> dict[str, Any]:
    """Read the sources of the sample.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources = sampling.read_sources(folder)
    if problems := [*checks.problems(sources), *images.problems(sources)]:
        raise UserError(problems)
    return sources


class Writer:
    """Writes odai and responses.

    Args:
        sources: What read() returns.
        rng: Where chance comes from.
        rows: Rows of which no odai, no picture and, but for those that fit anywhere, no response is to be written.
    """

    def __init__(self, sources: dict[str, Any], rng: random.Random, rows: Iterable[Row] = ()) -> None:
        self.sources, self.plan, self.rng = sources, sources["plan"], rng
        self.words = {name: {kind: spec[kind].split() for kind in KINDS} for name, spec in sources["topics"].items()}
        drawn = [name for name, spec in sources["topics"].items() if "drawn" in spec]
        self.topics = {"text": list(self.words), "image": drawn}
        self.asked: set[Odai] = set()
        self.shown: set[images.Picture | None] = set()
        self.answered: set[str] = set()
        for row in rows:
            self.keep(row.odai, row.answer)

    def keep(self, odai: Odai, answer: Answer | None = None) -> None:
        """Remember what is not to be written again."""
        self.asked.add(odai)
        self.shown.add(odai.picture)
        self.answered.update([answer.text] if answer else [])

    def pair(self) -> tuple[Odai, Answer]:
        """Write an odai, one in three a picture's, and a response that is as likely to fit as not."""
        drawn = self.rng.random() < 1 / 3
        topic, other = self.rng.sample(self.topics["image" if drawn else "text"], 2)
        odai = self.odai(topic, self.picture(topic) if drawn else None)
        return odai, self.answer(odai, self.rng.choice((topic, other)))

    def picture(self, topic: str) -> images.Picture:
        """Choose what a picture of a topic shows."""
        for _ in range(TRIES):
            picture = images.invent(self.sources, topic, self.rng)
            if picture not in self.shown:
                return picture
        raise UserError(f"no new picture of {topic} after {TRIES} tries; draw more figures, or plan fewer pictures")

    def odai(self, topic: str, picture: images.Picture | None = None) -> Odai:
        """Write an odai on a topic, or the words to a picture."""
        frames = self.sources["odai"]["image" if picture else "text"]
        caption = images.caption(self.sources, picture) if picture else ""
        for _ in range(TRIES):
            (form,), text = sampling.by_topic(self.rng.choice(frames))
            silent = picture and self.rng.random() < self.plan["silent"]
            odai = Odai(topic, form, "" if silent else self.filled(text, topic), picture, caption)
            if odai not in self.asked:
                return odai
        raise UserError(
            f"no new odai on {topic} after {TRIES} tries; write more frames under odai:, or plan fewer odai"
        )

    def answer(self, odai: Odai, topic: str) -> Answer:
        """Write a response to an odai with words of a topic."""
        relates, twisted = topic == odai.topic, self.rng.random() < self.plan["twisted"]
        if not relates and not twisted and self.rng.random() < self.plan["generic"]:
            return Answer(sampling.choose(self.rng.choice(self.sources["extras"]["generic"]), self.rng), False, PLAIN)
        frames = self.sources[odai.form]
        twist = self.rng.choice([name for name in frames if name != PLAIN]) if twisted else PLAIN
        body = odai.text + odai.caption
        mentioned = {kind for kind, words in self.words[odai.topic].items() if any(word in body for word in words)}
        same = [frame for frame in frames[twist] if mentioned & {slot.rstrip("2") for slot in SLOT.findall(frame)}]
        for _ in range(TRIES):
            frame = self.rng.choice(same if same and self.rng.random() < self.plan["same_kind"] else frames[twist])
            text = self.ended(self.filled(frame, topic, body))
            if text not in self.answered:
                return Answer(text, relates, twist)
        raise UserError(
            f"{frame.place}: nothing new on {topic} after {TRIES} tries; write more frames, or plan fewer rows"
        )

    def filled(self, frame: str, topic: str, body: str = "") -> str:
        """Fill a frame with words of a topic, rather with those that a text mentions."""
        chosen: dict[str, str] = {}

        def value(slot: str) -> str:
            if slot not in chosen:
                words = [word for word in self.words[topic][slot.rstrip("2")] if word not in chosen.values()]
                echoes = self.rng.random() < self.plan["echo"]
                chosen[slot] = self.rng.choice([word for word in words if (word in body) == echoes] or words)
            return chosen[slot]

        return sampling.fill(frame, self.rng, value)

    def ended(self, text: str) -> str:
        """Put a word before a response, or a remark after it, or neither."""
        endings, quoted = self.plan["endings"], text.startswith("「") and text.endswith("」")
        ending = self.rng.choices(list(endings), list(endings.values()))[0]
        if quoted and self.rng.random() < self.plan["unquoted"]:
            text, quoted = text[1:-1], False
        if ending == "none" or (ending == "head" and quoted):
            return text
        extra = sampling.choose(self.rng.choice(self.sources["extras"][ending]), self.rng)
        if ending == "head":
            return extra + text
        return text + ("" if text.endswith(("」", "？", "！")) else "。") + extra


def worth(sources: dict[str, Any], answer: Answer, ease: float) -> float:
    """Return what a response is worth on the scale: fit, twist and length; `ease` is its odai's share."""
    plan, length = sources["plan"], sources["plan"]["length"]
    short = 1 - (math.log(len(answer.text) / length["best"]) / math.log(length["spread"])) ** 2
    return (
        plan["base"]
        + ease
        + plan["relates"] * answer.relates
        + sources["twists"].get(answer.twist, 0)
        + max(length["worth"] * short, length["least"])
    )


def score(plan: dict[str, Any], value: float, rng: random.Random) -> float:
    """Return the mean of the votes for a response of some worth, to three decimals."""
    low, high = plan["scale"]
    votes = [round(value + rng.gauss(0, plan["voter_noise"])) for _ in range(rng.randint(*plan["voters"]))]
    return round(fmean(min(max(vote, low), high) for vote in votes), 3)


def sample(sources: dict[str, Any]) -> dict[str, list[Row]]:
    """Write all data sets; returns rows by set, odai by odai."""
    writer = Writer(sources, random.Random(sources["plan"]["seed"]))
    numbers = itertools.count(1)
    sets: dict[str, list[Row]] = {}
    for name, wanted in sources["plan"]["sets"].items():
        asked = _odai_of(writer, wanted)
        others = {
            shown: Deck([o.topic for o in asked if bool(o.picture) == shown], writer.rng) for shown in (True, False)
        }
        sets[name] = [
            row for odai in asked for row in _rows_of(writer, next(numbers), odai, others[bool(odai.picture)])
        ]
    return sets


def _odai_of(writer: Writer, wanted: dict[str, int]) -> list[Odai]:
    """Write the odai of a data set."""
    decks = {kind: Deck(topics, writer.rng) for kind, topics in writer.topics.items()}
    pictures: list[images.Picture] = []
    for _ in range(wanted["pictures"]):
        pictures.append(writer.picture(decks["image"].draw()))
        writer.shown.add(pictures[-1])
    shown = [*pictures, *writer.rng.sample(pictures, wanted["again"]), *[None] * wanted["text"]]
    written = []
    for picture in shown:
        written.append(writer.odai(picture.topic if picture else decks["text"].draw(), picture))
        writer.keep(written[-1])
    return writer.rng.sample(written, len(written))


def _rows_of(writer: Writer, number: int, odai: Odai, others: Deck) -> Iterator[Row]:
    """Write the responses to an odai, half of them about its topic, half about one of another odai."""
    plan, rng = writer.plan, writer.rng
    ease, count = rng.gauss(0, plan["odai_spread"]), rng.randint(*plan["answers"])
    half = (count + rng.randrange(2)) // 2
    for fits in rng.sample([True] * half + [False] * (count - half), count):
        answer = writer.answer(odai, odai.topic if fits else others.draw(but=odai.topic))
        writer.keep(odai, answer)
        value = worth(writer.sources, answer, ease)
        yield Row(number, odai, answer, value, score(plan, value, rng))


def make(source: Path, output: Path) -> dict[str, int]:
    """Write all data sets of a source folder, their images and captions; returns rows by file name."""
    sources = read(source)
    sets = sample(sources)
    shown = dict.fromkeys(row.odai.picture for rows in sets.values() for row in rows if row.odai.picture)
    names = {picture: f"images/{number:04}.png" for number, picture in enumerate(shown, start=1)}
    drawn = {picture: images.png(sources, picture) for picture in shown}
    for picture, content in drawn.items():
        write_bytes(output / names[picture], content)
    captions = [
        [hashlib.md5(content, usedforsecurity=False).hexdigest(), images.caption(sources, picture), CAPTIONED]
        for picture, content in drawn.items()
    ]
    tables: dict[str, tuple[tuple[str, ...], list[list[Any]]]] = {
        "captions.csv": (("digest", "caption", "model"), captions)
    }
    numbers = itertools.count(1)
    for name, rows in sets.items():
        tables[f"{name}.csv"] = COLUMNS, [_cells(next(numbers), row, names) for row in rows]
    for name, (header, cells) in tables.items():
        write_text(output / name, _csv(header, cells))
    return {name: len(cells) for name, (_, cells) in tables.items()}


def _cells(number: int, row: Row, names: dict[images.Picture, str]) -> list[Any]:
    kind, image = ("image", names[row.odai.picture]) if row.odai.picture else ("text", "")
    return [f"r{number:04}", f"o{row.odai_id:03}", kind, row.odai.text, image, row.answer.text, row.score]


def _csv(header: Iterable[str], rows: list[list[Any]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()
