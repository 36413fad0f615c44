"""Why a real conversation is not taken: its length, repetition, language, or words that do no good."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recipekit import near, yamlfile
from recipekit.errors import UserError
from recipekit.runs import relative

WORDS = Path(__file__).with_name("unsafe_words.yml")
_JAPANESE = re.compile("[ぁ-ゖァ-ヺー㐀-鿿々〆]")
_KANA = re.compile("[ぁ-ゖァ-ヺ]")
_LOOP = re.compile(r"(.{4,40}?)\1{3,}", re.DOTALL)  # a phrase four times in a row; laughter is shorter

Reason = tuple[str, str]  # kind, and what was found


@dataclass(frozen=True)
class Limits:
    """What is taken.

    Attributes:
        min_turns: Fewest turns, once those of one speaker are joined.
        max_characters: Longest turn.
        max_total: Longest conversation (characters): it has to fit into sequence_len tokens with the system message.
        japanese: Least share of Japanese among the letters.
        repeats: Largest share of turns that the same speaker has said before.
        words: Category -> unsafe words, in NFKC.
    """

    min_turns: int = 4
    max_characters: int = 400
    max_total: int = 1800
    japanese: float = 0.7
    repeats: float = 0.2
    words: dict[str, list[str]] = field(default_factory=dict)

    def reasons(self, turns: Sequence[tuple[str, str]]) -> Iterator[Reason]:
        """Yield every reason against a conversation of speakers' turns."""
        texts = [text for _, text in turns]
        if len(turns) < self.min_turns:
            yield "turns", f"{len(turns)} turns, fewer than {self.min_turns}"
        if (longest := max(map(len, texts), default=0)) > self.max_characters:
            yield "length", f"a turn of {longest:,} characters, more than {self.max_characters:,}"
        if (total := sum(map(len, texts))) > self.max_total:
            yield "length", f"{total:,} characters in all, more than {self.max_total:,}"
        yield from self._repetition(turns)
        share, kana = language("\n".join(texts))
        if texts and (share < self.japanese or not kana):
            yield "language", f"{share:.0%} of the letters are Japanese" + ("" if kana else ", none of them kana")
        yield from self._unsafe(texts)

    def _repetition(self, turns: Sequence[tuple[str, str]]) -> Iterator[Reason]:
        said = {(who, near.normal(text)) for who, text in turns}
        share = 1 - len(said) / len(turns) if turns else 0
        if share > self.repeats:
            yield "repetition", f"{share:.0%} of the turns were said before by the same speaker"
        for number, (_, text) in enumerate(turns):
            if match := _LOOP.search(text):
                yield "repetition", f"turn {number}: {len(match[1])} characters {len(match[0]) // len(match[1])} times"
                return

    def _unsafe(self, texts: Sequence[str]) -> Iterator[Reason]:
        for number, text in enumerate(texts):
            plain = unicodedata.normalize("NFKC", text).casefold()
            for category, words in self.words.items():
                if any(word in plain for word in words):
                    yield "unsafe", f"turn {number}: a word of '{category}'"


def language(text: str) -> tuple[float, bool]:
    """Measure the share of kana and kanji among a text's letters, and whether there are kana."""
    letters = [character for character in text if character.isalpha()]
    japanese = sum(bool(_JAPANESE.match(character)) for character in letters)
    return japanese / len(letters) if letters else 0.0, bool(_KANA.search(text))


def read_words(path: Path = WORDS) -> dict[str, list[str]]:
    """Read a list of unsafe words: category -> words.

    Raises:
        UserError: It is no such list; all that is wrong.
    """
    content, lines = yamlfile.load(path)
    wrong = [
        f"{relative(path)}:{lines[category,]}: {category}: found {words!r}, expected a list of words"
        for category, words in content.items()
        if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words)
    ]
    if wrong:
        raise UserError(wrong)
    return {
        category: [unicodedata.normalize("NFKC", word).casefold() for word in words]
        for category, words in content.items()
    }
