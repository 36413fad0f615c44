"""What the invented conversations share: words of one data set, frames said in one of several voices, and apartness.

`<polite/casual/sweet>` in a frame is one of its parts, by the number of the voice (the last where there are fewer);
`<name>` is a word, and `user ⇒ reply` a pair of turns. A pool's line `a b × c d` stands for ac, ad, bc and bd.
"""

import itertools
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from recipekit import near, sampling
from recipekit.errors import UserError
from recipekit.runs import write_bytes
from recipekit.sampling import Line, Pools

ARROW = " ⇒ "
TOO_LIKE = 0.75  # of Jaccard between rows of two files: stays clear of what tools/leaks.py calls near (0.8)
TRIES = 400
Values = dict[str, str]
Row = dict[str, Any]


def pair(line: str) -> tuple[str, str]:
    """Split a frame into what the user says and what is replied."""
    user, _, reply = line.partition(ARROW)
    return user, reply


def words(lines: Iterable[Line]) -> Iterator[Line]:
    """Write out the words of a pool."""
    for line in lines:
        for parts in itertools.product(*(part.split() for part in line.split("×"))):
            yield Line("".join(parts), line.place)


def read(folder: Path, slots: Iterable[str]) -> tuple[dict[str, Any], dict[str, Pools]]:
    """Read the sources of a chat task and split the words of its pools between train, val and test.

    A word that stands in a frame stays in train.

    Args:
        folder: Of the sources.
        slots: Slots that are filled by something else than pools and lists.

    Returns:
        The sources, and the words of every data set.

    Raises:
        UserError: Something in the sources is wrong; all problems at once.
    """
    sources = sampling.read_sources(folder)
    pools = {name: list(words(lines)) for name, lines in sources["pools"].items()}
    places: dict[str, str] = {}
    problems = []
    for word in itertools.chain.from_iterable(pools.values()):
        if word in places:
            problems.append(f"{word.place}: '{word}' already stands at {places[word]}; drop one")
        places[word] = word.place
    known = {*pools, *sources["lists"], *slots}
    frames = [frame for name, part in sources.items() if name not in ("pools", "lists", "plan")
              for frame in sampling.all_frames(part)]  # fmt: skip
    for frame in frames:
        problems += sampling.frame_problems(frame, lambda slot: "/" in slot or slot in known)
    if problems:
        raise UserError(problems)
    text = "\n".join(frames)
    plan = sources["plan"]
    free = {name: [str(word) for word in part if word not in text] for name, part in pools.items()}
    split = sampling.split_words(free, plan["shares"], random.Random(plan["seed"]))
    for name, part in pools.items():
        split["train"][name] += [str(word) for word in part if word in text]
    return sources, split


class Teller:
    """Says frames with the words of one data set.

    Args:
        pools: Pool -> words.
        lists: Words that all data sets share, by slot.
        macros: Slot -> its parts by voice, separated by "/".
        rng: Where chance comes from.
    """

    def __init__(
        self, pools: Pools, lists: Mapping[str, Sequence[str]], macros: Mapping[str, str], rng: random.Random
    ) -> None:
        self.words = {**{name: [w for line in lines for w in line.split()] for name, lines in lists.items()}, **pools}
        self.macros, self.rng = macros, rng

    def any_of(self, lines: Sequence[str]) -> str:
        """Choose a frame and make its choices."""
        return sampling.choose(self.rng.choice(lines), self.rng)

    def part(self, parts: Sequence[str], voice: int) -> str:
        """Choose the part of `<a/b/c>` that a voice says."""
        return parts[min(voice, len(parts) - 1)]

    def say(self, frame: str, voice: int, values: Values) -> str:
        """Fill a frame.

        Args:
            frame: The frame; its choices are made if need be.
            voice: Number of the part that is said of `<a/b/c>`.
            values: Words of slots; a slot that is not in it is drawn and added.
        """

        def lookup(slot: str) -> str:
            parts = self.macros.get(slot, slot).split("/")
            if len(parts) > 1:
                return self.part(parts, voice)
            if slot not in values:
                values[slot] = self.rng.choice(self.words[slot])
            return values[slot]

        return sampling.fill(frame, self.rng, lookup)


class Apart:
    """Keeps what is written in different files apart: no text of one is nearly that of another.

    Args:
        text: Tells what is compared of a row; without it all that is said.
    """

    def __init__(self, text: Callable[[Row], str] | None = None) -> None:
        self.text = text or text_of
        self.texts: set[str] = set()
        self.file = ""
        self.fresh: list[set[str]] = []  # grams of the texts of this file
        self.sizes = np.zeros(0, np.intp)  # grams of each text of the files before
        self.places: dict[str, array[int]] = {}  # gram -> texts of the files before

    def open(self, file: str) -> None:
        """Begin a file, or go on with it."""
        if file == self.file:
            return
        for place, grams in enumerate(self.fresh, start=len(self.sizes)):
            for gram in grams:
                self.places.setdefault(gram, array("Q")).append(place)
        self.sizes = np.append(self.sizes, [len(grams) for grams in self.fresh]).astype(np.intp)
        self.file, self.fresh = file, []

    def take(self, text: str) -> bool:
        """Remember a text; returns False where it was written before, or is too like one of another file."""
        normal = near.normal(text)
        grams = {normal[i : i + near.GRAM] for i in range(max(1, len(normal) - near.GRAM + 1))}
        if normal in self.texts or self._likeness(grams) >= TOO_LIKE:
            return False
        self.texts.add(normal)
        self.fresh.append(grams)
        return True

    def _likeness(self, grams: set[str]) -> float:
        found = [np.frombuffer(self.places[gram], np.uint64) for gram in grams if gram in self.places]
        if not found:
            return 0.0
        shared = np.bincount(np.concatenate(found).astype(np.intp), minlength=len(self.sizes))
        return float((shared / (len(grams) + self.sizes - shared)).max())


def text_of(row: Row) -> str:
    """Return all that is said in a row, a line each."""
    turns = [turn["content"] for turn in row.get("messages") or row["conversation"]]
    return "\n".join([*turns, *(row[key] for key in ("chosen", "reference") if key in row)])


def rows_of(file: str, count: int, apart: Apart, invent: Callable[[int], Row]) -> list[Row]:
    """Invent the rows of a file, each unlike those of other files.

    Args:
        file: Its name, in messages.
        count: How many.
        apart: What was written so far.
        invent: Makes a row; gets its number, from 0.

    Raises:
        UserError: There is nothing new to say.
    """
    apart.open(file)
    rows = []
    for number in range(count):
        row = next((row for row in (invent(number) for _ in range(TRIES)) if apart.take(apart.text(row))), None)
        if row is None:
            raise UserError(f"{file}: nothing new after {TRIES} tries; write more frames or words, or plan fewer rows")
        rows.append(row)
    return rows


def write(output: Path, files: Mapping[str, Sequence[Row]]) -> dict[str, int]:
    """Write files of rows; returns rows by file name."""
    for name, rows in files.items():
        write_bytes(output / name, b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return {name: len(rows) for name, rows in files.items()}


def numbered(prefix: str, rows: Sequence[Row]) -> list[Row]:
    """Put ids before rows: PREFIX_0001 and so on."""
    return [{"id": f"{prefix}_{number:04}", **row} for number, row in enumerate(rows, start=1)]


def turns(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Lay pairs of what is said and replied out as turns."""
    return [
        {"role": role, "content": text}
        for both in pairs
        for role, text in zip(("user", "assistant"), both, strict=True)
    ]
