"""What is measured in one reply: its length, how its sentences end, emoji, words of emotion, and what repeats itself.

Sentences end at 。！？ and the like, at emoji and at line ends. Words and their forms are SudachiDict's (mode C).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import regex
import sudachipy

from recipekit import ROOT, yamlfile

WORDS = ROOT / "tools" / "recipekit" / "chat_words.yml"
PARTICLES = {"ne": "ね", "yo": "よ", "wa": "わ"}
GRAM = 4  # characters
LONGEST = 4000  # characters that are analysed at a time
REPEATED = 0.3  # share of repeated 4-grams from which on a reply is a loop
EMOJI = regex.compile(
    r"\p{Regional_Indicator}{2}"
    r"|(?![©®™‼⁉〰〽㊗㊙\u2190-\u21ff])\p{Extended_Pictographic}"
    r"(?:\ufe0f|\p{Emoji_Modifier}|\u200d\p{Extended_Pictographic})*"
)
_ENDS = re.compile(r"[。．！？!?‼⁉…\n]+|\.{2,}|・{3,}")
_BROKEN = re.compile(
    r"[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufff0-\ufffc]|<\|?/?[a-z_]+\|?>|\[/?INST\]", re.IGNORECASE
)


class Reading(NamedTuple):
    """What is measured in a text; shares are of its sentences.

    Attributes:
        length: Characters, without blanks.
        particles: Share that ends in ね, よ or わ.
        ne: Share that ends in ね, alone or among others (よね).
        yo: The same of よ.
        wa: The same of わ.
        emoji: How many there are.
        polite: Share with です or ます.
        emotions: How many words of emotion there are.
        words: Its words as written, without signs.
    """

    length: int
    particles: float
    ne: float
    yo: float
    wa: float
    emoji: int
    polite: float
    emotions: int
    words: tuple[str, ...]

    @property
    def expressive(self) -> bool:
        """Whether it shows a feeling: by a word of emotion, an emoji, or a particle at the end of a sentence."""
        return bool(self.emotions or self.emoji or self.particles)


@cache
def words() -> dict[str, Any]:
    """Read what the measures go by."""
    return yamlfile.load(WORDS)[0]


class Reader:
    """Reads texts; equal ones once."""

    def __init__(self) -> None:
        """Load the dictionary and the words of emotion."""
        self._tokenizer = sudachipy.Dictionary().create(mode=sudachipy.SplitMode.C)
        self._emotions = {word for group in words()["emotions"].values() for word in group}
        self._known: dict[str, Reading] = {}

    def read(self, text: str) -> Reading:
        """Measure a text."""
        if text not in self._known:
            self._known[text] = self._read(text)
        return self._known[text]

    def _read(self, text: str) -> Reading:
        emoji = len(EMOJI.findall(text))
        sentences = [self._sentence(part) for part in sentences_of(EMOJI.sub("\n", text))]
        sentences = [one for one in sentences if one.words]
        count = max(len(sentences), 1)
        ends = {name: sum(own in one.ends for one in sentences) / count for name, own in PARTICLES.items()}
        return Reading(
            len("".join(text.split())), sum(bool(one.ends) for one in sentences) / count, **ends,
            emoji=emoji, polite=sum(one.polite for one in sentences) / count,
            emotions=sum(one.emotions for one in sentences), words=tuple(w for one in sentences for w in one.words),
        )  # fmt: skip

    def _sentence(self, text: str) -> "_Sentence":
        said, ends, polite, emotions = [], set[str](), False, 0
        for token in self._tokenizer.tokenize(text):
            kind = token.part_of_speech()
            if kind[0] in ("補助記号", "記号", "空白") or not any(map(str.isalnum, token.surface())):
                if kind[1] == "読点":
                    ends = set()
                continue
            form, normal = token.dictionary_form(), token.normalized_form()
            said.append(token.surface())
            ends = ends | {normal} if kind[1] == "終助詞" else set()
            polite |= kind[0] == "助動詞" and form in ("です", "ます")
            emotions += form in self._emotions or normal in self._emotions
        return _Sentence(said, ends & set(PARTICLES.values()), polite, emotions)


class _Sentence(NamedTuple):
    words: list[str]
    ends: set[str]  # particles of PARTICLES
    polite: bool
    emotions: int


def sentences_of(text: str) -> list[str]:
    """Take a text apart into sentences, without what ends them."""
    parts = (part.strip() for part in _ENDS.split(text))
    return [part[i : i + LONGEST] for part in parts for i in range(0, len(part), LONGEST)]


def is_broken(text: str) -> bool:
    """Tell whether a text has characters of no text, or a chat template's tokens."""
    return bool(_BROKEN.search(text))


def repeated(text: str) -> float:
    """Return the share of a text's 4-grams of characters that stood in it before."""
    number = len(text) - GRAM + 1
    return 1 - len({text[i : i + GRAM] for i in range(number)}) / number if number > 0 else 0.0


def longest_repeat(text: str) -> int:
    """Return how many characters the longest part of a text has that stands in it twice; the two may overlap."""
    low, high = 0, len(text) - 1
    while low < high:
        size = (low + high + 1) // 2
        number = len(text) - size + 1
        if len({text[i : i + size] for i in range(number)}) < number:
            low = size
        else:
            high = size - 1
    return max(low, 0)


def distinct(replies: Iterable[tuple[str, ...]], size: int) -> float | None:
    """Return the share of different ones among the n-grams of words of all replies; None: there are none."""
    grams = [own[i : i + size] for own in replies for i in range(len(own) - size + 1)]
    return len(set(grams)) / len(grams) if grams else None


def plain(text: str) -> str:
    """Write a text for comparing: NFKC, lower case, without blanks."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
