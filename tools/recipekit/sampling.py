"""Fills sentence frames with words, for invented sample data.

A frame is one line of text. `{a|b|}` chooses one of its parts (they nest), `<name>` is a slot that a word is put into,
and `<#1-31>` or `<#10-90:10>` is a number. A frame whose choices are made but whose slots are still open is a skeleton.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from recipekit import yamlfile
from recipekit.errors import UserError
from recipekit.runs import relative

INNERMOST = re.compile(r"\{([^{}]*)\}")
SLOT = re.compile(r"<([^<>]*)>")
NUMBER = re.compile(r"#(\d+)-(\d+)(?::(\d+))?")


class Line(str):
    """A text of a source file that knows its place, such as "words.yml:12"."""

    place: str

    def __new__(cls, text: str, place: str) -> "Line":  # noqa: D102
        line = super().__new__(cls, text)
        line.place = place
        return line


def choose(text: str, rng: random.Random) -> str:
    """Make every choice in a frame; returns its skeleton."""
    while "{" in text:
        text = INNERMOST.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


def by_topic(text: str) -> tuple[list[str], str]:
    """Split "one two：frame" into the topics a frame is kept for, none being any, and the frame."""
    topics, _, frame = text.rpartition("：")
    return topics.split(), frame


def fill(text: str, rng: random.Random, lookup: Callable[[str], str]) -> str:
    """Make every choice in a frame and put words into its slots."""

    def value(match: re.Match[str]) -> str:
        number = NUMBER.fullmatch(match[1])
        if not number:
            return lookup(match[1])
        low, high, step = int(number[1]), int(number[2]), int(number[3] or 1)
        return str(rng.randrange(low, high + 1, step))

    return SLOT.sub(value, choose(text, rng))


def frame_problems(frame: Line, known: Callable[[str], bool]) -> Iterator[str]:
    """Yield what is wrong with a frame: brackets that do not match, slots that nobody fills, empty numbers."""
    rest = SLOT.sub("", frame)
    if "<" in rest or ">" in rest:
        yield f"{frame.place}: found a single < or >, expected <slot>; close the slot"
    while INNERMOST.search(rest):
        rest = INNERMOST.sub("", rest)
    for sign in "{}|":
        if sign in rest:
            yield f"{frame.place}: found a '{sign}' without its partner, expected {{one|other}}; mend the brackets"
    for slot in SLOT.findall(frame):
        number = NUMBER.fullmatch(slot)
        if number and int(number[1]) > int(number[2]):
            yield f"{frame.place}: <{slot}> has no number in it, expected <#low-high>; swap the ends"
        elif not number and not known(slot):
            yield f"{frame.place}: unknown slot <{slot}>; add a list of that name under lists:, or mend the name"


def read_sources(folder: Path) -> dict[str, Any]:
    """Read all YAML files of a folder into one mapping.

    Every text in it becomes a Line, and every text of several lines a list of Lines, without remarks (#) and blanks.

    Raises:
        UserError: A file is no valid YAML or breaks the folder's schema.json, or the folder holds none; all problems at
            once.
    """
    if not (folder / "schema.json").is_file():
        raise UserError(f"{relative(folder)}/schema.json: no such file; this task has no sample sources to write from")
    schema = orjson.loads((folder / "schema.json").read_bytes())
    merged: dict[str, Any] = {}
    problems: list[str] = []
    paths = sorted(folder.glob("*.yml"))
    for path in paths:
        try:
            data, lines = yamlfile.load(path)
        except UserError as error:
            problems += error.problems
            continue
        file = relative(path)
        problems += _schema_problems(data, lines, schema, file)
        for section, value in _with_lines(data, (), lines, file).items():
            twice = [key for key in value if key in merged.setdefault(section, {})]
            problems += [f"{file}:{lines[section, key]}: a second {section}.{key}; keep one of them" for key in twice]
            merged[section].update(value)
    problems += [
        f"{relative(folder)}: no file there says {section}:; restore the folder with git checkout"
        for section in ({} if problems else schema["properties"])
        if section not in merged
    ]
    if problems:
        raise UserError(problems)
    return merged


def _schema_problems(data: Any, lines: yamlfile.Lines, schema: dict[str, Any], file: str) -> Iterator[str]:
    for problem in jsonschema.Draft202012Validator(schema).iter_errors(data):
        key = tuple(problem.absolute_path)
        if problem.validator == "additionalProperties":
            key += tuple(name for name in problem.instance if name not in problem.schema.get("properties", {}))[:1]
        place = next(lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in lines)
        yield f"{file}:{place}: {'.'.join(map(str, key))}: {problem.message}; see schema.json beside it"


def _with_lines(value: Any, key: tuple[str, ...], lines: yamlfile.Lines, file: str) -> Any:
    if isinstance(value, dict):
        return {name: _with_lines(inner, (*key, str(name)), lines, file) for name, inner in value.items()}
    if not isinstance(value, str):
        return value
    place = lines.get(key, 1)
    if not value.endswith("\n"):
        return Line(value, f"{file}:{place}")
    texts = [Line(text.strip(), f"{file}:{number}") for number, text in enumerate(value.splitlines(), start=place + 1)]
    return [text for text in texts if text and not text.startswith("#")]


def all_frames(value: Any) -> Iterator[Line]:
    """Yield the lines of every text of several lines, at any depth."""
    for inner in value.values():
        if isinstance(inner, dict):
            yield from all_frames(inner)
        elif isinstance(inner, list):
            yield from inner


def words_of(lines: Iterable[Line]) -> dict[str, str]:
    """Split lines into words; returns each word with its place.

    Raises:
        UserError: A word stands twice.
    """
    places: dict[str, str] = {}
    problems = []
    for line in lines:
        for word in line.split():
            if word in places:
                problems.append(f"{line.place}: '{word}' already stands at {places[word]}; drop one")
            places[word] = line.place
    if problems:
        raise UserError(problems)
    return places


Pools = dict[str, list[str]]


def split_words(pools: Pools, shares: dict[str, float], rng: random.Random) -> dict[str, Pools]:
    """Share out words between data sets, so that none holds a word, or part of a word, of another.

    A word leaves the first set only if all its characters stay behind in other words (a character-level model must have
    met the characters, not the words), and only if no other word contains it.

    Args:
        pools: Words by pool; no word in two pools.
        shares: For each set its share of every pool, 0-1; the first set keeps what the others leave.
        rng: Where chance comes from.

    Returns:
        Set -> pool -> words.
    """
    everything = [word for words in pools.values() for word in words]
    joined = "\n".join(everything)
    left = Counter("".join(everything))
    first, *others = shares
    split: dict[str, Pools] = {name: {} for name in shares}
    for pool, words in pools.items():
        rest = list(words)
        rng.shuffle(rest)
        for name in others:
            taken: list[str] = []
            for word in [word for word in rest if len(word) > 1 and joined.count(word) == 1]:
                if len(taken) < round(shares[name] * len(words)) and all(left[c] > word.count(c) for c in word):
                    taken.append(word)
                    left.subtract(word)
            rest = [word for word in rest if word not in taken]
            split[name][pool] = taken
        split[first][pool] = rest
    return split


class Novelty:
    """What has been written so far: sentences, and pairs of skeletons that stood in one article."""

    def __init__(self) -> None:
        self.sentences: set[str] = set()
        self.pairs: set[tuple[str, str]] = set()

    def take(self, skeletons: list[str], sentences: list[str]) -> bool:
        """Remember an article; returns False, and forgets it, where it repeats a sentence or a pair of skeletons."""
        pairs = {(min(a, b), max(a, b)) for i, a in enumerate(skeletons) for b in skeletons[i + 1 :]}
        if self.pairs & pairs or self.sentences & set(sentences) or len(set(sentences)) < len(sentences):
            return False
        self.pairs |= pairs
        self.sentences |= set(sentences)
        return True


class Deck:
    """Deals out words, each in turn as often as it was given."""

    def __init__(self, words: list[str], rng: random.Random) -> None:
        self.words, self.rng, self.left = words, rng, list[str]()

    def draw(self, but: str = "") -> str:
        """Return the next word that is not `but`."""
        if not set(self.left) - {but}:
            self.left += self.rng.sample(self.words, len(self.words))
        place = next(place for place, word in enumerate(self.left) if word != but)
        return self.left.pop(place)
